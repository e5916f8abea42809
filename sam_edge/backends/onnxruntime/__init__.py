"""ONNX Runtime, with whichever execution providers the installed packages have.

backend     the `Backend`
providers   execution providers: which are installed, what they run on, which package adds them
session     sessions in this process: options, placement, cached graphs
isolated    sessions in a child process, for compilers that may crash
"""

from .backend import BACKEND, OnnxRuntime

__all__ = ["BACKEND", "OnnxRuntime"]
