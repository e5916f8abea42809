"""Every command of the documentation is run, or at least parsed by the program it is for."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from sam_edge.cli import main
from tests.docs.pages import BUNDLES, PAGES, blocks, make_folder, read
from tests.support import ROOT
from tools.documentation.command_line import parse

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# Subcommands that take seconds; the others are parsed only.
QUICK = ("verify", "predict", "everything", "info", "devices", "models")
# Options that need a package, a device or a model that a test machine may not have.
NOT_EVERYWHERE = ("--device", "--text")


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
    """A working directory with the files that the examples name."""
    make_folder(tmp_path, exported)
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


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_demo_ends_by_saying_how_to_open_the_page():
    def last_line(node):
        command = ["make", "--no-print-directory", "--dry-run", "demo", f"NODE={node}"]
        recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        last = recipe.rstrip().splitlines()[-1]
        return subprocess.run(last, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    (command,) = re.findall(r"\.venv/bin/sam-edge serve \S+", last_line(1))
    check_command(shlex.split(command))
    assert "Node.js 20.19" in last_line(0) and "sam-edge serve out" not in last_line(0)
