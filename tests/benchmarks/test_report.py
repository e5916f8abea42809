"""A benchmark's report as table, Markdown and page; what it recommends; and what changed between two."""

import copy
import json
import math
import sys
import tempfile
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_edge.benchmarks.compare.cli import share
from sam_edge.benchmarks.compare.compare import compare
from sam_edge.benchmarks.measure.statistics import same_mean, t_quantile
from sam_edge.benchmarks.report.html import render_html
from sam_edge.benchmarks.report.markdown import render_markdown
from sam_edge.benchmarks.report.recommend import pareto_front, recommend
from sam_edge.benchmarks.report.rows import read_report, schema
from sam_edge.benchmarks.report.table import render_table
from sam_edge.cli import main
from sam_edge.errors import SamEdgeError
from tests.support.reports import find, sample_report, write_pictures

BUSY = {"noise": 0.1, "drift": 0.4}


@pytest.fixture
def report():
    return sample_report()


# What a reader sees


class Page(HTMLParser):
    """Texts and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.addresses, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for name, v in attributes if name in ("src", "href", "xlink:href") and v]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_no_other_file(report, tmp_path):
    write_pictures(report, tmp_path)
    text = render_html(report, tmp_path)
    page = Page(text)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert page.tags.count("svg") >= 3 and page.tags.count("img") >= 9


def test_every_row_is_on_the_page_in_the_table_and_in_markdown(report, tmp_path):
    for text in (render_html(report, tmp_path), render_table(report), render_markdown(report)):
        for row in report["rows"]:
            assert row["id"] in text
        assert "onnxruntime-gpu" in text and "the device disappeared in round 3" in text


def test_names_cannot_write_into_the_page(report, tmp_path):
    report["rows"][0]["id"] = "<script>alert(1)</script>"
    report["rows"][-1]["reason"] = "<img src=http://example.org/x>"
    report["machine"]["cpu"] = "</style><b>"
    page = Page(render_html(report, tmp_path))
    assert "script" not in page.tags and "b" not in page.tags
    assert not any("example.org" in address for address in page.addresses)


def test_no_picture_from_outside_the_folder(report, tmp_path):
    (tmp_path / "inside").mkdir()
    write_pictures(report, tmp_path)
    for row in report["rows"]:
        for case in row["worst"]:
            case["image"] = "../" + case["image"]
    assert "img" not in Page(render_html(report, tmp_path / "inside")).tags


def test_without_matplotlib_it_says_what_to_install(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SamEdgeError, match=r"sam-edge\[bench\]"):
        render_html(report, tmp_path)


def test_a_partial_report_says_so(report, tmp_path):
    report["partial"] = True
    for text in (render_html(report, tmp_path), render_table(report), render_markdown(report)):
        assert "partial" in text.casefold() or "interrupted" in text.casefold()


def test_a_fallback_is_seen(report):
    row = find(report, "onnx-fp32")
    row["placement"] = {"encoder": {"CPUExecutionProvider": 3, "CUDAExecutionProvider": 297}, "decoder": None}
    row |= {"on_device": 0.99, "asked": "gpu", "device": "gpu"}
    assert "3 CPUExecutionProvider" in render_markdown(report)


RESIZED = {"size": [1024, 1024], "mean_iou": 0.91237, "min_iou": 0.7, "boundary_iou": 0.8, "num_prompts": 20}


def test_what_a_smaller_input_costs_stands_beside_the_speed(report, tmp_path):
    renders = (lambda r: render_html(r, tmp_path), render_table, render_markdown)
    assert not any("own 1024 x 1024" in render(report) for render in renders)
    report["bundle"]["resized_from"] = RESIZED
    for render in renders:
        assert "512 x 512" in render(report)
        assert "against the model's own 1024 x 1024: mean IoU 0.9124 (min 0.7000" in unescape(render(report))
    path = tmp_path / "report.json"
    for broken in ({"size": [1024]}, {**RESIZED, "mean_iou": "x"}, 3):
        path.write_text(json.dumps({**report, "bundle": {**report["bundle"], "resized_from": broken}}))
        with pytest.raises(SamEdgeError, match="is not a benchmark report"):
            read_report(path)


def test_comparing_two_input_sizes_says_what_the_smaller_costs(report):
    larger = copy.deepcopy(report)
    larger["bundle"]["input_size"] = [1024, 1024]
    report["bundle"]["resized_from"] = RESIZED
    told = compare(larger, report)["warnings"]
    assert any(text.startswith("B: ") and "mean IoU 0.9124" in text for text in told)


# Which to ship


def test_the_fastest_whose_masks_are_right():
    report = sample_report(slower={"openvino-int8": 0.5})
    best = recommend(report)
    assert best["id"] == "openvino-int8" and "0.9530" in best["words"]
    find(report, "openvino-int8")["mean_iou"] = 0.9
    assert recommend(report)["id"] == "onnx-fp32"


def test_two_within_the_noise_are_called_so():
    # 37 and 38 ms end to end.
    best = recommend(sample_report())
    assert {"onnx-fp32", "openvino-int8"} <= set(best["words"].replace(",", " ").split())
    assert "do not tell them apart" in best["words"]


def test_a_simulated_row_is_never_the_fastest(report):
    for row in report["rows"]:
        if row["status"] == "simulated":
            row["end_to_end_ms"] |= {"p50": 0.1, "rounds": [0.1] * 5}
    assert recommend(report)["id"] in ("onnx-fp32", "openvino-int8")


def test_nothing_is_recommended_where_nothing_is_right(report):
    for row in report["rows"]:
        row |= {"mean_iou": 0.1, "min_iou": 0.0}
    assert recommend(report)["id"] is None


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12))
def test_no_point_beats_one_on_the_front(points):
    front = pareto_front([cost for cost, _ in points], [quality for _, quality in points])
    kept = [points[i] for i in front]
    for cost, quality in kept:
        assert not any((c <= cost and q > quality) or (c < cost and q >= quality) for c, q in points)
    for point in points:
        assert any(c <= point[0] and q >= point[1] for c, q in kept)


# What changed


@pytest.mark.parametrize(
    ("tail", "dof", "expected"),
    [(0.025, 1, 12.706), (0.025, 4, 2.7764), (0.005, 8, 3.3554), (0.0005, 60, 3.4602)],
)
def test_quantiles_of_student(tail, dof, expected):
    """Against printed tables."""
    assert t_quantile(tail, dof) == pytest.approx(expected, rel=1e-4)


@given(st.lists(st.tuples(st.floats(1, 9), st.floats(1, 9)), min_size=2, max_size=9))
def test_means_are_the_same_where_their_interval_contains_zero(pairs):
    x, y = np.log(np.array(pairs)).T
    difference = x - y
    half = t_quantile(0.025, len(x) - 1) * difference.std(ddof=1) / math.sqrt(len(x))
    # Not at the very edge, where rounding decides.
    if abs(abs(difference.mean()) - half) > 1e-9:
        assert same_mean(x, y, 0.05) == (abs(difference.mean()) < half)


@pytest.mark.parametrize(("shift", "same"), [(0, True), (1, False)])
def test_pairs_that_all_differ_alike(shift, same):
    x = np.array([1.0, 2.0, 4.0])
    assert same_mean(x + shift, x, 0.05) is same


def test_without_scipy_it_says_what_to_install(report, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy", None)
    best = recommend(report)
    assert best["id"] == "onnx-fp32" and "sam-edge[bench]" in best["words"]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert main(["compare", str(path), str(path)]) == 2
    assert "sam-edge[bench]" in capsys.readouterr().err


def test_two_runs_of_one_bundle_raise_no_alarm():
    alarms = 0
    for seed in range(100):
        a, b = (sample_report(seed=2 * seed + i, machine=1 + seed % 3 * i, **BUSY) for i in (0, 1))
        alarms += not compare(a, b, fail_slower=0.1)["passed"]
    assert alarms <= 2


def test_a_variant_that_is_thirty_percent_slower_is_flagged():
    found = 0
    for seed in range(40):
        a = sample_report(seed=2 * seed, noise=0.03, drift=0.3)
        b = sample_report(seed=2 * seed + 1, noise=0.03, drift=0.3, slower={"onnx-int8": 1.3})
        changed = compare(a, b, fail_slower=0.1)
        found += any(text.startswith("onnx-int8") for text in changed["failures"])
        assert all(text.startswith("onnx-int8") for text in changed["failures"])
    assert found >= 36


def test_a_slower_machine_is_not_a_slower_variant():
    a, b = sample_report(seed=1), sample_report(seed=2, machine=2.0)
    found = compare(a, b, fail_slower=0.1)
    assert found["passed"]
    assert found["machine"]["slower_in_matmuls"] == pytest.approx(2, rel=0.2)
    assert any("every row alike" in text for text in found["warnings"])


def test_a_row_that_is_gone_or_fails_crosses_the_gate():
    a, b = sample_report(seed=1), sample_report(seed=2)
    find(b, "onnx-int8").update(status="failed", reason="device lost")
    found = compare(a, b, fail_slower=0.1)
    assert not found["passed"] and "device lost" in found["failures"][0]


def test_worse_masks_cross_the_gate():
    a, b = sample_report(seed=1), sample_report(seed=1)
    find(b, "onnx-int8")["mean_iou"] -= 0.02
    assert compare(a, b, fail_iou=0.03)["passed"]
    found = compare(a, b, fail_iou=0.01)
    assert [text for text in found["failures"] if "mean IoU fell" in text]


def test_masks_of_other_prompts_are_not_compared():
    a, b = sample_report(seed=1), sample_report(seed=1)
    for row in b["rows"]:
        if row["parity"]:
            row["parity"]["prompts"] = 7
            row["mean_iou"] = 0.1
    found = compare(a, b, fail_iou=0.01)
    assert found["passed"] and any("other prompts" in text for text in found["warnings"])


def test_other_versions_are_told():
    a, b = sample_report(), sample_report()
    b["machine"]["packages"]["onnxruntime"] = "1.99.0"
    assert any("1.99.0" in text for text in compare(a, b)["warnings"])


def test_one_round_cannot_be_gated():
    a = sample_report(rounds=1)
    assert compare(a, copy.deepcopy(a))["passed"]
    with pytest.raises(SamEdgeError, match="--rounds 5"):
        compare(a, a, fail_slower=0.1)


def test_the_command(tmp_path, capsys):
    for name, more in (("a", {}), ("b", {"slower": {"onnx-int8": 2.0}})):
        (tmp_path / name).mkdir()
        text = json.dumps(sample_report(seed=len(more) + 3, **more))
        (tmp_path / name / "report.json").write_text(text)
    a, b = str(tmp_path / "a"), str(tmp_path / "b" / "report.json")
    assert main(["compare", a, b]) == 0
    capsys.readouterr()
    assert main(["compare", a, b, "--fail-slower", "10%"]) == 1
    assert "FAILED: onnx-int8: encoder is" in capsys.readouterr().out
    assert main(["compare", b, a, "--fail-slower", "10%", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (row,) = [row for row in answer["rows"] if row["id"] == "onnx-int8"]
    assert answer["passed"] and row["phases"]["encoder_ms"]["verdict"] == "faster"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read"), ("{", "is not JSON"), ("{}", "is not a benchmark report"), ("[1]", "report")],
)
def test_what_is_no_report_is_refused(tmp_path, capsys, content, says):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    assert main(["compare", str(path), str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error


def places(value, path=()):
    """The path of everything inside."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        yield from places(item, (*path, name))


