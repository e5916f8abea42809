"""FP32: what the reference computes in."""

from ..base import Gate, Precision

PRECISION = Precision(
    "fp32", rank=0, gate=Gate(0.999, 0.99), clip_gate=0.999, stays_exact="everything", marker="o"
)
