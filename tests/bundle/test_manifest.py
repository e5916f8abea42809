"""Manifests of unknown origin: damage is found, and our schema check agrees with the jsonschema library."""

import copy
import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sam_edge
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.bundle.manifest import ModelInfo, read_manifest, schema
from sam_edge.bundle.schema import validate
from sam_edge.bundle.variant import STAGES, ClipVariant, Variant


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_bit_is_a_clear_error(bundle, data):
    files = sorted(p for p in bundle.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    before = json.loads((bundle / "manifest.json").read_text())
    path.write_bytes(spoilt)
    try:
        opened = open_bundle(bundle)
        opened.check_files(opened.manifest.variants[0])
        read_golden(opened.check_golden())
    except sam_edge.SamEdgeError:
        return
    else:
        # Only white space between the manifest's values may change unseen.
        assert path.name == "manifest.json" and opened.manifest.data == before
    finally:
        path.write_bytes(whole)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@settings(max_examples=300)
@given(st.data())
def test_the_schema_check_agrees_with_jsonschema(exported, data):
    manifest = copy.deepcopy(json.loads((exported / "manifest.json").read_text()))
    *where, last = data.draw(st.sampled_from([p for p in places(manifest) if p]))
    holder = manifest
    for key in where:
        holder = holder[key]
    change = data.draw(st.sampled_from(["replace", "delete", "add"]))
    strange = st.one_of(st.none(), st.booleans(), st.integers(-3, 9), st.floats(-2, 2), st.text(max_size=3),
                        st.just([]), st.just({}), st.just(["a", 1]))  # fmt: skip
    if change == "delete":
        del holder[last]
    elif change == "add" and isinstance(holder, dict):
        holder["strange"] = data.draw(strange)
    else:
        holder[last] = data.draw(strange)
    try:
        validate(manifest, schema())
        ours = True
    except ValueError:
        ours = False
    assert ours == jsonschema.Draft202012Validator(schema()).is_valid(manifest)


def test_a_missing_file_is_named(bundle):
    (bundle / "onnx-fp32" / "decoder.onnx").unlink()
    with pytest.raises(sam_edge.IntegrityError, match=r"decoder\.onnx is missing"):
        sam_edge.load(bundle)


def test_entries_are_written_as_they_were_read(toy_bundle):
    (entry,) = read_manifest(toy_bundle).data["variants"]
    special = {
        "instruction_set": "vnni",
        "accelerator": "hexagon",
        "browser": "web",
        "requires": ["x86: avx512_vnni"],
        "absent_label": -2,
        "context": {
            "encoder": "e.bin",
            "decoder": "d.bin",
            "soc_model": "1",
            "htp_arch": "75",
            "tool": "qnn",
        },
    }
    whole = {key: value for key, value in entry.items() if key not in STAGES}
    for data in (entry, whole, {**entry, **special}):
        assert Variant.from_json(data).to_json() == data
        validate(data, {"$ref": "#/$defs/variant", "$defs": schema()["$defs"]})
    assert Variant.from_json(entry).requires == () and Variant.from_json(whole).scorer is None
    graph = entry["encoder"]
    clip = {
        "id": "onnx-fp32",
        "files": entry["files"],
        "text_encoder": graph,
        "image_encoder": graph,
        "higher_precision_ops": ["activations"],
        "parity": {
            "min_text_cosine": 1.0,
            "min_image_cosine": 1.0,
            "max_score_difference": 0.0,
            "num_texts": 1,
            "num_images": 1,
            "gate": 0.9,
            "passed": True,
            "device": "cpu",
        },
    }
    assert ClipVariant.from_json(clip).to_json() == clip
    model = read_manifest(toy_bundle).data["model"]
    for one in (model, {**model, "encoder_gmacs": 1.5}):
        assert ModelInfo.from_json(one).to_json() == one


def test_an_unfinished_export_has_no_files_and_parity(toy_bundle):
    (entry,) = read_manifest(toy_bundle).data["variants"]
    variant = Variant.from_json(
        {key: entry[key] for key in ("id", "format", "precision", "encoder", "decoder")}
    )
    assert variant.files == () and variant.parity is None and set(variant.graphs) == {"encoder", "decoder"}
