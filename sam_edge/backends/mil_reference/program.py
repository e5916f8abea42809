"""Load a saved Core ML package as a MIL program and run it in NumPy.

An operation whose result is declared FP16 computes in FP32 from FP16 arguments and rounds the result,
overflow to infinity included. A chip may accumulate in FP16, so this is the best case of FP16 and not a bound
for every device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ...system.output import suppress_output
from . import ops
from .package import allowed_sizes, import_coremltools, one_line, read_spec

Array = NDArray[Any]

WEIGHTS = Path("Data", "com.apple.CoreML", "weights")


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        kind: the operator, a key of `ops`.
        name: the operation's name in the package.
        arguments: parameter -> name of a value, or names of several.
        results: name and dtype of each result.
        frees: names of values not needed after it.
    """

    kind: str
    name: str
    arguments: Mapping[str, str | tuple[str, ...]]
    results: tuple[tuple[str, np.dtype[Any]], ...]
    frees: tuple[str, ...]


@dataclass(frozen=True)
class Input:
    """An input of a package.

    Attributes:
        name: its name.
        is_image: given as (1, S, S, 3) uint8 RGB, and (1, 3, S, S) inside the program.
        dtype: inside the program.
        sizes: the allowed sizes of each axis.
    """

    name: str
    is_image: bool
    dtype: np.dtype[Any]
    sizes: tuple[Sequence[int], ...]


