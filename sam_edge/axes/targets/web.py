"""Browsers: graphs of operators that are fast in WebAssembly; their masks are those of the other variants."""

from ..base import Target

TARGET = Target("web", rank=3, axis="browser", title="WebAssembly in browsers")
