"""A format, a precision and a target are one file each: those of docs/guides/add-a-format.md, word for word.

Each is installed as pip would install it, and each command is a process of its own.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests.support import ROOT

PAGE = ROOT / "docs/guides/add-a-format.md"
PHOTO = ROOT / "models/photos/astronaut.jpg"


def install(folder, name, module, entry_points):
    """One module and the metadata beside it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {value}\n" for group, name, value in entry_points]
    (info / "entry_points.txt").write_text("".join(lines))


def documented(language):
    """The code blocks of the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A place where the page's three files are installed."""
    folder = tmp_path_factory.mktemp("site")
    archive, half, kiosk = documented("python")
    (text,) = documented("toml")
    points = tomllib.loads(text)["project"]["entry-points"]
    lines = [(group, name, value) for group, one in points.items() for name, value in one.items()]
    install(folder, "tensor_archive", archive, lines)
    install(folder, "half_weights", half, [("sam_edge.extensions", "half", "half_weights")])
    install(folder, "kiosk", kiosk, [("sam_edge.extensions", "kiosk", "kiosk")])
    return folder


@pytest.fixture(scope="module")
def run(site):
    def run(*arguments, code=0):
        path = os.pathsep.join([str(site), *sys.path])
        command = [sys.executable, "-m", "sam_edge", *map(str, arguments)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    """All three, beside an ordinary variant."""
    out = tmp_path_factory.mktemp("seams") / "bundle"
    run("export", "--format", "onnx,archive", "--precision", "fp32,half-weights", "--target", "any,kiosk",
        "--stored", "--out", out)  # fmt: skip
    return out


VARIANTS = ["onnx-fp32", "onnx-half-weights", "archive-fp32", "onnx-fp32-kiosk"]


def variants(bundle):
    return {one["id"]: one for one in json.loads((bundle / "manifest.json").read_text())["variants"]}


def test_the_manifest_names_them(bundle):
    found = variants(bundle)
    assert list(found) == VARIANTS
    assert all(one["parity"]["passed"] for one in found.values())
    assert found["archive-fp32"]["format"] == "archive" and set(found["archive-fp32"]["tools"]) == {"onnx"}
    assert found["onnx-half-weights"]["parity"]["gate"] == {"mean_iou": 0.99, "min_iou": 0.9}
    kiosk = found["onnx-fp32-kiosk"]
    assert kiosk["accelerator"] == "kiosk" and kiosk["parity"]["gate"]["mean_iou"] == 0.98
    assert kiosk["requires"] == ["x86: sse2", "arm: asimd"] and "scorer" not in kiosk
    assert "accelerator" not in found["onnx-fp32"] and "scorer" in found["onnx-fp32"]
    with zipfile.ZipFile(bundle / "archive-fp32/decoder.zip") as archive:
        assert [entry.compress_type for entry in archive.infolist()] == [zipfile.ZIP_STORED]


def test_verify_measures_them(run, bundle):
    rows = {row["id"]: row for row in json.loads(run("verify", bundle, "--json"))["variants"]}
    assert list(rows) == VARIANTS and all(row["passed"] for row in rows.values())


@pytest.mark.parametrize(
    ("arguments", "backend"),
    [
        (["--backend", "archive"], "archive"),
        (["--precision", "half-weights"], "onnxruntime"),
    ],
)
def test_predict_draws_their_masks(run, bundle, arguments, backend):
    asked = ["predict", bundle, PHOTO, "--point", "225,120", "--json"]
    ordinary, found = (json.loads(run(*asked, *more)) for more in ([], arguments))
    assert found["backend"] == backend
    assert found["masks"][0]["area"] == pytest.approx(ordinary["masks"][0]["area"], rel=0.02)


def test_predicting_needs_no_exporter(site, bundle):
    code = """
import sys
sys.modules.update(torch=None, onnx=None)
import numpy, sam_edge
for chosen in ({"backend": "archive"}, {"precision": "half-weights"}):
    with sam_edge.load(sys.argv[1], **chosen) as sam:
        embedding = sam.encode(numpy.zeros((40, 60, 3), numpy.uint8))
        print(sam.variant.id, sam.predict(embedding, [[3, 4]]).masks.shape)
"""
    path = os.pathsep.join([str(site), *sys.path])
    command = [sys.executable, "-c", code, str(bundle)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    said = "archive-fp32 (1, 3, 40, 60)\nonnx-half-weights (1, 3, 40, 60)\n"
    assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_a_bundle_for_the_target_alone(run, tmp_path):
    out = tmp_path / "bundle"
    run("export", "--target", "kiosk", "--out", out)
    assert list(variants(out)) == ["onnx-fp32-kiosk"]
    found = json.loads(run("predict", out, PHOTO, "--point", "225,120", "--json"))
    assert found["masks"][0]["area"] > 0


def test_the_command_line_knows_them(run):
    said = " ".join(run("export", "--help").split())
    assert "one or more of onnx,openvino,coreml,archive" in said
    assert "half-weights is supported by ONNX only" in said and "half-weights 0.99" in said
    assert "kiosk: kiosks" in said and "fp32 with --target kiosk" in said
    assert "--stored archive: do not compress" in said
    assert "--stored needs --format archive" in run("export", "--stored", code=2)
    says = "kiosks have FP32 only; give --precision fp32"
    assert says in run("export", "--target", "kiosk", "--precision", "fp16", code=2)


def test_without_its_package_a_bundle_says_what_it_does_not_know(bundle, capsys):
    from sam_edge.cli import main

    assert main(["info", str(bundle)]) == 2
    assert "should be one of" in capsys.readouterr().err


def test_an_extension_that_cannot_be_imported_is_named(tmp_path):
    points = [("sam_edge.extensions", "broken", "broken")]
    install(tmp_path, "broken", "import nothing_of_that_name\n", points)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "sam_edge", "export", "--help"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "the extension broken of broken cannot be imported" in done.stderr


def test_what_cannot_be_an_entry_is_refused():
    from sam_edge.axes import PRECISIONS, TARGETS, Precision, Target
    from sam_edge.axes.base import Gate
    from sam_edge.errors import SamEdgeError

    gate = Gate(0.9, 0.5)
    for name in ("FP8", "../fp8", "fp8,int8", "", "a" * 41, "fp8\n", 8):
        with pytest.raises(SamEdgeError, match="cannot be registered; expected a name of lower-case letters"):
            PRECISIONS.add(Precision(name, 9, gate, 0.9, ""))
    with pytest.raises(SamEdgeError, match="'kiosk' has the rank '9'; expected an integer"):
        TARGETS.add(Target("kiosk", "9", "browser", "kiosks"))
    with pytest.raises(SamEdgeError, match="'fp16' is registered already"):
        PRECISIONS.add(Precision("fp16", 9, gate, 0.9, ""))


HALF_IMPORTED = """
from sam_edge.axes import TARGETS, Target

TARGETS.add(Target("kiosk", 99, "browser", "100% kiosks"))
import nothing_of_that_name
"""


def test_the_first_error_of_an_extension_is_what_every_command_says(tmp_path):
    install(tmp_path, "broken", HALF_IMPORTED, [("sam_edge.extensions", "broken", "broken")])
    code = """
from sam_edge.axes import FORMATS
from sam_edge.errors import SamEdgeError
for _ in range(2):
    try:
        FORMATS.get("unknown")
    except SamEdgeError as error:
        print(error)
"""
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first == second and "No module named 'nothing_of_that_name'" in first
