"""Core ML packages run in NumPy, to check them where there is no Mac.

    load(path).run({"image": picture, "resized_size": size})

Needs coremltools to read the package, and nothing but NumPy to run it.
"""

from .program import Program, load

__all__ = ["Program", "load"]
