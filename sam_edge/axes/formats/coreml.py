"""Core ML ML Programs: an .mlpackage folder."""

from ..base import Format

FORMAT = Format("coreml", rank=2, title="Core ML", colour="#009e73")
