"""`sam-edge benchmark`: rows, rounds in fresh processes, failures, and the report's schema."""

import argparse
import importlib.resources
import json
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn import functional

from sam_edge import load
from sam_edge.benchmarks.cli import _plan, configure
from sam_edge.benchmarks.measure import machine
from sam_edge.benchmarks.measure.ground_truth import evaluate, innermost_pixel
from sam_edge.benchmarks.measure.pytorch import PyTorch, variant_of
from sam_edge.benchmarks.measure.reference import reference_golden
from sam_edge.benchmarks.measure.rounds import PHASES, Plan, describe_row, measure, run_child
from sam_edge.benchmarks.measure.rows import Row
from sam_edge.benchmarks.measure.statistics import drift, summarize
from sam_edge.benchmarks.measure.worker import peak_rss_mb
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.golden import read_golden
from sam_edge.cli import main
from sam_edge.errors import DeviceError, SamEdgeError
from sam_edge.imaging.metrics import erode
from sam_edge.models.catalogue import CATALOGUE, DEFAULT_MODEL, HERE
from sam_edge.runtime.opener import OpenedGraphs
from sam_edge.runtime.sam import Sam
from sam_edge.verify.parity import run_parity
from tests.support import toy

EMBEDDED = HERE / CATALOGUE[DEFAULT_MODEL].checkpoint.file
SCHEMA = json.loads(
    importlib.resources.files("sam_edge.benchmarks.report").joinpath("report.schema.json").read_text()
)
QUICK = ["--duration", "0.2", "--rounds", "2", "--image-size", "96x64", "--threads", "1"]
ROW = Row("onnx-fp32", "onnx", "fp32", "onnxruntime", "cpu", "CPUExecutionProvider", 10)


@pytest.fixture(scope="module")
def toy_bundle(tmp_path_factory):
    return toy.write_bundle(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture(scope="module")
def report(toy_bundle, tmp_path_factory):
    """What the command wrote, from two rounds on the toy bundle."""
    out = tmp_path_factory.mktemp("report") / "deep"
    assert main(["benchmark", str(toy_bundle), *QUICK, "--out", str(out)]) == 0
    return out


def test_the_report_is_as_its_schema_says(report):
    data = json.loads((report / "report.json").read_text())
    jsonschema.validate(data, SCHEMA)
    assert all(row.keys() == SCHEMA["$defs"]["row"]["properties"].keys() for row in data["rows"])
    assert data["machine"]["cores"] >= 1 and data["machine"]["matmul_gflops"]["n"] >= 2
    assert not data["partial"]


def test_a_row_has_latency_memory_and_iou(report):
    rows = json.loads((report / "report.json").read_text())["rows"]
    (row,) = [row for row in rows if row["status"] == "measured"]
    assert (row["id"], row["backend"], row["device"]) == ("onnx-fp32", "onnxruntime", "cpu")
    for phase in PHASES:
        assert row[phase]["n"] >= 2 and len(row[phase]["rounds"]) == 2, phase
        assert 0 <= row[phase]["p50"] <= row[phase]["p90"] <= row[phase]["p99"], phase
    # A busy machine makes a round of one phase slower than it is, so that the least of each counts.
    parts = sum(
        min(row[f"{name}_ms"]["rounds"]) for name in ("preprocess", "encoder", "decoder", "postprocess")
    )
    assert parts < 3 * max(row["end_to_end_ms"]["rounds"])
    assert row["compile_ms"]["p50"] <= row["load_ms"]["p50"]
    assert 10 < row["peak_rss_mb"] < 2000
    assert row["on_device"] in (1, None)  # older versions of ONNX Runtime do not say
    assert row["mean_iou"] > 0.99 and row["parity"]["prompts"] > 0
    assert row["bytes"] > 0


def test_a_device_that_is_not_here_says_what_would_add_it(report):
    rows = json.loads((report / "report.json").read_text())["rows"]
    absent = {row["asked"]: row["reason"] for row in rows if row["status"] == "absent"}
    assert "onnxruntime-gpu" in absent["gpu"] and "onnxruntime-qnn" in absent["npu"]


def test_the_worst_masks_are_drawn(report):
    rows = json.loads((report / "report.json").read_text())["rows"]
    (row,) = [row for row in rows if row["status"] == "measured"]
    assert row["worst"]
    ious = [one["iou"] for one in row["worst"]]
    assert ious == sorted(ious)
    for one in row["worst"]:
        width, height = Image.open(report / one["image"]).size
        assert width > 3 * height  # three panels of a picture that is wider than tall


def test_every_kind_of_report_is_written(report):
    assert {"report.json", "report.md", "report.html", "worst"} == {path.name for path in report.iterdir()}
    assert "onnx-fp32" in (report / "report.md").read_text()


def test_json_is_the_report(monkeypatch, capsys, toy_bundle, tmp_path):
    monkeypatch.setattr("sam_edge.benchmarks.cli.run_child", lambda task, timeout=0: answer(task))
    arguments = [*QUICK, "--device", "cpu", "--out", str(tmp_path), "--json"]
    assert main(["benchmark", str(toy_bundle), *arguments]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "report.json").read_text())
    assert captured.err == ""


