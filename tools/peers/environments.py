"""The environments that peers run in: one folder each, made by pip, with what the peer needs and no more."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import sam_edge
from sam_edge.errors import BackendError, OutputError

# One version of torch for all, the one of constraints.txt: with another, pip would bring several GB of CUDA.
# Where the index has a torch with CUDA only, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
_TORCH = ["torch==2.13.0", "torchvision==0.28.0", "numpy==2.4.6", "pillow==13.0.0"]


@dataclass(frozen=True)
class Environment:
    """A folder with a Python.

    Attributes:
        name: the folder.
        packages: what pip is asked for, a list for each of its runs.
        beside: what this comparison needs there that the peer does not; not counted in the peer's size.
        start: what a script writes to begin; `{parts}` is the path of `torchvision_parts.py`.
    """

    name: str
    packages: list[list[str]]
    beside: tuple[str, ...] = ()
    start: str = ""

    def python(self, folder: Path) -> Path:
        """Its interpreter, there or not."""
        windows = sys.platform == "win32"
        return folder / self.name / ("Scripts/python.exe" if windows else "bin/python")

    def commands(self, folder: Path, source: str) -> list[list[str]]:
        """How to make it in `folder`; `source` is sam-edge: its folder, or a wheel."""
        python = str(self.python(folder))
        lists = [*self.packages, *([list(self.beside)] if self.beside else [])]
        return [
            [sys.executable, "-m", "venv", str(folder / self.name)],
            *([python, "-m", "pip", "install", *(p.format(source=source) for p in one)] for one in lists),
        ]


_MEND = "import runpy; runpy.run_path({parts!r})['load_torchvision'](); "

ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment(
            "segment_anything",
            [[*_TORCH, "segment-anything==1.0"]],
            # Reads the embedded model, which is no model of segment_anything; and MobileSAM's image encoder.
            beside=("safetensors==0.8.0", "mobilesam-mirror==1.0.0"),
            start=_MEND + "import segment_anything",
        ),
        Environment(
            "samexporter",
            [
                # What samexporter 0.5.0 asks for, but the torch and torchvision that all have here (it asks
                # for 2.10.0 and 0.25.0); and Pillow, which its runtime imports without asking for it.
                [
                    *_TORCH,
                    "onnx==1.20.1",
                    "opencv-python==4.11.0.86",
                    "segment-anything==1.0",
                    "timm<2,>=0.9.16",
                    "onnxscript==0.6.2",
                    "ftfy<7,>=6.1",
                    "regex>=2023.0.0",
                    "onnxruntime==1.24.2",
                ],
                ["--no-deps", "samexporter==0.5.0"],
            ],
            start="import samexporter.sam_onnx",
        ),
        Environment(
            "sam_edge",
            [["{source}[onnxruntime]", "onnxruntime==1.32.0", "numpy==2.4.6"]],
            start="import sam_edge, onnxruntime",
        ),
        Environment(
            "sam_edge_openvino",
            [["{source}[openvino]", "openvino==2026.4.1", "numpy==2.4.6"]],
            start="import sam_edge, openvino",
        ),
    )
}


def check(names: list[str], folder: Path) -> None:
    """Raise `BackendError` unless each of these environments is in `folder`."""
    missing = [name for name in names if not ENVIRONMENTS[name].python(folder).is_file()]
    if missing:
        raise BackendError(
            f"{folder} has no environment {', '.join(missing)}; --install makes what is missing with pip "
            "(nothing is installed unless asked), or leave its peers out with --peers"
        )


def install(names: list[str], folder: Path, source: str) -> None:
    """Make the environments that are not in `folder`.

    Raises:
        OutputError: the folder cannot be made.
        BackendError: `source` is nothing to install, or pip failed; what it said is on stderr.
    """
    if Path(source).suffix != ".whl" and not (Path(source) / "pyproject.toml").is_file():
        raise BackendError(f"{source} is no wheel and no source tree of sam-edge; name one with --sam-edge")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}; choose another folder") from error
    for environment in (ENVIRONMENTS[name] for name in names):
        if environment.python(folder).is_file():
            continue
        for command in environment.commands(folder, source):
            print(" ".join(command), file=sys.stderr)
            if subprocess.run(command, stdout=sys.stderr).returncode:
                raise BackendError(
                    f"{environment.name}: `{' '.join(command)}` failed, see above; remove "
                    f"{folder / environment.name} before you try again"
                )


def copy_package(folder: Path) -> Path:
    """Copy this sam-edge into `folder`, a PYTHONPATH for Pythons where it is not installed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(sam_edge.__file__).parent, folder / "sam_edge", ignore=ignored)
    for room in ("export", "models", "benchmarks"):
        target = folder / "sam_edge" / room
        if not target.exists():  # installed as editable, the rooms lie elsewhere
            source = importlib.import_module(f"sam_edge.{room}").__path__[0]
            shutil.copytree(source, target, ignore=ignored)
    return folder
