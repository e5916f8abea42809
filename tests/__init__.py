"""The tests, in the folders of what they test; what several of them use is in tests/support."""

import os

# Before NumPy and PyTorch are imported, and for the processes that tests start: threads of their libraries
# wait for each other in busy loops, which costs more than it saves where tests run beside each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# A cache that the user has would answer for what tests load.
os.environ.pop("SAM_EDGE_CACHE", None)
