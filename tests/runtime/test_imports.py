"""What the runtime imports, and what it says when something optional is missing."""

import subprocess
import sys

import pytest

from tests.support import toy

BLOCK = "import sys; sys.modules.update(dict.fromkeys({names!r}))\n"
HEAVY = ["torch", "onnx", "PIL", "cv2", "scipy", "onnxruntime"]


def python(code, blocked):
    command = [sys.executable, "-c", BLOCK.format(names=blocked) + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_runtime_imports_numpy_and_the_standard_library_only():
    code = """
before = set(sys.modules)
import sam_edge, sam_edge.cli, sam_edge.imaging.rle, sam_edge.verify.parity, sam_edge.bundle.golden
import numpy
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
tops -= {"sam_edge", "numpy"} | set(sys.stdlib_module_names)
print(sorted(top for top in tops if not top.startswith(("_", "__editable__"))))
"""
    done = python(code, HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_what_only_messages_need_is_not_imported():
    code = "import sys, sam_edge.cli; print({'urllib.request', 'importlib.metadata'} & set(sys.modules))"
    done = python(code, [])
    assert done.stdout == "set()\n", done.stderr


def test_predicting_needs_numpy_and_one_backend_only(toy_bundle):
    code = f"""
import numpy, sam_edge
with sam_edge.load({str(toy_bundle)!r}) as sam:
    embedding = sam.encode(numpy.zeros((40, 60, 3), numpy.uint8))
    print(sam.predict(embedding, [[3, 4]]).masks.shape)
"""
    done = python(code, [name for name in HEAVY if name != "onnxruntime"])
    assert done.stdout.strip() == "(1, 3, 40, 60)", done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        (["predict", "{root}", "{root}/photo.png", "--point", "1,1"], "PIL", "cli"),
        (["verify", "{root}"], "onnxruntime", "onnxruntime"),
        (["export"], "torch", "export"),
    ],
)
def test_a_missing_package_names_its_extra(toy_copy, command, missing, extra):
    from PIL import Image

    Image.fromarray(toy.picture()).save(toy_copy / "photo.png")
    arguments = [part.format(root=toy_copy) for part in command]
    done = python(f"from sam_edge.cli import main; sys.exit(main({arguments!r}))", [missing])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert f"'sam-edge[{extra}]'" in done.stderr