# What may go wrong, with a child that is not a process


def answer(task, milliseconds=10.0):
    if task["work"] == "matmul":
        return {"gflops": [100.0, 101.0]}
    if task["work"] == "parity":
        gate = {"mean_iou": 0.999, "min_iou": 0.99}
        same = dict.fromkeys(("mean_iou", "p5_iou", "min_iou", "boundary_iou"), 1.0)
        errors = {"max_score_difference": 0.0, "embedding_relative_error": 0.0}
        parity = {**same, **errors, "num_prompts": 3, "gate": gate, "passed": True}
        return {"device": "cpu", "parity": parity, "worst": []}
    return {
        "device": "cpu",
        "samples": {phase: [milliseconds] for phase in PHASES},
        "placement": {
            "encoder": {"CPUExecutionProvider": 3, "GPU": 1},
            "decoder": {"CPUExecutionProvider": 4},
        },
        "compute_placement": {"encoder": {"CPUExecutionProvider": 1}, "decoder": {"GPU": 1}},
        "peak_rss_mb": 50.0,
        "device_memory_mb": None,
        "energy_j": None,
    }


def plan(*rows, rounds=3):
    image = np.zeros((8, 8, 3), np.uint8)
    return Plan(Path("bundle"), rows, Path("golden"), image, seconds=1, rounds=rounds, threads=1)


def test_a_simulated_npu_has_its_turn_once():
    npu = Row("onnx-int8-hexagon", "onnx", "int8", "onnxruntime", "npu", "QNNExecutionProvider", 5)
    turns = []

    def child(task):
        found = answer(task)
        if task.get("variant") == npu.id:
            turns.append(task["work"])
            found = {**found, "device": "npu-simulated"}
        return found

    real, simulated = measure(plan(ROW, npu), child).rows
    assert turns == ["parity", "latency"]
    assert len(real.samples["encoder_ms"]) == 3 and len(simulated.samples["encoder_ms"]) == 1


def test_a_device_that_goes_away_fails_its_own_row_only():
    other = Row("onnx-fp16", "onnx", "fp16", "onnxruntime", "gpu", "CUDAExecutionProvider", 5)
    turns = []

    def child(task):
        if task["variant" if "variant" in task else "work"] == "onnx-fp16" and task["work"] == "latency":
            turns.append(task)
            if len(turns) == 2:
                raise DeviceError("CUDA error: device lost")
        return answer(task)

    whole, lost = measure(plan(ROW, other), child).rows
    assert len(turns) == 2
    assert describe_row(whole, "golden", None, None)["status"] == "measured"
    row = describe_row(lost, "golden", None, None)
    assert row["status"] == "failed" and row["reason"] == "in round 2 of 3: CUDA error: device lost"
    assert row["encoder_ms"]["n"] == 1 and row["mean_iou"] == 1.0


