"""The README is short, the site is complete, and its generated pages hold what the code has."""

import json
import re

import sam_edge
from sam_edge import errors
from tests.docs.pages import PAGES, read
from tests.support import ROOT
from tools.documentation import pages
from tools.documentation.command_line import parser_of, subparsers


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = read("README.md")
    assert len(text.split()) <= 700
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_generated_pages_have_everything():
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


def test_the_readmes_tables_name_every_format_and_precision():
    variant = json.loads(pages.SCHEMA.read_text("utf-8"))["$defs"]["variant"]["properties"]
    for page in ("README.md", "docs/index.md"):
        rows = re.findall(r"^\| (ONNX|OpenVINO|Core ML) \| ([\w, ]+) \|", read(page), re.M)
        assert {name.replace(" ", "").lower() for name, _ in rows} == set(variant["format"]["enum"])
        precisions = {one for _, cell in rows for one in cell.split(", ")}
        assert precisions == set(variant["precision"]["enum"])


def test_every_field_of_the_manifest_has_a_meaning():
    fields = re.findall(r"^- \*\*`(\w+)`\*\*(.*)", pages.manifest_page(), re.M)
    assert len(fields) > 80 and not [name for name, rest in fields if "): " not in rest]


def test_files_that_pages_name_exist():
    named = [
        (page, path)
        for page in PAGES
        for path in re.findall(
            r"`((?:export|models|tools|tests|benchmarks|sam_edge|web)/[\w./-]*)`", read(page)
        )
    ]
    assert named and not [(page, path) for page, path in named if not (ROOT / path).exists()]
