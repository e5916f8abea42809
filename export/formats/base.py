"""The exporter's side of a format. docs/guides/add-a-format.md has a complete example."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from sam_edge import axes
from sam_edge.bundle.variant import STAGES
from sam_edge.errors import BackendError, SamEdgeError
from sam_edge.system.install import install_command

from ..context.job import Job, ModuleJob, Written
from ..context.options import Option, Options

R = TypeVar("R", bound=Callable[..., Any])
Tensors = list[dict[str, Any]]


class Format(Generic[R]):
    """A file format: what it needs, which precisions and options it has, and how it is written.

    Subclasses set `info`, `suffix`, `packages` and `tools`, fill `recipes`, and define `tensors`. By default
    `write` calls the recipe of the job's precision with the job; a subclass whose recipes have another
    signature overrides `write`.

    Attributes:
        info: the runtime's entry for this format.
        suffix: the suffix of its files.
        packages: import names of the packages that write it; the extra `export` installs those of sam-edge's
            own formats.
        tools: distributions (as pip names them) whose versions the manifest records.
        options: the command-line options that it understands.
        recipes: the functions that write it, by precision. Other packages may add theirs.
        module_recipes: the functions that write CLIP's encoders, by precision; each returns what was kept in
            a higher precision, and why.
    """

    info: axes.Format
    suffix: str
    packages: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    options: tuple[Option[Any], ...] = ()

    def __init__(self) -> None:
        self.recipes: dict[str, R] = {}
        self.module_recipes: dict[str, Callable[[ModuleJob], list[str]]] = {}

    @property
    def name(self) -> str:
        """Its name in the manifest and on the command line."""
        return self.info.name

    @property
    def rank(self) -> int:
        """Its position when formats are listed."""
        return self.info.rank

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that it has a recipe for, from exact to small."""
        return tuple(one for one in axes.PRECISIONS.names() if one in self.recipes)

    def check(self, options: Options) -> None:
        """Raise `SamEdgeError` for options that this format cannot have, or that would change nothing."""

    def check_machine(self, options: Options) -> None:
        """Raise `BackendError` where this machine cannot write or measure what is asked for."""
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise BackendError(
                f"--format {self.name} needs {', '.join(missing)}, which is not installed; "
                f"{install_command('export')}"
            )

    def write(self, job: Job) -> Written:
        """Write the encoder and decoder of one variant.

        Args:
            job: what to write and where.

        Raises:
            ExportError: the graph cannot be converted.
        """
        written: Written = self.recipes[job.precision](job)
        return written

    def write_module(self, job: ModuleJob) -> list[str]:
        """Write one encoder of a CLIP; returns what stayed in a higher precision, and why.

        Raises:
            SamEdgeError: there is no recipe for this precision.
        """
        if job.precision not in self.module_recipes:
            raise SamEdgeError(
                f"--clip is not supported by --format {self.name} --precision {job.precision}; leave one of "
                "them out"
            )
        return self.module_recipes[job.precision](job)

    def tensors(self, path: Path) -> tuple[Tensors, Tensors]:
        """Inputs and outputs of a written graph: name, dtype and shape, dynamic axes by name."""
        raise NotImplementedError

    def facts(self, options: Options) -> dict[str, Any]:
        """Return the manifest fields that only variants of this format have."""
        return {}

    def graph_entry(self, directory: Path, part: str, root: Path) -> dict[str, Any]:
        """The manifest's entry of a written graph of the bundle at `root`."""
        path = directory / f"{part}{self.suffix}"
        inputs, outputs = self.tensors(path)
        return {"path": path.relative_to(root).as_posix(), "inputs": inputs, "outputs": outputs}

    def entry(self, directory: Path, root: Path, options: Options) -> dict[str, Any]:
        """Return the manifest fields that follow from a written variant's format and files."""
        stages = [part for part in STAGES if (directory / f"{part}{self.suffix}").exists()]
        return {
            "opset": None,
            "deployment_target": None,
            **self.facts(options),
            **{part: self.graph_entry(directory, part, root) for part in ("encoder", "decoder", *stages)},
            "tools": {tool: version(tool) for tool in self.tools},
        }