def test_ctrl_c_keeps_what_there_is():
    def child(task):
        if task["work"] == "latency" and len(seen) == 2:
            raise KeyboardInterrupt
        seen.extend([task] if task["work"] == "latency" else [])
        return answer(task)

    seen = []
    results = measure(plan(ROW), child)
    assert results.partial
    assert describe_row(results.rows[0], "golden", None, None)["encoder_ms"]["n"] == 2


def test_interrupted_command_writes_a_partial_report(monkeypatch, capsys, toy_bundle, tmp_path):
    def interrupted(task, timeout=0):
        if task["work"] == "latency":
            raise KeyboardInterrupt
        return answer(task)

    monkeypatch.setattr("sam_edge.benchmarks.cli.run_child", interrupted)
    code = main(["benchmark", str(toy_bundle), "--device", "cpu", "--out", str(tmp_path), "--json"])
    captured = capsys.readouterr()
    assert code == 130 and "partial" in captured.err
    data = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(data, SCHEMA)
    assert data["partial"] and data["rows"][0]["mean_iou"] == 1.0


def test_rows_take_turns_in_random_order():
    rows = [Row(f"onnx-{i}", "onnx", "fp32", "onnxruntime", "cpu", "CPU", 1) for i in range(6)]
    turns = []

    def child(task):
        if task["work"] == "latency":
            turns.append(task["variant"])
        return answer(task)

    measure(plan(*rows, rounds=4), child)
    orders = [turns[i : i + 6] for i in range(0, 24, 6)]
    assert all(sorted(order) == [row.id for row in rows] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_nodes_elsewhere_are_counted():
    row = describe_row(measure(plan(ROW), answer).rows[0], "golden", 2e9, 100.0)
    assert row["on_device"] == 7 / 8 and row["compute_on_device"] == 1 / 2
    # 2 GFLOP in 10 ms are 200 GFLOP/s.
    assert row["matmul_peak_share"] == pytest.approx(2.0)


def test_a_process_that_dies_is_a_reason():
    with pytest.raises(SamEdgeError, match="ended with exit code 1: KeyError: 'no such work'"):
        run_child({"work": "no such work", "threads": 1})


def test_what_lies_in_the_working_directory_is_not_imported(tmp_path, monkeypatch):
    """As at the top of the source tree, whose sam_edge/ is not the whole package."""
    (tmp_path / "sam_edge").mkdir()
    (tmp_path / "sam_edge" / "__init__.py").write_text("raise ImportError('not the one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path])
    assert run_child({"work": "matmul", "threads": 1, "side": 8, "seconds": 0})["gflops"]


def test_the_peak_is_the_processors_own(monkeypatch):
    """And not that of the older kernels that the environment may ask NumPy for."""
    seen = {}

    def run(command, **options):
        seen.update(options["env"])
        raise KeyboardInterrupt

    monkeypatch.setattr("subprocess.Popen", run)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    for work, asked in (("matmul", False), ("latency", True)):
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            run_child({"work": work, "threads": 1})
        assert ("OPENBLAS_CORETYPE" in seen) is asked


def test_a_process_that_hangs_is_a_reason(toy_bundle):
    with pytest.raises(SamEdgeError, match="had not ended after 0 s"):
        run_child({"work": "matmul", "threads": 1, "side": 64, "seconds": 30}, timeout=0.01)


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--precision", "fp64"], "unknown precision 'fp64'"),
        (["--precision", "int8"], "no variant has that precision"),
        (["--backend", "tflite"], "tflite"),
        (["--device", "npu"], "onnxruntime-qnn"),
        (["--rounds", "0"], "--rounds"),
        (["--duration", "nan"], "--duration"),
        (["--image-size", "big"], "WIDTHxHEIGHT"),
        (["--images", "{empty}"], "--reference CHECKPOINT or --ground-truth COCO"),
        (["--ground-truth", "x.json"], "--images"),
        (["--reference", "{empty}/none.pth"], "there is no checkpoint"),
        (["--reference", "{embedded}"], "is not the checkpoint"),
        (["--images", "{empty}", "--ground-truth", "{empty}/none.json"], "cannot be read as COCO JSON"),
        (["--out", "{file}/out"], "cannot make the directory"),
    ],
)
def test_wrong_input(capsys, toy_bundle, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    places = {"empty": tmp_path / "empty", "file": tmp_path / "file", "embedded": EMBEDDED}
    given = [argument.format(**places) for argument in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert main(["benchmark", str(toy_bundle), *given, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_of_pictures(capsys, exported, tmp_path):
    arguments = ["--images", str(tmp_path), "--reference", str(EMBEDDED), "--device", "cpu"]
    assert main(["benchmark", str(exported), *arguments, "--out", str(tmp_path / "out")]) == 2
    assert "there are no images in" in capsys.readouterr().err


# Against the reference, and against ground truth


def test_without_devices_the_reference_is_measured_too(exported):
    parser = argparse.ArgumentParser()
    configure(parser)
    args = parser.parse_args([str(exported), "--reference", str(EMBEDDED)])
    rows = [row for row in _plan(args, open_bundle(exported)).rows if row.backend == "pytorch"]
    assert {row.id for row in rows} == {"pytorch-fp32", "pytorch-bf16", "pytorch-fp32-compile"}
    assert {row.device for row in rows} == {"cpu", "gpu"}


def coco(folder, masks, name="photo.png"):
    """COCO JSON of the toy's picture with these masks."""
    Image.fromarray(toy.picture()).save(folder / "photo.png")
    annotations = []
    for number, mask in enumerate(masks):
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        rle["counts"] = rle["counts"].decode()
        found = {"id": number + 1, "image_id": 1, "category_id": 1, "segmentation": rle, "iscrowd": 0}
        annotations.append(found | {"area": int(mask.sum()), "bbox": [0, 0, 1, 1]})
    image = {"id": 1, "width": 80, "height": 48, "file_name": name}
    data = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "x"}]}
    (folder / "truth.json").write_text(json.dumps(data))
    return folder / "truth.json"


def test_ground_truth(toy_bundle, tmp_path):
    box = np.zeros((48, 80), bool)
    box[10:30, 20:60] = True
    with load(toy_bundle) as sam:
        embedding = sam.encode(toy.picture())
        expected = sam.predict(embedding, boxes=[20, 10, 60, 30], multimask_output=False).masks[0, 0]
        found = evaluate(sam, coco(tmp_path, [box]), tmp_path)
    overlap = np.count_nonzero(expected & box) / np.count_nonzero(expected | box)
    assert found["images"] == found["masks"] == 1
    assert found["box_miou"] == pytest.approx(overlap) and 0 <= found["point_miou"] <= 1


def test_ground_truth_is_in_the_report(toy_bundle, tmp_path):
    box = np.zeros((48, 80), bool)
    box[10:30, 20:60] = True
    truth = coco(tmp_path, [box, ~box])
    out = tmp_path / "out"
    arguments = [
        "--device",
        "cpu",
        "--images",
        str(tmp_path),
        "--ground-truth",
        str(truth),
        "--out",
        str(out),
    ]
    assert main(["benchmark", str(toy_bundle), *QUICK, *arguments]) == 0
    row = json.loads((out / "report.json").read_text())["rows"][0]
    assert row["ground_truth"]["masks"] == 2


def test_pictures_without_masks(capsys, toy_bundle, tmp_path):
    truth = coco(tmp_path, [np.ones((48, 80), bool)], name="another.png")
    arguments = ["--images", str(tmp_path), "--ground-truth", str(truth), "--out", str(tmp_path / "out")]
    assert main(["benchmark", str(toy_bundle), *arguments]) == 2
    assert "has masks for no image in" in capsys.readouterr().err


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_the_innermost_pixel_is_farthest_from_the_edge(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 17)) < rng.choice([0.1, 0.8, 0.97])
    mask[rng.integers(13), rng.integers(17)] = True
    x, y = innermost_pixel(mask)
    depth = 0
    while erode(mask, depth + 1).any():
        depth += 1
    assert erode(mask, depth)[y, x]


