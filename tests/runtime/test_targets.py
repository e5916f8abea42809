"""Variants that are made for a chip: when they are taken, and their decoders' fixed number of points."""

import json

import numpy as np
import pytest
import toy

from sam_edge import BundleError, PromptError, load
from sam_edge.backends import DeviceInfo, Session, get_backend
from sam_edge.bundle.bundle import open_bundle
from sam_edge.cli import main
from sam_edge.runtime.choice import Request, choose, explain_choice
from sam_edge.runtime.opener import OpenedGraphs
from sam_edge.runtime.sam import Sam

BACKEND = get_backend("onnxruntime")


def add_hexagon(data):
    """An int8 and an fp16 variant for Hexagon beside the ordinary one."""
    (one,) = data["variants"]
    for precision in ("int8", "fp16"):
        name = f"onnx-{precision}-hexagon"
        data["variants"].append({**one, "id": name, "precision": precision, "target": "hexagon"})


@pytest.fixture
def both(toy_copy):
    toy.rewrite_manifest(toy_copy, add_hexagon)
    return toy_copy


def only_hexagon(data):
    add_hexagon(data)
    del data["variants"][0]


@pytest.fixture
def devices(monkeypatch):
    """A machine whose ONNX Runtime has a CPU and these."""

    def have(*names):
        found = [DeviceInfo("onnxruntime", "CPUExecutionProvider", "cpu", True, "")]
        found += [DeviceInfo("onnxruntime", name, "npu", True, "") for name in names]
        monkeypatch.setattr(BACKEND, "devices", lambda: found)

    return have


def taken(bundle, **wanted):
    return choose(open_bundle(bundle), Request(**wanted)).variant.id


def test_the_chips_variants_are_for_the_chip(both, devices):
    devices("QNNExecutionProvider")
    assert taken(both) == "onnx-fp32"
    assert taken(both, device="cpu") == "onnx-fp32"
    assert taken(both, device="npu") == "onnx-fp16-hexagon"
    assert taken(both, device="qnn", precision="int8") == "onnx-int8-hexagon"


def test_another_npu_takes_the_others(both, devices):
    devices("VitisAIExecutionProvider")
    assert taken(both, device="npu") == "onnx-fp32"


def test_where_there_is_nothing_else_they_run_anywhere(toy_copy, devices):
    devices()
    toy.rewrite_manifest(toy_copy, only_hexagon)
    assert taken(toy_copy) == "onnx-fp16-hexagon"
    with load(toy_copy) as sam:
        assert sam.device == "cpu"
        assert sam.predict(sam.encode(toy.picture()), [[40, 24]]).masks.any()


def test_what_is_said_of_the_others(both, devices):
    devices("QNNExecutionProvider")
    lines = [str(one) for one in explain_choice(open_bundle(both), Request(backend="onnxruntime"))]
    assert "onnxruntime cpu CPUExecutionProvider onnx-int8-hexagon: made for hexagon" in lines
    wanted = Request(backend="onnxruntime", device="npu")
    lines = [str(one) for one in explain_choice(open_bundle(both), wanted)]
    said = "onnxruntime npu QNNExecutionProvider onnx-fp32: onnx-fp16-hexagon is made for this device"
    assert said in lines


def test_they_must_run_whole(both, devices, monkeypatch):
    devices("QNNExecutionProvider")
    asked = []

    def open_whole(path, device, threads):
        asked.append((path.name, device))
        return BACKEND.open(path, "cpu", threads)

    monkeypatch.setattr(BACKEND, "open_whole", open_whole)
    load(both, device="npu").close()
    assert sorted(asked) == [("decoder.onnx", "npu"), ("encoder.onnx", "npu")]
    asked.clear()
    load(both, precision="int8", device="cpu").close()
    assert not asked


