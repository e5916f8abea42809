"""Child processes."""

from __future__ import annotations

import sys


def python_command(module: str) -> list[str]:
    """Return the command that runs `main()` of `module` with this process's Python and `sys.path`."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    return [sys.executable, "-c", code]
