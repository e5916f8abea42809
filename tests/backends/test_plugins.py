"""Backends of other packages: the one in docs/guides/write-a-backend.md, word for word, and broken ones."""

import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import sam_edge
from sam_edge.backends import Session
from sam_edge.errors import BackendError
from tests.support import ROOT, toy


def documented(language):
    """The code block of the section on a backend of one's own."""
    text = (ROOT / "docs/guides/write-a-backend.md").read_text()
    return re.search(rf"```{language}\n(.*?)```", text, re.S)[1]


def distribution(folder, name, module, entry_points):
    """What pip would install: a module and the metadata beside it."""
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return folder


@pytest.fixture
def site(tmp_path):
    """A place where the documentation's backend is installed."""
    import tomllib

    points = tomllib.loads(documented("toml"))["project"]["entry-points"]["sam_edge.backends"]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    folder = tmp_path / "site"
    folder.mkdir()
    return distribution(folder, "onnx_reference", documented("python"), f"[sam_edge.backends]\n{lines}")


def python(site, code, blocked=()):
    block = f"import sys; sys.modules.update(dict.fromkeys({list(blocked)!r}))\n"
    path = os.pathsep.join([str(site), *sys.path])
    command = [sys.executable, "-c", block + textwrap.dedent(code)]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )


def test_the_documented_backend_gives_onnx_runtimes_answers(site, toy_bundle, sam, tmp_path):
    np.save(tmp_path / "picture.npy", toy.picture())
    done = python(
        site,
        f"""
        import numpy, sam_edge
        with sam_edge.load({str(toy_bundle)!r}, backend="onnx-reference") as sam:
            embedding = sam.encode(numpy.load({str(tmp_path / "picture.npy")!r}))
            found = sam.predict(embedding, [[[40, 24]], [[4, 4]]], boxes=[[1, 2, 30, 40], [5, 6, 70, 41]])
            numpy.save({str(tmp_path / "logits.npy")!r}, found.low_res_logits)
            print(sam.backend, sam.device, [str(c) for c in sam.choices if c.chosen])
        try:
            sam.predict(embedding, [[4, 4]])
        except sam_edge.BackendError as error:
            print(error)
        try:
            sam_edge.load({str(toy_bundle)!r}, backend="onnx-reference", device="gpu")
        except sam_edge.DeviceError as error:
            print(error)
        """,
    )
    assert done.returncode == 0, done.stderr
    first, closed, device = done.stdout.splitlines()
    assert first == "onnx-reference cpu ['onnx-reference cpu CPU onnx-fp32: chosen']"
    assert "closed" in closed and "no gpu" in device and "cpu (CPU)" in device
    expected = sam.predict(
        sam.encode(toy.picture()), [[[40, 24]], [[4, 4]]], boxes=[[1, 2, 30, 40], [5, 6, 70, 41]]
    )
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected.low_res_logits, atol=1e-5)


