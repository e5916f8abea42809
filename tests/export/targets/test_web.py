"""Variants for browsers: the same masks as the others, without the operators that WebAssembly runs slowly."""

import json

import numpy as np
import onnx
import pytest

import sam_edge
from sam_edge.bundle.bundle import open_bundle
from sam_edge.cli import main
from sam_edge.models.photos import read_photo
from sam_edge.serve.site import page_variants

IMAGE = read_photo("astronaut.jpg")


@pytest.fixture(scope="module")
def bundle(for_web):
    return for_web


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_no_graph_has_a_layer_norm(bundle, precision):
    plain, web = (open_bundle(bundle).variant(f"onnx-{precision}{end}") for end in ("", "-web"))
    for part in ("encoder", "decoder", "scorer", "upscaler"):
        normalises = "LayerNormalization" in operators(bundle / plain.graphs[part].path)
        assert normalises or part == "encoder"
        assert "LayerNormalization" not in operators(bundle / web.graphs[part].path)
    assert "LayerNormalization" in operators(bundle / plain.graphs["decoder"].path)
    assert web.target == "web" and web.parity.passed


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_its_masks_are_those_of_the_other_variant(bundle, precision):
    opened = open_bundle(bundle)
    found = []
    for name in (f"onnx-{precision}", f"onnx-{precision}-web"):
        with sam_edge.runtime.loading.load_variant(opened, opened.variant(name), threads=1) as sam:
            embedding = sam.encode(IMAGE)
            masks = sam.predict(embedding, [(220.0, 160.0)], [1])
            everything = list(sam._candidates(embedding, np.array([[220.0, 160.0], [60.0, 400.0]]), 1e-9))
            found.append((embedding.image_embeddings, masks, everything))
    (embedding, masks, everything), (same, drawn, candidates) = found
    # In INT8 the last digit decides which way an activation is rounded.
    limit = {"fp32": 1e-5, "int8": 0.02}[precision]
    assert np.linalg.norm(same - embedding) < limit * np.linalg.norm(embedding)
    np.testing.assert_allclose(drawn.scores, masks.scores, atol=limit)
    assert (drawn.masks != masks.masks).mean() < limit / 10
    assert [one[:2] for one in candidates] == [one[:2] for one in everything]


def test_any_device_runs_them_above_their_gates(bundle, capsys):
    assert main(["verify", str(bundle), "--json"]) == 0
    assert [row["passed"] for row in json.loads(capsys.readouterr().out)["variants"]] == [True] * 4


def test_alone_it_makes_no_other_variants(tmp_path, capsys):
    out = tmp_path / "bundle"
    # Without gates, since the search for INT8 that meets them is that of the other bundle.
    assert main(["export", "--target", "web", "--min-iou", "0", "--out", str(out)]) == 0
    assert f"sam-edge serve {out}" in capsys.readouterr().out
    ids = [variant.id for variant in open_bundle(out).manifest.variants]
    assert ids == ["onnx-fp32-web", "onnx-int8-web"]
    assert main(["verify", str(out)]) == 0
    with sam_edge.load(out) as sam:
        assert sam.variant.id == "onnx-fp32-web"


def test_devices_take_the_others_and_the_page_takes_it_first(bundle):
    with sam_edge.load(bundle, precision="int8") as sam:
        assert sam.variant.id == "onnx-int8"
    ids = [variant.id for variant in page_variants(open_bundle(bundle))]
    assert ids == ["onnx-fp32-web", "onnx-fp32", "onnx-int8-web", "onnx-int8"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precision", "fp16"], "WebAssembly has no FP16; give --precision fp32,int8"),
        (["--precision", "fp16,int8"], "WebAssembly has no FP16"),
        (
            ["--format", "openvino"],
            "makes ONNX graphs; give --format onnx, and --target any,web",
        ),
        (["--format", "onnx,coreml"], "--target web makes ONNX graphs"),
    ],
)
def test_what_it_does_not_have(capsys, tmp_path, arguments, says):
    out = tmp_path / "bundle"
    assert main(["export", "--target", "web", *arguments, "--out", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()
