"""Qualcomm's Hexagon NPU: static graphs that it runs without falling back to the CPU."""

from ..base import Gate, Target

TARGET = Target(
    "hexagon",
    rank=2,
    axis="accelerator",
    title="Qualcomm's Hexagon NPU",
    # FP16 throughout costs more than the FP16 of other variants, which keeps norms and coordinates in FP32.
    gates={"fp16": Gate(0.99, 0.95)},
    devices=("QNNExecutionProvider",),
    runs_whole=True,
)
