"""INT8: weights, and in most formats the activations of the encoder, in 8 bits."""

from ..base import Gate, Precision

PRECISION = Precision(
    "int8",
    rank=3,
    gate=Gate(0.95, 0.80),
    clip_gate=0.98,
    stays_exact="softmax, LayerNorm, activations of the decoder, and the few products that cost masks",
    calibrated=True,
    marker="^",
)