def test_the_command_line_takes_its_name(site, toy_bundle, tmp_path):
    from PIL import Image

    Image.fromarray(toy.picture()).save(tmp_path / "photo.png")
    arguments = ["predict", str(toy_bundle), str(tmp_path / "photo.png"), "--point", "9,9", "--json"]
    run = "import sys; from sam_edge.cli import main; sys.exit(main({}))"
    done = python(site, run.format([*arguments, "--backend", "onnx-reference"]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["backend"] == "onnx-reference"
    done = python(site, run.format(["devices", "--json"]))
    rows = [row for row in json.loads(done.stdout)["devices"] if row["backend"] == "onnx-reference"]
    assert rows == [
        {
            "backend": "onnx-reference",
            "name": "CPU",
            "kind": "cpu",
            "available": True,
            "reason": "",
            "simulated": False,
        }
    ]
    done = python(site, run.format([*arguments, "--backend", "abacus"]))
    assert done.returncode == 2 and "onnx-reference" in done.stderr and done.stderr.count("\n") == 1


def test_auto_takes_it_where_there_is_no_other(site, toy_bundle):
    code = f"""
    import sam_edge
    print(sam_edge.load({str(toy_bundle)!r}).backend)
    """
    assert python(site, code).stdout == "onnxruntime\n"
    done = python(site, code, blocked=["onnxruntime", "openvino", "coremltools"])
    assert done.stdout == "onnx-reference\n", done.stderr


BROKEN = {
    "no module": ("", "broken = none_such:Backend", "none_such"),
    "no attribute": ("", "broken = broken_backend:Backend", "Backend"),
    "fails": ("1 / 0", "broken = broken_backend:Backend", "ZeroDivisionError"),
    "fails when made": (
        "from sam_edge.backends import Backend\nclass B(Backend):\n    name, formats = 'broken', ()\n"
        "    def __init__(self): raise OSError('no driver')",
        "broken = broken_backend:B",
        "no driver",
    ),
    "no backend": (
        "class B: name, formats = 'broken', ('onnx',)",
        "broken = broken_backend:B",
        "not a subclass",
    ),
    "another name": (
        "from sam_edge.backends import Backend\nclass B(Backend):\n    name, formats = 'other', ('onnx',)",
        "broken = broken_backend:B",
        "its name is 'other'",
    ),
    "no list of devices": (
        "from sam_edge.backends import Backend\nclass B(Backend):\n    name, formats = 'broken', ('onnx',)\n"
        "    def devices(self): raise OSError('no driver')",
        "broken = broken_backend:B",
        "no driver",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_reported_and_breaks_nothing(site, toy_bundle, kind):
    module, point, says = BROKEN[kind]
    distribution(site, "broken_backend", module, f"[sam_edge.backends]\n{point}\n")
    done = python(
        site,
        f"""
        import sam_edge
        from sam_edge.cli import main
        sam = sam_edge.load({str(toy_bundle)!r})
        print(sam.backend, len(sam.choices) > 3)
        print(sam_edge.load({str(toy_bundle)!r}, backend="onnx-reference").backend)
        try:
            sam_edge.load({str(toy_bundle)!r}, backend="broken")
        except (sam_edge.BackendError, NotImplementedError) as error:
            print(type(error).__name__)
        sys.exit(main(["devices"]))
        """,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["onnxruntime True", "onnx-reference"]
    (line,) = [line for line in lines if line.startswith("broken ")]
    assert says in line
    if kind != "no list of devices":
        assert lines[2] == "BackendError"


@pytest.mark.parametrize("name", ["onnxruntime", "mock", "auto", "onnx-reference"])
def test_a_name_that_is_taken(site, toy_bundle, name):
    module = f"from sam_edge.backends import Backend\nclass B(Backend): name, formats = {name!r}, ('onnx',)"
    distribution(site, "usurper", module, f"[sam_edge.backends]\n{name} = usurper:B\n")
    done = python(
        site,
        f"""
        import sam_edge
        from sam_edge.cli import main
        print(sam_edge.load({str(toy_bundle)!r}, backend={name!r}).predict)
        sys.exit(main(["devices"]))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert "usurper" in done.stdout and "the backend of usurper is not used" in done.stdout


def test_a_session_by_itself():
    closed = []
    session = Session(lambda inputs: {"sum": sum(inputs.values())}, "gpu", lambda: closed.append(1), {"a": 3})
    assert session.run({"a": np.ones(2), "b": np.ones(2)})["sum"].tolist() == [2, 2]
    assert (session.device, session.placement, closed) == ("gpu", {"a": 3}, [])
    session.close()
    session.close()
    assert closed == [1]
    with pytest.raises(BackendError, match="closed"):
        session.run({})


def test_looking_for_them_costs_nothing_until_it_is_needed(toy_bundle):
    code = f"""
    import sam_edge
    with sam_edge.load({str(toy_bundle)!r}) as sam:
        print("importlib.metadata" in sys.modules, "sam_edge.backends.plugins" in sys.modules,
              "sam_edge.backends.openvino" in sys.modules)
    """
    done = python(ROOT, code)
    # ONNX Runtime itself may import importlib.metadata.
    assert done.stdout.split()[1:] == ["False", "False"], done.stderr


def test_a_device_name_is_asked_of_whoever_has_it(toy_bundle):
    for device in ("CPUExecutionProvider", "cpuexecutionprovider", "CPU"):
        with sam_edge.load(toy_bundle, device=device) as sam:
            assert (sam.backend, sam.device) == ("onnxruntime", "cpu")
