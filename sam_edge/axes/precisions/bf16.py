"""BF16: FP16 weights in the encoder, which CPUs with BF16 instructions compute in BF16."""

from ..base import Gate, Precision

PRECISION = Precision(
    "bf16",
    rank=2,
    gate=Gate(0.995, 0.95),
    clip_gate=0.995,
    stays_exact="the decoder, which is that of FP16",
    marker="D",
)
