"""Parity: metrics against naive implementations, the gates, and the golden file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from sam_edge import IntegrityError, ParityError
from sam_edge.axes import PRECISIONS, gate
from sam_edge.bundle.golden import read_golden, write_golden
from sam_edge.bundle.manifest import schema
from sam_edge.bundle.schema import validate
from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.verify.parity import run_parity

sides = st.tuples(st.integers(1, 40), st.integers(1, 40))
pairs = sides.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def band(mask, ratio):
    """The reference implementation's steps (cv2.erode within a border of zeros)."""
    steps = max(1, round(ratio * float(np.hypot(*mask.shape))))
    padded = np.pad(mask, 1)
    eroded = ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=steps, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


@settings(max_examples=80)
@given(pairs, st.sampled_from([0.02, 0.1]))
def test_boundary_iou_is_the_published_one(pair, ratio):
    a, b = pair
    ours, theirs = band(a, ratio), band(b, ratio)
    union = (ours | theirs).sum()
    assert boundary_iou(a, b, ratio) == pytest.approx((ours & theirs).sum() / union if union else 1)


@settings(max_examples=50)
@given(pairs)
def test_iou_counts_pixels(pair):
    a, b = pair
    both = sum(x and y for x, y in zip(a.flat, b.flat, strict=True))
    either = sum(x or y for x, y in zip(a.flat, b.flat, strict=True))
    assert iou(a, b) == (both / either if either else 1.0)
    assert iou(a, b) == iou(b, a)


@pytest.fixture
def golden(toy_bundle):
    return read_golden(toy_bundle / "golden.npz")


def test_the_same_graphs_are_at_parity(sam, golden):
    report = run_parity(sam, golden, "fp32")
    assert report.passed and report.mean_iou == report.min_iou == report.boundary_iou == 1
    assert report.max_score_difference == report.embedding_relative_error == 0
    assert report.num_prompts == 3
    validate(report.to_json(), {"$ref": "#/$defs/parity", "$defs": schema()["$defs"]})


def damaged(golden, index, rows):
    """The golden data with `rows` of one prompt's masks cleared."""
    masks = golden.prompts[index].masks.copy()
    masks[:, rows] = False
    prompts = list(golden.prompts)
    prompts[index] = replace(prompts[index], masks=masks)
    return replace(golden, prompts=prompts)


def test_one_bad_mask_shows_in_the_minimum(sam, golden):
    best = 1 + golden.prompts[0].scores[1:].argmax()
    whole = golden.prompts[0].masks[best]
    expected = whole[24:].sum() / whole.sum()
    report = run_parity(sam, damaged(golden, 0, slice(0, 24)), "int8")
    assert report.min_iou == pytest.approx(expected)
    assert report.mean_iou == pytest.approx((2 + expected) / 3)
    assert not report.passed
    assert run_parity(sam, damaged(golden, 0, slice(0, 24)), "int8", min_iou=0.1).passed


def test_a_wrong_score_and_embedding_are_measured(sam, golden):
    prompt = golden.prompts[1]
    prompts = [golden.prompts[0], replace(prompt, scores=prompt.scores + 0.25)]
    doubled = {name: 2 * values for name, values in golden.embeddings[0].items()}
    other = replace(golden, prompts=prompts, embeddings=[doubled])
    report = run_parity(sam, other, "fp32")
    assert report.max_score_difference == pytest.approx(0.25)
    assert report.embedding_relative_error == pytest.approx(0.5)


def test_what_is_not_a_number_passes_no_gate(sam, golden):
    overflown = [
        {name: np.full_like(values, np.inf) for name, values in one.items()} for one in golden.embeddings
    ]
    report = run_parity(sam, replace(golden, embeddings=overflown), "fp16", min_iou=0)
    assert report.mean_iou == 1 and not report.passed
    json.dumps(report.to_json(), allow_nan=False)
    scores = [replace(prompt, scores=prompt.scores * np.nan) for prompt in golden.prompts]
    assert not run_parity(sam, replace(golden, prompts=scores), "fp16", min_iou=0).passed


def test_empty_reference_masks_are_not_agreement(sam, golden):
    report = run_parity(sam, damaged(golden, 0, slice(None)), "fp32")
    assert report.num_prompts == 2 and report.passed
    for index in range(3):
        golden = damaged(golden, index, slice(None))
    with pytest.raises(ParityError, match="empty"):
        run_parity(sam, golden, "fp32")


def test_gates_loosen_with_precision():
    means, minima = zip(*((one.gate.mean, one.gate.min) for one in PRECISIONS), strict=True)
    assert list(means) == sorted(means, reverse=True) and list(minima) == sorted(minima, reverse=True)
    assert means[0] > gate("fp16").mean > gate("fp16", "hexagon").mean > gate("int8").mean


def test_golden_data_survives_a_round_trip(golden, tmp_path):
    write_golden(tmp_path / "g.npz", golden)
    read = read_golden(tmp_path / "g.npz")
    np.testing.assert_equal(read.images, golden.images)
    np.testing.assert_equal(read.embeddings, golden.embeddings)
    for ours, theirs in zip(read.prompts, golden.prompts, strict=True):
        np.testing.assert_equal(vars(ours), vars(theirs))
    assert golden.prompts[1].point_coords is None and golden.prompts[2].mask_input.shape == (1, 8, 8)


@pytest.mark.parametrize("damage", ["empty", "text", "short", "npy", "keys", "index", "pickle"])
def test_damaged_golden_data(toy_bundle, tmp_path, damage):
    path = tmp_path / "golden.npz"
    whole = (toy_bundle / "golden.npz").read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello"}.get(damage, whole[: len(whole) // 2]))
    with np.load(toy_bundle / "golden.npz") as file:
        stored = dict(file)
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "keys":
        np.savez(path, image_0=np.zeros((2, 2, 3), np.uint8))
    elif damage == "index":
        np.savez(path, **{**stored, "prompt_image": np.array([0, 0, 9])})
    elif damage == "pickle":
        np.savez(path, **{**stored, "image_0": np.array([{}], object)})
    with pytest.raises(IntegrityError, match="damaged"):
        read_golden(path)
