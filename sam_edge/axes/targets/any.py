"""Any CPU: weights that are multiplied in integers have 7 bits, which no x86 CPU lets overflow."""

from ..base import Target

TARGET = Target("any", rank=0, axis="instruction_set", title="any CPU")
