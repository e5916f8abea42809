"""Write one variant into a bundle, measure its parity, and describe it for the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_edge.axes import AXES
from sam_edge.bundle.bundle import Bundle
from sam_edge.bundle.golden import Golden
from sam_edge.bundle.manifest import Manifest
from sam_edge.bundle.variant import Variant
from sam_edge.errors import ExportError, ParityError, SamEdgeError
from sam_edge.runtime.loading import load_variant
from sam_edge.verify.parity import NON_FINITE, run_parity

from .context.entries import file_entries
from .context.export_context import ExportContext
from .context.job import Job, Written
from .options import Plan, full_range, instruction_set_facts
from .progress import Progress, step
from .quantize.search import Parity


@dataclass(frozen=True)
class VariantExport:
    """One variant on its way into a bundle.

    Attributes:
        context: what the variants of this export share.
        plan: which variant.
        stage: the directory that becomes the bundle.
        manifest: what is known of the bundle so far.
        golden: the reference's answers.
    """

    context: ExportContext
    plan: Plan
    stage: Path
    manifest: Manifest
    golden: Golden

    @property
    def directory(self) -> Path:
        """Where its files go."""
        return self.stage / self.plan.id

    @property
    def gate(self) -> float:
        """The mean IoU that it must reach."""
        asked = self.context.options.min_iou
        return self.plan.gate if asked is None else asked

    def export(self, progress: Progress) -> dict[str, Any]:
        """Write it, measure it, and return its entry in the manifest.

        Raises:
            ExportError: the conversion failed.
            ParityError: the variant is below its gate.
        """
        plan = self.plan
        with step(progress, plan.id) as detail:
            written = self._write()
            files = file_entries(self.stage, self.directory)
            detail.append(f"{sum(file['bytes'] for file in files) / 1e6:.1f} MB")
            if written.remark:
                detail.append(written.remark)
        with step(progress, f"{plan.id} parity") as detail:
            parity = self._measure(plan.target.measures_on(written))
            detail.append(
                f"mean IoU {parity['mean_iou']:.5f}, min {parity['min_iou']:.5f}, "
                f"boundary {parity['boundary_iou']:.5f}"
            )
            if parity["device"] != "cpu":
                detail.append(f"on {parity['device']}")
        self._check(parity, written)
        calibration = self.context.calibration.sha256
        return {
            "id": plan.id,
            "format": plan.format.name,
            "precision": plan.precision.name,
            "files": files,
            "higher_precision_ops": written.higher_precision_ops,
            "calibration_sha256": calibration if plan.precision.calibrated else None,
            "parity": parity,
            **written.facts,
            **self._facts(written),
        }

    def _facts(self, written: Written | None = None) -> dict[str, Any]:
        """Return the manifest fields that follow from its format, target and files."""
        plan, options = self.plan, self.context.options
        uses_integers = written is not None and written.uses_integers
        instruction: dict[str, Any] = instruction_set_facts(options) if uses_integers else {}
        return {
            **plan.target.facts(self.context.model),
            **instruction,
            **plan.format.entry(self.directory, self.stage, options),
        }

    def _measure(self, device: str = "auto") -> Parity:
        """The parity of the staged files, through the runtime that users run."""
        plan = self.plan
        names = {"id": plan.id, "format": plan.format.name, "precision": plan.precision.name}
        variant = Variant.from_json({**names, **self._facts()})
        with load_variant(Bundle(self.stage, self.manifest), variant, device=device) as exported:
            report = run_parity(exported, self.golden, plan.precision.name, self.gate).to_json()
            return {**report, "device": exported.device}

    def _enough(self, parity: Parity) -> bool:
        """Whether INT8's search may stop.

        Half way from the gate to agreement, since other images will be worse. With a gate of 0 nobody asks
        for masks, and there is nothing to search for.
        """
        goal = (1 + self.gate) / 2 if self.gate else 0
        return bool(parity["passed"] and parity["mean_iou"] >= goal)

    def _write(self) -> Written:
        plan, context = self.plan, self.context
        format, precision = plan.format.name, plan.precision.name
        self.directory.mkdir()
        target = plan.target.facts(context.model)
        facts: dict[str, Any] = {
            **context.facts,
            "format": format,
            "precision": precision,
        }
        facts |= {axis: target[axis] for axis in AXES if axis in target}
        job = Job(
            context,
            format,
            precision,
            self.directory,
            plan.format.suffix,
            facts,
            full_range(context.options),
            self._measure,
            self._enough,
        )
        write = plan.target.write if plan.target.info.has_own_variants else plan.format.write
        try:
            return write(job)
        except (SamEdgeError, OSError):
            raise
        except Exception as error:
            raise ExportError(f"exporting {plan.id} failed: {' '.join(str(error).split())}") from error

    def _check(self, parity: Parity, written: Written) -> None:
        """Raise `ParityError` unless its masks are the reference's."""
        name = self.plan.id
        if max(parity["embedding_relative_error"], parity["max_score_difference"]) >= NON_FINITE:
            raise ParityError(
                f"{name} overflows: its embeddings or scores hold infinities or NaN; leave "
                f"{self.plan.precision.name} out for {self.plan.format.name}; nothing was published"
            )
        if not parity["passed"]:
            names = [op.partition(":")[0] for op in written.higher_precision_ops]
            kept = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise ParityError(
                f"{name} does not make the reference's masks: the best mean IoU reached is "
                f"{parity['mean_iou']:.4f}, minimum {parity['min_iou']:.4f}, boundary "
                f"{parity['boundary_iou']:.4f}; the gate is {parity['gate']['mean_iou']} and "
                f"{parity['gate']['min_iou']} (--min-iou changes it); kept in "
                f"higher precision: {kept or 'nothing'}; nothing was published"
            )
