"""The table of performance goals, from hand-made reports."""

import json

import pytest

from tools.goals.__main__ import main
from tools.goals.goals import reached

REPORT = {
    "model": {"name": "vit_b"},
    "created": "2026-01-01T00:00:00+00:00",
    "machine": {"cpu": "a CPU"},
    "settings": {"threads": 2, "repeats": 3},
    "rows": {
        "segment_anything": {"encode_ms": [[9000], [11000]], "peak_mb": [[3000]], "versions": {"torch": "2"}},
        "samexporter": {"encode_ms": [[4000]], "peak_mb": [[8000]], "versions": {"onnxruntime": "1"}},
        "samexporter-quantized": {"encode_ms": [[4500]], "parity": {"mean_iou": 0.91}, "versions": {}},
        "sam-edge onnx-fp32": {"encode_ms": [[4100]], "peak_mb": [[1000]], "versions": {}},
        "sam-edge openvino-fp32": {"encode_ms": [[5000]], "peak_mb": [[1500]], "versions": {}},
        "sam-edge onnx-int8": {"encode_ms": [[3000]], "parity": {"mean_iou": 0.90}, "versions": {}},
        "sam-edge openvino-int8": {"encode_ms": [[3200]], "versions": {}},
    },
}


def test_the_best_variant_counts_and_misses_are_said(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(REPORT))
    assert main([str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    for line in (
        "FP32, image to embedding, speedup over PyTorch | at least 2.2 | 2.44 | onnx-fp32 | yes |",
        "FP32, image to embedding, speedup over samexporter | at least 1 | 0.976 | onnx-fp32 | **no** |",
        "FP32, peak memory, share of samexporter's | at most 0.25 | 0.125 | onnx-fp32 | yes |",
        # Each beside the FP32 of its own backend.
        "INT8, image to embedding, speedup over our FP32 | at least 1.4 | 1.56 | openvino-int8 | yes |",
        "INT8, mean IoU above samexporter's | at least 0 | -0.01 | onnx-int8 | **no** |",
        "vit_b: a CPU, 2 threads, 3 rounds",
        "onnxruntime 1, torch 2",
    ):
        assert line in printed


def test_what_was_not_measured_is_left_out():
    rows = {name: {"versions": {}} for name in REPORT["rows"]}
    assert not list(reached({**REPORT, "rows": rows}))
    assert not list(reached({**REPORT, "model": {"name": "sam2"}}))


def test_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "a.json").write_text("[]")
    for path in (tmp_path / "a.json", tmp_path / "none.json"):
        assert main([str(path)]) == 2
        assert capsys.readouterr().err.startswith(f"error: {path}")


def test_what_is_measured_here_stands_in_the_same_table(tmp_path, capsys):
    rows = {
        "sam-edge onnx-fp32": {"gflops": [[300], [340]], "decode_ms": [[20]], "versions": {}},
        "sam-edge openvino-fp32": {"gflops": [[400]], "decode_ms": [[10]], "versions": {}},
        "published ONNX": {"decode_ms": [[30]], "versions": {}},
        "matrix products": {"gflops": [[490], [500], [510]]},
    }
    (tmp_path / "a.json").write_text(json.dumps({**REPORT, "model": {"name": "mobile_sam"}, "rows": rows}))
    first = {
        "sam-edge onnx-int8": {"first_mask_ms": [[45]]},
        "published ONNX": {"first_mask_ms": [[60], [100]]},
    }
    (tmp_path / "b.json").write_text(
        json.dumps({**REPORT, "model": {"name": "sam_edge_tiny"}, "rows": first})
    )
    assert main([str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    printed = capsys.readouterr().out
    for line in (
        "FP32, encoder, share of matrix products' rate | at least 0.8 | 0.8 | openvino-fp32 | yes |",
        "a click to logits, speedup over the published graph | at least 1.6 | 3 | openvino-fp32 | yes |",
        "from a cache, share of the published FP32 | at most 0.5 | 0.562 | onnx-int8 | **no** |",
    ):
        assert line in printed


@pytest.mark.slow
def test_a_bundle_is_measured_beside_the_published_graphs(exported, tmp_path, capsys):
    keep = tmp_path / "kept"
    options = ["--rounds", "1", "--seconds", "0.1", "--points-per-side", "2", "--keep", str(keep)]
    assert main(["--measure", str(exported), *options]) == 0
    printed = capsys.readouterr().out
    assert "| sam_edge_tiny | FP32, everything, speedup over PyTorch | at least 5 |" in printed
    assert "onnxruntime" in printed and "torch" in printed
    assert main([str(keep / "sam_edge_tiny.json")]) == 0
    assert capsys.readouterr().out == printed


def test_nothing_is_measured_of_what_is_not_there(exported, tmp_path, capsys):
    (tmp_path / "other.pth").write_bytes(b"another")
    for given, said in (
        ([], "nothing to print"),
        (["--measure", str(tmp_path)], str(tmp_path)),
        (["--measure", str(exported), "--checkpoint", str(tmp_path / "none.pth")], "is not a file"),
        (["--measure", str(exported), "--rounds", "0"], "--rounds is 0"),
        (["--measure", str(exported), "--keep", str(tmp_path / "other.pth")], "cannot make"),
    ):
        assert main(given) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error
