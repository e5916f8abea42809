"""Finds the rows of a benchmark: a variant on a backend and a device, or the reason why it is absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sam_edge.axes import PRECISIONS
from sam_edge.backends import Backend, DeviceInfo, devices_of, find_backends
from sam_edge.backends.base import DEVICES
from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.variant import Variant
from sam_edge.errors import SamEdgeError
from sam_edge.runtime.targets import meant_for, unmet_requirement

KINDS = ("cpu", "gpu", "npu")


_SIMULATOR = "a simulator, which takes minutes; add --device npu to measure it"


@dataclass(frozen=True)
class Row:
    """A variant on a backend and a device.

    Attributes:
        id: the variant's; the format and "*" where the device is absent.
        format: "onnx", "openvino", "coreml", "pytorch".
        precision: "fp32", "fp16", "bf16" or "int8"; "" where the device is absent.
        backend: the backend's name.
        asked: the kind or name of the device that was asked for.
        device: the name of the device, as the backend calls it.
        bytes: of the variant's files; None of a row without files.
        absent: why it cannot be measured; "" where it can.
    """

    id: str
    format: str
    precision: str
    backend: str
    asked: str
    device: str
    bytes: int | None = None
    absent: str = ""

    @property
    def label(self) -> str:
        """For progress: variant and device."""
        return f"{self.id} on {self.device}"


def find_rows(
    bundle: Bundle,
    backend: str,
    devices: Sequence[str],
    precisions: Sequence[str],
    *,
    simulators: bool = True,
) -> list[Row]:
    """Every variant on every device asked for, in the bundle's order; one row for each device that is absent.

    Without `simulators`, rows that an NPU's simulator would run are absent.

    Raises:
        SamEdgeError: a device or precision is unknown, or no row can be measured.
        BackendError: no such backend.
    """
    backends = list(find_backends(backend))
    known = {one.name.casefold() for each in backends for one in devices_of(each)}
    for device in devices:
        if device.casefold() not in DEVICES and not _named(device, backends):
            raise SamEdgeError(
                f"unknown device {device!r}; expected some of {','.join(KINDS)} or a name from "
                f"`sam-edge devices`: {', '.join(sorted(known))}"
            )
    for precision in precisions:
        PRECISIONS.get(precision)
    rows = [row for device in devices for each in backends for row in _rows(bundle, each, device, precisions)]
    if not simulators:
        simulated = {one.name for each in backends for one in devices_of(each) if one.simulated}
        rows = [
            replace(row, absent=row.absent or _SIMULATOR) if row.device in simulated else row for row in rows
        ]
    if all(row.absent for row in rows):
        reasons = "; ".join(dict.fromkeys(row.absent for row in rows)) or "no variant has that precision"
        raise SamEdgeError(f"no variant of {bundle.path} can be measured on this machine: {reasons}")
    return rows


def _named(device: str, backends: Sequence[Backend]) -> bool:
    return any(one.matches(device) for each in backends for one in devices_of(each))


def _rows(bundle: Bundle, backend: Backend, device: str, precisions: Sequence[str]) -> list[Row]:
    variants = [
        v
        for v in bundle.manifest.variants
        if v.format in backend.formats and (not precisions or v.precision in precisions)
    ]
    meant = [one for one in devices_of(backend) if one.matches(device)]
    there = [one for one in meant if one.available]
    if not variants or not meant:
        return []
    if not there:
        reason = "; ".join(f"{one.name}: {one.reason}" for one in meant)
        form = variants[0].format
        return [Row(f"{form}-*", form, "", backend.name, device, _kind(meant[0], device), absent=reason)]
    return [_row(variant, backend, device, one) for one in there for variant in meant_for(variants, one)]


def _kind(one: DeviceInfo, device: str) -> str:
    return one.kind if device == "auto" else device


def _row(variant: Variant, backend: Backend, asked: str, device: DeviceInfo) -> Row:
    unmet = unmet_requirement(variant, device)
    return Row(
        variant.id,
        variant.format,
        variant.precision,
        backend.name,
        asked,
        device.name,
        variant.bytes,
        "" if unmet is None else f"{variant.id} {unmet}",
    )


def pytorch_rows(bundle: Bundle, devices: Sequence[str]) -> list[Row]:
    """Rows of the PyTorch reference: in FP32, and in the two ways in which PyTorch is faster."""
    size = bundle.manifest.model.checkpoint.bytes
    row = Row("pytorch-fp32", "pytorch", "fp32", "pytorch", "cpu", "cpu", size)
    kinds = [("pytorch-fp32", "fp32"), ("pytorch-bf16", "bf16"), ("pytorch-fp32-compile", "fp32")]
    return [
        replace(row, id=name, precision=precision, asked=device, device=device)
        for device in devices
        if device in ("cpu", "gpu")
        for name, precision in kinds
    ]
