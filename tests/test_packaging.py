"""The wheel holds what it should, and runs with nothing but NumPy and ONNX Runtime."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT, left_behind


def python(code, *arguments):
    """Run `code` in a fresh isolated interpreter."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *map(str, arguments)], capture_output=True, text=True
    )


def test_importing_the_runtime_imports_only_numpy():
    code = """
import sys
before = set(sys.modules)
for name in ("torch", "onnx", "onnxruntime", "PIL", "cv2", "scipy", "openvino", "coremltools"):
    sys.modules[name] = None
import sam_edge
loaded = {n.partition(".")[0] for n in set(sys.modules) - before if sys.modules[n] is not None}
print(sorted(loaded - set(sys.stdlib_module_names)))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    others = [n for n in eval(done.stdout) if not n.startswith(("__editable__", "_"))]
    assert others == ["numpy", "sam_edge"]


def test_onnx_runtime_reports_nothing_and_leaves_nothing_behind(exported, tmp_path):
    """Its packages since 1.29 do, from the moment that they are imported."""
    code = """
import sys, sam_edge
sam_edge.load(sys.argv[1], backend="onnxruntime").close()
"""
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    environment = {**os.environ, **home}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    command = [sys.executable, "-I", "-c", code, str(exported)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not left_behind(tmp_path, "onnxruntime", "microsoft")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheels_contents(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names}
    assert {p for p in packages if not p.endswith(".dist-info")} == {"sam_edge"}
    for needed in (
        "sam_edge/bundle/manifest.schema.json",
        "sam_edge/py.typed",
        "sam_edge/export/pipeline.py",
        "sam_edge/models/sam_edge_tiny.safetensors",
        "sam_edge/models/README.md",
        "sam_edge/models/photos/cat.jpg",
        "sam_edge/serve/app.py",
    ):
        assert needed in names
    # 40 MB for browsers, which have a package of their own.
    assert not [name for name in names if name.startswith("sam_edge/serve/page")]
    assert not [name for name in names if re.search(r"(^|/)(tests?|tools)/|(^|/)test_|conftest", name)]


def test_the_wheel_predicts_with_only_numpy_and_onnxruntime(wheel, exported, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    for package in ("numpy", "onnxruntime", "flatbuffers", "google"):
        spec = importlib.util.find_spec(package)
        folder = Path(next(iter(spec.submodule_search_locations)))
        (site / package).symlink_to(folder)
        libraries = folder.with_name(f"{package}.libs")
        if libraries.exists():
            (site / libraries.name).symlink_to(libraries)
    code = """
import sys
# Neither what is installed here nor the checkout that an editable install points to.
sys.path = [p for p in sys.path if "site-packages" not in p and p != sys.argv[3]] + [sys.argv[1]]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
import numpy as np
import sam_edge
assert sam_edge.__file__.startswith(sys.argv[1])
with sam_edge.load(sys.argv[2]) as sam:
    image = np.zeros((48, 64, 3), np.uint8)
    print(sam.predict(sam.encode(image), point_coords=[[32, 24]]).masks.shape)
from sam_edge.cli import main
assert main(["verify", sys.argv[2]]) == 0
assert main(["export"]) == 2
"""
    done = python(code, site, exported, ROOT)
    assert done.returncode == 0, done.stderr
    assert "(1, 3, 48, 64)" in done.stdout
    assert "pip install 'sam-edge[export]'" in done.stderr


def test_a_checkout_without_symbolic_links_is_whole(tmp_path):
    """Git on Windows makes text files of them."""
    for package in ("sam_edge", "models"):
        ignored = shutil.ignore_patterns("__pycache__", "page", "export", "models", "benchmarks")
        shutil.copytree(ROOT / package, tmp_path / package, symlinks=True, ignore=ignored)
    (tmp_path / "export").mkdir()
    for package in ("export", "models", "benchmarks"):
        (tmp_path / "sam_edge" / package).write_text(f"../{package}")
    code = """
import sys
sys.path = [sys.argv[1]] + [p for p in sys.path if p != sys.argv[2]]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
import sam_edge.models.catalogue
print(sam_edge.models.catalogue.__file__)
"""
    done = python(code, tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "models" / "catalogue.py")


def test_the_embedded_checkpoint_is_the_one_in_the_catalogue():
    from sam_edge.models.catalogue import CATALOGUE, HERE
    from sam_edge.system.files import sha256_file

    entry = CATALOGUE["sam_edge_tiny"].checkpoint
    path = HERE / entry.file
    assert path.stat().st_size == entry.bytes <= 8_000_000
    assert sha256_file(path) == entry.sha256
    assert entry.sha256 in (HERE / "README.md").read_text()