def test_verify_leaves_out_what_is_not_made_for_the_device(both, devices, monkeypatch, capsys):
    devices("QNNExecutionProvider")
    monkeypatch.setattr(
        BACKEND, "open_whole", lambda path, device, threads: BACKEND.open(path, "cpu", threads)
    )
    assert main(["verify", str(both), "--device", "npu", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["variants"]}
    assert rows["onnx-fp32"]["passed"] is None and "not made for QNN" in rows["onnx-fp32"]["reason"]
    assert rows["onnx-int8-hexagon"]["passed"] and rows["onnx-fp16-hexagon"]["passed"]


def test_the_benchmark_has_rows_for_what_is_meant_only(both, devices):
    from sam_edge.benchmarks.measure.rows import find_rows

    devices("QNNExecutionProvider")
    rows = find_rows(open_bundle(both), "onnxruntime", ["cpu", "npu"], [])
    assert {(row.asked, row.id) for row in rows} == {
        ("cpu", "onnx-fp32"),
        ("npu", "onnx-int8-hexagon"),
        ("npu", "onnx-fp16-hexagon"),
    }


# A fixed number of points


def fixed(bundle, count=5):
    """A `Sam` whose decoder takes one prompt of `count` points, and what it was given."""

    def change(data):
        (one,) = data["variants"]
        one["target"], one["absent_label"] = "hexagon", -2
        shapes = {"point_coords": [1, count, 2], "point_labels": [1, count]}
        for tensor in one["decoder"]["inputs"]:
            tensor["shape"] = shapes.get(tensor["name"], tensor["shape"])

    toy.rewrite_manifest(bundle, change)
    given = []

    def decode(inputs):
        given.append(inputs)
        return {"low_res_masks": np.zeros((1, 4, toy.GRID, toy.GRID)), "iou_predictions": np.zeros((1, 4))}

    opened = open_bundle(bundle)
    (variant,) = opened.manifest.variants
    encoder = BACKEND.open(bundle / variant.encoder.path, "cpu", None)
    sessions = {"encoder": encoder, "decoder": Session(decode, "npu")}
    return Sam(OpenedGraphs(opened, variant, "onnxruntime", sessions)), given


def test_prompts_are_filled_up_with_absent_points(toy_copy):
    sam, given = fixed(toy_copy)
    embedding = sam.encode(toy.picture())
    sam.predict(embedding, boxes=[[20, 8, 60, 40], [10, 8, 60, 40]])
    sam.predict(embedding, [[40, 24]], [1])
    labels = [inputs["point_labels"].tolist() for inputs in given]
    assert labels == [[[2, 3, -2, -2, -2]], [[2, 3, -2, -2, -2]], [[1, -1, -2, -2, -2]]]
    assert all(inputs["point_coords"].shape == (1, 5, 2) for inputs in given)
    assert all(not inputs["point_coords"][inputs["point_labels"] == -2].any() for inputs in given)


def test_more_points_than_it_takes(toy_copy):
    sam, given = fixed(toy_copy)
    with pytest.raises(PromptError, match=r"has 6 points, .* at most 5"):
        sam.predict(sam.encode(toy.picture()), [[9, 9]] * 5)
    assert not given


@pytest.mark.parametrize("axis", ["num_points", 0, 5000, None])
def test_a_manifest_that_does_not_say_how_many(toy_copy, axis):
    def change(data):
        (one,) = data["variants"]
        one["absent_label"] = -2
        for tensor in one["decoder"]["inputs"]:
            if tensor["name"] == "point_coords":
                tensor["shape"] = [1] if axis is None else [1, axis, 2]

    toy.rewrite_manifest(toy_copy, change)
    with pytest.raises(BundleError, match="no fixed number"):
        open_bundle(toy_copy)


@pytest.mark.parametrize("place", ["onnx-fp32/other.onnx", "../encoder.onnx"])
def test_a_compiled_graph_without_a_hash(toy_copy, place):
    def change(data):
        (one,) = data["variants"]
        paths = {"encoder": place, "decoder": one["decoder"]["path"]}
        one["context"] = {**paths, "soc_model": "69", "htp_arch": "79", "tool": "onnxruntime-qnn 2.7.0"}

    toy.rewrite_manifest(toy_copy, change)
    with pytest.raises(BundleError, match=r"not among its files|not a file inside the bundle"):
        open_bundle(toy_copy)
