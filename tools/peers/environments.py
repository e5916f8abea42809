"""The environments that peers run in, made by pip: each has what its peer needs, and no more."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import sam_edge
from sam_edge.errors import BackendError, OutputError

# The version of constraints.txt for all: with another, pip would install several GB of CUDA libraries. Where
# the index only has a torch with CUDA, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
_TORCH = ["torch==2.13.0", "torchvision==0.28.0", "numpy==2.4.6", "pillow==13.0.0"]


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        name: of its folder.
        packages: what pip installs, a list for each of its runs.
        beside: what only this comparison needs; not counted in the size of the peer.
        start: how a script that uses it begins; `{parts}` is the path of `torchvision_parts.py`.
    """

    name: str
    packages: list[list[str]]
    beside: tuple[str, ...] = ()
    start: str = ""

    def python(self, folder: Path) -> Path:
        """The path of its interpreter."""
        windows = sys.platform == "win32"
        return folder / self.name / ("Scripts/python.exe" if windows else "bin/python")

    def commands(self, folder: Path, source: str) -> list[list[str]]:
        """The commands that make it in `folder`; `source` is sam-edge, a source tree or a wheel."""
        python = str(self.python(folder))
        lists = [*self.packages, *([list(self.beside)] if self.beside else [])]
        return [
            [sys.executable, "-m", "venv", str(folder / self.name)],
            *([python, "-m", "pip", "install", *(p.format(source=source) for p in one)] for one in lists),
        ]


_FIX_TORCHVISION = "import runpy; runpy.run_path({parts!r})['load_torchvision'](); "

ENVIRONMENTS = {
    one.name: one
    for one in (
        Environment(
            "segment_anything",
            [[*_TORCH, "segment-anything==1.0"]],
            # For the embedded model, which is not one of segment_anything, and for MobileSAM's image encoder.
            beside=("safetensors==0.8.0", "mobilesam-mirror==1.0.0"),
            start=_FIX_TORCHVISION + "import segment_anything",
        ),
        Environment(
            "samexporter",
            [
                # The requirements of samexporter 0.5.0, except that torch and torchvision are those of the
                # other environments (it requires 2.10.0 and 0.25.0); and Pillow, which it imports but does
                # not require.
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
    """Raise `BackendError` unless `folder` has each of these environments."""
    missing = [name for name in names if not ENVIRONMENTS[name].python(folder).is_file()]
    if missing:
        raise BackendError(
            f"{folder} has no environment {', '.join(missing)}; --install makes what is missing with pip, "
            "--peers leaves peers out"
        )


def install(names: list[str], folder: Path, source: str) -> None:
    """Make those environments that `folder` does not have.

    Raises:
        OutputError: the folder cannot be made.
        BackendError: `source` cannot be installed, or pip failed; its output is on stderr.
    """
    if Path(source).suffix != ".whl" and not (Path(source) / "pyproject.toml").is_file():
        raise BackendError(
            f"{source} is neither a wheel nor a source tree of sam-edge; give one with --sam-edge"
        )
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
    """Copy sam-edge and its tools into `folder`: a PYTHONPATH for environments without them."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(sam_edge.__file__).parent, folder / "sam_edge", ignore=ignored)
    for package in ("export", "models", "benchmarks"):
        target = folder / "sam_edge" / package
        if not target.exists():  # an editable install, in which these packages are elsewhere
            source = importlib.import_module(f"sam_edge.{package}").__path__[0]
            shutil.copytree(source, target, ignore=ignored)
    shutil.copytree(Path(__file__).parents[1], folder / "tools", ignore=ignored)
    return folder


def torchvision_parts(package: Path) -> Path:
    """The path of `torchvision_parts.py` in what `copy_package` copied."""
    return package.absolute() / "tools" / "published" / "torchvision_parts.py"
