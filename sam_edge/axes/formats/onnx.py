"""ONNX."""

from ..base import Format

FORMAT = Format("onnx", rank=0, title="ONNX", colour="#0072b2")
