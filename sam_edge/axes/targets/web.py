"""Browsers: graphs made of the operators that are fast in WebAssembly; their masks are those of others."""

from ..base import Target

TARGET = Target("web", rank=3, axis="browser", title="WebAssembly in browsers")
