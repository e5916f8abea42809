"""Runs Core ML packages in NumPy, to verify them without a Mac.

    load(path).run({"image": image, "resized_size": size})

Requires coremltools to read a package and only NumPy to run it.

package   reads a `.mlpackage`: specification, tensors, metadata
program   loads it as a program and runs it
ops/      the MIL operators
"""

from .program import Program, load

__all__ = ["Program", "load"]
