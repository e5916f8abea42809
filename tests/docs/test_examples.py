"""The snippets of the documentation run as they are written."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

import sam_edge
from sam_edge.imaging.metrics import iou
from tests.docs.pages import PAGES, blocks, make_folder, read
from tests.support import ROOT

# Page -> what its Python examples leave behind; other pages' examples are run where the value says.
EXAMPLES = {
    "README.md": "found",
    "docs/quickstart.md": "found",
    "docs/guides/drop-in.md": "found",
    "docs/guides/masks.md": "found",
    "docs/guides/other-languages.md": "mask",
}
RUN_ELSEWHERE = {
    "docs/guides/backends.md": "tests/backends/test_mock.py",
    "docs/guides/write-a-backend.md": "tests/backends/test_plugins.py",
    "docs/guides/add-a-format.md": "tests/export/test_seams.py",
    "docs/guides/text.md": "tests/export/clip/test_bundle.py",
}


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    """A working directory with the files that the examples name."""
    make_folder(tmp_path, exported)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_page_with_python_is_run_somewhere():
    with_python = {page for page in PAGES if blocks(page, "python")}
    assert with_python == EXAMPLES.keys() | RUN_ELSEWHERE.keys()
    for page, test in RUN_ELSEWHERE.items():
        assert page in read(test)


def run_examples(page, exported):
    image = np.array(Image.open("photo.jpg"))
    names = {"bundle": exported, "image": image}
    exec(compile("\n".join(blocks(page, "python")), page, "exec"), names)
    return names


@pytest.mark.parametrize("page", EXAMPLES)
def test_python_examples_run(page, exported, folder):
    names = run_examples(page, exported)
    masks = names[EXAMPLES[page]]
    masks = getattr(masks, "masks", masks)
    assert masks.shape[-2:] == (768, 1024) and masks.any()


def test_the_recipe_without_sam_edge_gives_its_masks(exported, folder):
    names = run_examples("docs/guides/other-languages.md", exported)
    with sam_edge.load(exported) as sam:
        embedding = sam.encode(np.array(Image.open("photo.jpg")))
        expected = sam.predict(embedding, [[names["x"], names["y"]]]).best()[0]
    assert np.array_equal(names["embeddings"]["image_embeddings"], embedding.image_embeddings)
    assert iou(names["mask"], expected) > 0.98


@pytest.mark.parametrize(
    ("page", "language"), [("docs/guides/android.md", "kotlin"), ("docs/guides/ios.md", "swift")]
)
def test_translations_of_the_recipe_name_the_manifests_tensors(page, language, exported):
    """No compiler of these languages is at hand: what can be checked is what they read and write."""
    (code,) = blocks(page, language)
    (variant,) = json.loads((exported / "manifest.json").read_text())["variants"]
    decoder = variant["decoder"]
    names = {tensor["name"] for tensor in decoder["inputs"] + decoder["outputs"]} - {"image_embeddings"}
    assert not {name for name in names if f'"{name}"' not in code}
    for opening, closing in ("()", "[]", "{}"):
        assert code.count(opening) == code.count(closing)


@pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "web/lib").is_dir(), reason="`make web` has not been run"
)
@pytest.mark.parametrize("page", ["web/README.md", "docs/guides/browser.md"])
def test_javascript_examples_run(page, exported):
    (code,) = blocks(page, "js")
    code = code.replace('folderSource("bundle")', f"folderSource({json.dumps(str(exported))})")
    code = re.sub(r"httpSource\(.*?\)", f"folderSource({json.dumps(str(exported))})", code)
    setup = (
        'import { folderSource as folderSource_ } from "sam-edge/node";\n'
        "const image = { data: new Uint8ClampedArray(640 * 480 * 4).fill(128), width: 640, height: 480 };\n"
    )
    if "import { folderSource }" not in code:
        setup = setup.replace(" as folderSource_", "")
    show = "console.log(masks.length, masks[0].length, scores.length); await sam.close();"
    done = subprocess.run(
        ["node", "--input-type=module", "-"],
        input=setup + code.replace("await sam.close();", "") + show,
        cwd=ROOT / "web",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["3", str(640 * 480), "3"]