def bf16_is_right():
    """Whether PyTorch computes a convolution as the embedded model has one: with AMX, oneDNN does not."""
    rng = np.random.default_rng(0)
    image, weight = (torch.from_numpy(rng.normal(size=s)) for s in ((1, 24, 80, 80), (64, 24, 4, 4)))
    exact, found = (
        functional.conv2d(image.to(kind), weight.to(kind), stride=4).double()
        for kind in (torch.float32, torch.bfloat16)
    )
    return bool((found - exact).norm() < 0.1 * exact.norm())


RIGHT = pytest.mark.skipif(not bf16_is_right(), reason="on this CPU, PyTorch's BF16 convolutions are wrong")


@pytest.mark.parametrize(
    ("kind", "least"), [("pytorch-fp32", 0.999), pytest.param("pytorch-bf16", 0.95, marks=RIGHT)]
)
def test_the_reference_is_a_row_like_any_other(exported, kind, least):
    bundle = open_bundle(exported)
    backend = PyTorch(kind, EMBEDDED, 320)
    variant = variant_of(bundle, kind)
    sessions = {
        part: backend.open(exported / variant.graphs[part].path, "cpu", None)
        for part in ("encoder", "decoder")
    }
    sam = Sam(OpenedGraphs(bundle, variant, "pytorch", sessions))
    report = run_parity(sam, read_golden(bundle.check_golden()), "fp16")
    assert report.mean_iou >= least


