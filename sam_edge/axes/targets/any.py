"""Any CPU: INT8 weights have 7 bits (`reduce_range`), so that no x86 CPU's 16-bit sums overflow."""

from ..base import Target

TARGET = Target("any", rank=0, axis="instruction_set", title="any CPU")
