"""CPUs that add products of bytes in 32 bits (x86 VNNI and AMX, Arm's dot product): weights have all 8 bits.

Without VNNI, x86 adds pairs of products of an unsigned and a signed byte in 16 bits, where they saturate: the
masks get worse, and nothing is reported.
"""

from ..base import Requirement, Target

TARGET = Target(
    "vnni",
    rank=1,
    axis="instruction_set",
    title="CPUs with VNNI, AMX or Arm's dot product",
    requires=(Requirement("x86", ("avx512_vnni", "avx_vnni", "amx_int8")),),
)
