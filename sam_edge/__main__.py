"""`python -m sam_edge`: the same as `sam-edge`."""

import sys

from .cli import main

sys.exit(main())
