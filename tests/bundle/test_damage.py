"""Damaged and hostile bundles: every one is a clear error."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_edge import BundleError, IntegrityError, SamEdgeError, load
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.bundle.manifest import integrity, model_facts, read_manifest, schema, write_manifest
from tests.support import toy

ONE_BUNDLE = settings(max_examples=150)
FILES = ["manifest.json", "golden.npz", "onnx-fp32/encoder.onnx", "onnx-fp32/decoder.onnx"]


def test_a_manifest_survives_a_round_trip(toy_bundle, tmp_path):
    data = json.loads((toy_bundle / "manifest.json").read_text())
    assert jsonschema.Draft202012Validator(schema()).is_valid(data)
    write_manifest(tmp_path, data)
    assert read_manifest(tmp_path).data == data
    assert not {"golden", "variants", "integrity"} & set(model_facts(data))


def use_everything(root):
    toy_bundle = open_bundle(root)
    read_golden(toy_bundle.check_golden())
    load(root).close()
    return toy_bundle.manifest.data


@ONE_BUNDLE
@given(st.data())
def test_a_flipped_byte_anywhere_is_noticed(toy_bundle, toy_copy, data):
    name = data.draw(st.sampled_from(FILES))
    path = toy_copy / name
    whole = (toy_bundle / name).read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(flipped)
    try:
        # Only white space between the values of the JSON may differ.
        assert use_everything(toy_copy) == open_bundle(toy_bundle).manifest.data
        assert name == "manifest.json" and whole[where : where + 1].isspace()
    except SamEdgeError as error:
        assert str(toy_copy) in str(error)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "short", "empty", "directory"])
def test_a_damaged_file_is_named(toy_copy, name, damage):
    path = toy_copy / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(whole[:-1])
    elif damage == "empty":
        path.touch()
    elif damage == "directory":
        path.mkdir()
    # A manifest lacks nothing but its final line break when one byte short.
    if (name, damage) == ("manifest.json", "short"):
        use_everything(toy_copy)
        return
    with pytest.raises(BundleError) as caught:
        use_everything(toy_copy)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a/../../x", "..", "C:\\x", "a\\..\\x", "c:x", "a\x00b", "."],
)
@pytest.mark.parametrize("where", ["golden", "file", "encoder"])
def test_a_path_out_of_the_bundle_is_refused(toy_copy, name, where):
    def change(data):
        variant = data["variants"][0]
        target = {"golden": data["golden"], "file": variant["files"][0], "encoder": variant["encoder"]}
        target[where]["path"] = name

    toy.rewrite_manifest(toy_copy, change)
    with pytest.raises(BundleError) as caught:
        use_everything(toy_copy)
    if name != ".":
        assert repr(name) in str(caught.value)


def test_a_link_out_of_the_bundle_is_refused(toy_copy, tmp_path):
    outside = tmp_path / "encoder.onnx"
    (toy_copy / "onnx-fp32/encoder.onnx").rename(outside)
    (toy_copy / "onnx-fp32/encoder.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        load(toy_copy)


def test_a_graph_must_be_one_of_the_variants_files(toy_copy):
    toy.write_encoder(toy_copy / "unlisted.onnx")

    def change(data):
        data["variants"][0]["encoder"]["path"] = "unlisted.onnx"

    toy.rewrite_manifest(toy_copy, change)
    with pytest.raises(BundleError, match=r"unlisted\.onnx"):
        load(toy_copy)


def test_a_newer_schema_says_to_upgrade_before_anything_else(toy_copy):
    (toy_copy / "manifest.json").write_text('{"schema_version": 2, "something": "new"}')
    with pytest.raises(BundleError, match="upgrade sam-edge"):
        load(toy_copy)


def test_a_changed_manifest_is_noticed(toy_copy):
    path = toy_copy / "manifest.json"
    path.write_text(path.read_text().replace("123.675", "123.676"))
    with pytest.raises(IntegrityError, match="was changed"):
        load(toy_copy)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema_version": true}', "[" * 100_000])
def test_something_else_for_a_manifest(toy_copy, text):
    (toy_copy / "manifest.json").write_text(text)
    with pytest.raises(BundleError):
        load(toy_copy)


def test_integral_floats_do_as_sizes(toy_copy):
    def change(data):
        data["input"]["size"] = [64.0, 64.0]
        data["mask"]["size"] = [8.0, 8.0]

    toy.rewrite_manifest(toy_copy, change)
    with load(toy_copy) as sam:
        embedding = sam.encode(toy.picture())
        assert sam.predict(embedding, [[4, 4]]).low_res_logits.shape == (1, 3, 8, 8)


def test_integrity_ignores_only_itself(toy_bundle):
    data = json.loads((toy_bundle / "manifest.json").read_text())
    other = copy.deepcopy(data)
    other["integrity"] = "0" * 64
    assert integrity(data) == integrity(other) == data["integrity"]
    other["input"]["pad_value"] = 1.0
    assert integrity(other) != integrity(data)


def test_no_bundle_there(tmp_path):
    for path in (tmp_path, tmp_path / "none", Path(__file__)):
        with pytest.raises(BundleError, match="is not a bundle"):
            open_bundle(path)


def test_a_precision_that_is_not_there_lists_what_is(toy_bundle):
    with pytest.raises(BundleError, match="onnx-fp32"):
        load(toy_bundle, precision="int8")