def test_the_reference_runs_once_on_a_users_pictures(exported, tmp_path):
    images = [np.asarray(image) for image in read_golden(exported / "golden.npz").images[:1]]
    said, manifest = [], open_bundle(exported).manifest
    first = reference_golden(EMBEDDED, manifest, images, tmp_path, said.append)
    assert said and read_golden(first).prompts
    again = reference_golden(EMBEDDED, manifest, images, tmp_path, lambda _: pytest.fail("ran again"))
    assert again == first
    first.write_bytes(b"damaged")
    assert read_golden(reference_golden(EMBEDDED, manifest, images, tmp_path)).prompts


# Numbers


@given(st.lists(st.lists(st.floats(0.1, 1e4), max_size=9), max_size=6))
def test_percentiles_are_of_all_samples(rounds):
    found = summarize(rounds)
    every = [value for one in rounds for value in one]
    if not every:
        assert found is None
        return
    assert found["n"] == len(every)
    assert min(every) <= found["p50"] <= found["p90"] <= found["p99"] <= max(every)
    assert found["rounds"] == [pytest.approx(np.median(one)) for one in rounds if one]


def test_drift_is_the_end_over_the_beginning():
    assert drift(summarize([[10.0] * 5, [10.0] * 15, [15.0] * 5])) == pytest.approx(1.5)
    assert drift(None) is None


def test_energy_is_the_packages_or_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_RAPL", tmp_path)
    assert machine.energy_j() is None
    for name, joules in (("intel-rapl:0", 5), ("intel-rapl:0:0", 3), ("intel-rapl:1", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{joules}000000\n")
    assert machine.energy_j() == 7


def test_memory_is_this_process():
    before = peak_rss_mb()
    held = np.ones(40_000_000, np.uint8)
    assert peak_rss_mb() >= before and held[0] == 1 and before > 5
