"""What is generated from the registries is up to date."""

import json
import re

import jsonschema
import pytest

from sam_edge import axes
from sam_edge.bundle.manifest import schema
from sam_edge.export.formats import FORMATS
from sam_edge.export.targets import TARGETS
from tests.support import ROOT
from tools import manifest_schema

WEB = ROOT / "web/src/runtime"


def test_the_schema_has_every_name():
    assert manifest_schema.SCHEMA.read_text("utf-8") == manifest_schema.generate(), (
        "run `python -m tools.manifest_schema`, and `npm run types` in web/"
    )
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_typescript_types_have_every_name():
    types = (WEB / "manifest.types.ts").read_text()
    variant = json.loads(manifest_schema.generate())["$defs"]["variant"]["properties"]
    for key in ("format", "precision", *axes.AXES):
        union = " | ".join(f'"{name}"' for name in variant[key]["enum"])
        assert re.search(rf"^  {key}\??: {re.escape(union)};$", types, re.MULTILINE), key
    assert manifest_schema.generate().rstrip() in (WEB / "manifest.schema.ts").read_text()


def test_the_runtime_and_the_exporter_know_the_same():
    assert FORMATS.built_in_names() == axes.FORMATS.built_in_names()
    assert TARGETS.built_in_names() == axes.TARGETS.built_in_names()
    recipes = {precision for format in FORMATS for precision in format.recipes}
    assert recipes == set(axes.PRECISIONS.built_in_names())


@pytest.mark.parametrize("text", ["x86: avx512_vnni or avx_vnni", "arm: asimddp"])
def test_requirements_are_read_as_they_are_written(text):
    assert str(axes.Requirement.parse(text)) == text
    pattern = schema()["$defs"]["variant"]["properties"]["requires"]["items"]["pattern"]
    assert re.search(pattern, text)


@pytest.mark.parametrize("text", ["", "x86", "x86: ", "x86: a or", "x86 avx", "x86: a, b"])
def test_other_requirements_are_refused(text):
    from sam_edge import BundleError

    with pytest.raises(BundleError, match="cannot be read"):
        axes.Requirement.parse(text)