@dataclass(frozen=True)
class Program:
    """A loaded program. `constants` are the package's constants by name, weights included."""

    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, np.dtype[Any]], ...]
    constants: Mapping[str, Any]
    steps: tuple[Step, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the program: arrays by input name -> arrays by output name; safe to call from several threads.

        Raises:
            BackendError: an input has another name, shape or dtype than the package allows.
        """
        values = _check_inputs(self.inputs, inputs)
        # Overflow to infinity and NaN are valid results of FP16.
        with np.errstate(all="ignore"):
            for step in self.steps:
                try:
                    self._run_step(step, values)
                except (ValueError, IndexError, TypeError) as error:
                    raise BackendError(f"cannot run {step.kind} ({step.name}): {one_line(error)}") from error
            return {name: np.array(self._value(name, values), dtype) for name, dtype in self.outputs}

    def _value(self, name: str, values: Mapping[str, Array]) -> Any:
        return values[name] if name in values else self.constants[name]

    def _run_step(self, step: Step, values: dict[str, Array]) -> None:
        arguments = {
            key: self._value(names, values)
            if isinstance(names, str)
            else [self._value(name, values) for name in names]
            for key, names in step.arguments.items()
        }
        results = apply(step.kind, arguments, [dtype for _, dtype in step.results])
        for (name, _), result in zip(step.results, results, strict=True):
            values[name] = result
        for name in step.frees:
            values.pop(name, None)

    def histogram(self) -> dict[str, int]:
        """Count the operations of each kind."""
        return dict(Counter(step.kind for step in self.steps))


def apply(kind: str, arguments: Mapping[str, Any], dtypes: Sequence[np.dtype[Any]]) -> list[Array]:
    """Run one operation: widen FP16 arguments, compute in FP32, round to the declared types."""
    if kind in ops.MOVEMENT_OPERATORS:
        result = ops.MOVEMENT_OPERATORS[kind](**arguments)
    else:
        result = ops.COMPUTE_OPERATORS[kind](**{key: _widen(value) for key, value in arguments.items()})
    results = result if isinstance(result, list) else [result]
    # Whole numbers wrap as Core ML's do; FP16 rounds to the nearest, beyond 65504 to infinity.
    return [np.asarray(r).astype(dtype, copy=False) for r, dtype in zip(results, dtypes, strict=True)]


def _widen(value: Any) -> Any:
    if isinstance(value, list):
        return [_widen(one) for one in value]
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _check_inputs(expected: Sequence[Input], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Check the inputs against the description and convert them to the program's dtypes and layout."""
    if set(inputs) != {one.name for one in expected}:
        names = ", ".join(one.name for one in expected)
        raise BackendError(f"the inputs are {', '.join(inputs) or 'none'}; expected {names}")
    values = {}
    for one in expected:
        array = np.asarray(inputs[one.name])
        fits = array.ndim == len(one.sizes) and all(
            size in allowed for size, allowed in zip(array.shape, one.sizes, strict=True)
        )
        if not fits:
            shape = ", ".join(_format_sizes(allowed) for allowed in one.sizes)
            raise BackendError(f"{one.name} has shape {array.shape}; the package expects ({shape})")
        if one.is_image:
            if array.dtype != np.uint8:
                raise BackendError(f"{one.name} has dtype {array.dtype}; expected uint8, RGB")
            array = array.transpose(0, 3, 1, 2)
        values[one.name] = np.ascontiguousarray(array, one.dtype)
    return values


def _format_sizes(allowed: Sequence[int]) -> str:
    if isinstance(allowed, range):
        return f"{allowed.start} to {allowed.stop - 1}" if len(allowed) > 1 else str(allowed.start)
    return " or ".join(map(str, allowed))


def load(path: Path) -> Program:
    """Load a saved package with its weights.

    Raises:
        BackendError: coremltools is not installed, the package is damaged, or it holds an operator that
            `ops` does not have.
    """
    import_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load as load_program

    spec = read_spec(path)
    try:
        with suppress_output():
            program = load_program(spec, spec.specificationVersion, str(path / WEIGHTS))
            function = program.functions["main"]
            constants, steps = _steps(function)
            inputs = tuple(_input(feature, function) for feature in spec.description.input)
    except BackendError:
        raise
    except Exception as error:  # damaged data raises nearly anything
        raise BackendError(
            f"{path} is damaged: {one_line(error)}; copy the bundle or export it again"
        ) from error
    types = {name: dtype for step in steps for name, dtype in step.results}
    names = [feature.name for feature in spec.description.output]
    outputs = tuple((name, types.get(name, np.dtype(np.float32))) for name in names)
    return Program(inputs, outputs, constants, tuple(steps))


def _input(feature: Any, function: Any) -> Input:
    dtype = _dtype(function.inputs[feature.name])
    if feature.type.WhichOneof("Type") == "imageType":
        image = feature.type.imageType
        return Input(feature.name, True, dtype, ((1,), (image.height,), (image.width,), (3,)))
    return Input(feature.name, False, dtype, tuple(allowed_sizes(feature)))


def _dtype(var: Any) -> np.dtype[Any]:
    from coremltools.converters.mil.mil import types

    return np.dtype(types.nptype_from_builtin(var.dtype))


def _steps(function: Any) -> tuple[dict[str, Any], list[Step]]:
    """Return the constants by name and the operations in order; each value is freed after its last use."""
    operations = list(function.operations)
    known = ops.MOVEMENT_OPERATORS.keys() | ops.COMPUTE_OPERATORS.keys() | {"const"}
    unknown = sorted({op.op_type for op in operations} - known)
    if unknown:
        raise BackendError(
            f"the package holds {', '.join(unknown)}, which only a Mac can run; "
            "run it on one, or export it with this version of sam-edge"
        )
    constants = {op.outputs[0].name: op.outputs[0].val for op in operations if op.op_type == "const"}
    needed = {var.name for var in function.outputs}
    steps: list[Step] = []
    for op in reversed(operations):
        if op.op_type == "const":
            continue
        arguments: dict[str, str | tuple[str, ...]] = {}
        frees = []
        for key, value in op.inputs.items():
            if value is None:
                continue
            several = isinstance(value, list | tuple)
            names = tuple(var.name for var in value) if several else (value.name,)
            arguments[key] = names if several else names[0]
            frees += [name for name in names if name not in needed and name not in constants]
            needed.update(names)
        unused = [var.name for var in op.outputs if var.name not in needed]
        results = tuple((var.name, _dtype(var)) for var in op.outputs)
        steps.append(Step(op.op_type, op.name, arguments, results, (*frees, *unused)))
    return constants, steps[::-1]