@given(st.data())
def test_a_report_is_read_where_its_schema_allows_it(data):
    report = sample_report()
    path = data.draw(st.sampled_from([one for one in places(report) if one]))
    outer = report
    for name in path[:-1]:
        outer = outer[name]
    if isinstance(outer, dict) and data.draw(st.booleans()):
        del outer[path[-1]]
    else:
        outer[path[-1]] = data.draw(st.sampled_from([None, 3, -1, 1.5, 1e300, "text", True, [], {}, [1, 2]]))
    valid = jsonschema.Draft202012Validator(schema()).is_valid(report)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        file.write_text(json.dumps(report))
        if valid:
            assert read_report(file) == report
        else:
            with pytest.raises(SamEdgeError, match="is not a benchmark report"):
                read_report(file)


@pytest.mark.parametrize(
    ("text", "value"), [("10%", 0.1), ("0.1", 0.1), ("1", 1.0), ("250%", 2.5), ("0", 0.0)]
)
def test_shares(text, value):
    assert share(text, "--x") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "ten", "-1%", "nan", "inf", "10"])
def test_what_is_no_share(text):
    with pytest.raises(SamEdgeError, match="--x"):
        share(text, "--x")


@given(st.floats(0.2, 5), st.integers(0, 100))
def test_the_ratio_is_the_machines_and_the_variants(factor, seed):
    a = sample_report(seed=seed, noise=1e-9, drift=0, calibration_noise=0)
    b = sample_report(seed=seed, noise=1e-9, drift=0, calibration_noise=0, machine=factor)
    (row,) = [row for row in compare(a, b)["rows"] if row["id"] == "onnx-fp32" and row["device"] == "cpu"]
    assert row["phases"]["encoder_ms"]["ratio"] == pytest.approx(1)
    assert row["phases"]["encoder_ms"]["measured_ratio"] == pytest.approx(factor)
    assert np.isfinite(row["phases"]["encoder_ms"]["high"])
