"""FP16: half of the size."""

from ..base import Gate, Precision

PRECISION = Precision(
    "fp16",
    rank=1,
    gate=Gate(0.995, 0.95),
    clip_gate=0.995,
    stays_exact="norms, Fourier positions of points, and whatever comes near the largest FP16 number",
    marker="s",
)
