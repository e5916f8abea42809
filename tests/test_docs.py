"""Every command and snippet of the documentation is run, or at least parsed by what it is meant for."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sam_edge
from sam_edge import errors
from sam_edge.cli import main
from sam_edge.imaging.metrics import iou
from tools.documentation import pages
from tools.documentation.command_line import parse, parser_of, subparsers

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "web/README.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Bundles that the commands name and that the embedded model's stands in for.
BUNDLES = ("out/sam_edge_tiny", "vit_b")
# Subcommands that take seconds; the others are parsed only.
QUICK = ("verify", "predict", "everything", "info", "devices", "models")
# Options that need a package, a device or a model that a test machine may not have.
NOT_EVERYWHERE = ("--device", "--text")
# Page -> what its Python examples leave behind; other pages' examples are run where the value says.
EXAMPLES = {
    "README.md": "found",
    "docs/quickstart.md": "found",
    "docs/guides/drop-in.md": "found",
    "docs/guides/masks.md": "found",
    "docs/guides/other-languages.md": "mask",
}
RUN_ELSEWHERE = {
    "docs/guides/backends.md": "tests/runtime/test_mock.py",
    "docs/guides/write-a-backend.md": "tests/runtime/test_backends_of_others.py",
    "docs/guides/text.md": "tests/export/test_clip.py",
}


def read(page):
    return (ROOT / page).read_text("utf-8")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.S | re.M)


def commands(page):
    """Each shell command of a page as a list of words."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                split = words.index("&&")
                yield words[:split]
                words = words[split + 1 :]
            if words:
                yield words


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


def is_sam_edge(words):
    return Path(words[0]).name == "sam-edge"


def can_run(words):
    if not is_sam_edge(words) or words[1] not in QUICK or set(NOT_EVERYWHERE) & set(words):
        return False
    return words[1] in ("models", "devices") or words[2] in BUNDLES


def identify(value):
    return " ".join(value) if isinstance(value, list) else value


def check_command(words):
    """Raise where a command names something that does not exist or that its parser refuses."""
    program, *arguments = words
    if is_sam_edge(words):
        parse(["sam-edge", *arguments])
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", read("Makefile"), re.M)
    elif program == "pip":
        (wanted,) = re.findall(r"\[([a-z,]+)\]", arguments[-1])
        assert (
            arguments[0] == "install" and set(wanted.split(",")) <= PYPROJECT["optional-dependencies"].keys()
        )
        # A checkout or a wheel of it: the package is on no index.
        assert re.match(rf"\.\[|\./dist/sam_edge-{PYPROJECT['version']}-py3-none-any\.whl\[", arguments[-1])
    elif program == "python" and arguments[0] == "-m":
        module = find_spec(arguments[1])
        assert module is not None
        if module.submodule_search_locations is not None:
            module = find_spec(f"{arguments[1]}.__main__")
        if "ArgumentParser" in Path(module.origin).read_text("utf-8"):
            parse(["python", *arguments])
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "npm":
        scripts = json.loads(read("web/package.json"))["scripts"]
        assert (
            arguments[0] == "ci" or (arguments[0] == "test" and "test" in scripts) or arguments[1] in scripts
        )
    else:
        assert program in ("cd", "curl")


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS, ids=identify)
def test_commands_are_accepted_by_their_parsers(page, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_command(words)


@pytest.mark.parametrize(
    "wrong",
    [
        ["sam-edge", "export", "--presicion", "fp32"],
        ["sam-edge", "predict", "bundle", "photo.jpg", "--precision", "fp8"],
        ["sam-edge", "publish"],
        ["python", "-m", "tools.structure", "--circles"],
        ["python", "-m", "tools.absent"],
        ["python", "web/scripts/absent.py"],
        ["make", "everything"],
        ["npm", "run", "absent"],
        ["pip", "install", "sam-edge[cli]"],
        ["pip", "install", ".[absent]"],
        ["absent"],
    ],
    ids=identify,
)
def test_a_wrong_command_is_noticed(wrong):
    with pytest.raises((AssertionError, ValueError)):
        check_command(wrong)


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    """A working directory with the files that the documentation names."""
    (tmp_path / "out").mkdir()
    for name in BUNDLES:
        (tmp_path / name).symlink_to(exported)
    photo = Image.open(ROOT / "models/photos/astronaut.jpg").convert("RGB")
    photo.resize((1024, 768)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "words"), [(page, words) for page, words in ALL_COMMANDS if can_run(words)], ids=identify
)
def test_quick_commands_run(page, words, folder, capsys):
    assert main(words[1:]) == 0
    assert capsys.readouterr().out or "--overlay" in words
    for option in ("--out", "--overlay"):
        if option in words:
            assert (folder / words[words.index(option) + 1]).exists()


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


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = read("README.md")
    assert len(text.split()) <= 700
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_generated_pages_have_everything():
    assert runpy.run_module("tools.documentation.pages")["PAGES"].keys() == pages.PAGES.keys()
    reference = {path: write() for path, write in pages.PAGES.items()}
    for command in subparsers(parser_of(["sam-edge"])):
        assert f"\n## {command}\n" in reference["reference/cli.md"]
    assert "`--checkpoint CHECKPOINT`" in reference["reference/cli.md"]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(f"`{kind.__name__}`" in reference["reference/errors.md"] for kind in kinds)
    public = [name for name in sam_edge.__all__ if not name.startswith("_")]
    everywhere = reference["reference/python.md"] + reference["reference/errors.md"]
    assert not [name for name in public if not re.search(rf"\b{name}\b", everywhere)]
    schema = json.loads(pages.SCHEMA.read_text("utf-8"))
    fields = {*schema["properties"], *schema["$defs"]["variant"]["properties"]}
    assert not [field for field in fields if f"`{field}`" not in reference["reference/manifest.md"]]
    assert str(ROOT) not in "".join(reference.values())


def test_drawings_show_folders_that_exist():
    drawing = read("docs/assets/code.svg")
    for folder in re.findall(r">([a-z_]+)/", drawing):
        assert (ROOT / folder).is_dir() or (ROOT / "sam_edge" / folder).is_dir(), folder


def test_the_site_shows_every_page():
    listed = set(re.findall(r"[\w./-]+\.md", read("mkdocs.yml")))
    written = {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}
    assert listed == written | pages.PAGES.keys()
