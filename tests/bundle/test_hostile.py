"""Malicious bundles, whose hashes are right and whose contents are not: each loads or is a clear error."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_edge import SamAutomaticMaskGenerator, SamEdgeError, load
from sam_edge.system.files import sha256_file
from tests.support import toy

ONE_BUNDLE = settings(max_examples=200)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [0, 1, -1, 2, 8, 64, 4096, 10**6, 1e-300, 1e300, "", "images", "num_points", "cpu", [], {}]
    ),
    st.text(max_size=8),
    st.lists(st.integers(0, 100), max_size=4),
)


def places(value, path=()):
    """The path of every value inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(data, path, value):
    data = copy.deepcopy(data)
    target = data
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return data


def use(root):
    with load(root) as sam:
        embedding = sam.encode(toy.picture())
        sam.predict(embedding, [[4, 4], [20, 20]], [1, 0])
        sam.predict(embedding, boxes=[3, 3, 30, 30], multimask_output=False)
        SamAutomaticMaskGenerator(sam, points_per_side=2).generate(toy.picture())


@ONE_BUNDLE
@given(st.data())
def test_any_manifest_works_or_is_refused(toy_bundle, toy_copy, data):
    original = json.loads((toy_bundle / "manifest.json").read_text())
    path = data.draw(st.sampled_from([p for p in places(original) if p]))
    value = data.draw(st.one_of(VALUES, st.just(...)))
    toy.rewrite_manifest(toy_copy, lambda manifest: manifest.update(changed(original, path, value)))
    try:
        with np.errstate(all="ignore"):
            use(toy_copy)
    except SamEdgeError as error:
        assert str(error)


@ONE_BUNDLE
@given(st.data())
def test_any_graph_works_or_is_refused(toy_bundle, toy_copy, data):
    """Cut short or with a byte changed, and the hash made to fit."""
    name = data.draw(st.sampled_from([f"onnx-fp32/{part}.onnx" for part in toy.PARTS]))
    whole = (toy_bundle / name).read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    spoiled = whole[:where]
    if data.draw(st.booleans()):
        spoiled = whole[:where] + bytes([data.draw(st.integers(0, 255))]) + whole[where + 1 :]
    (toy_copy / name).write_bytes(spoiled)

    def fit(manifest):
        for file in manifest["variants"][0]["files"]:
            path = toy_copy / file["path"]
            file |= {"sha256": sha256_file(path), "bytes": path.stat().st_size}

    toy.rewrite_manifest(toy_copy, fit)
    try:
        with np.errstate(all="ignore"):
            use(toy_copy)
    except SamEdgeError as error:
        assert str(error)
    finally:
        (toy_copy / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("input", "size"), [10**6, 10**6]),
        (("prompt", "coordinate_size"), [10**7, 10**7]),
        (("prompt", "num_points"), 10**9),
        (("prompt", "num_points"), -1),
        (("mask", "size"), [10**5, 10**5]),
        (("mask", "first_multimask"), 4),
        (("input", "std"), [0, 1, 1]),
    ],
)
def test_numbers_that_would_take_all_memory_are_refused(toy_copy, path, value):
    toy.rewrite_manifest(toy_copy, lambda manifest: manifest.update(changed(manifest, path, value)))
    with pytest.raises(SamEdgeError, match=path[-1]):
        load(toy_copy)


def test_an_input_that_is_no_square_is_refused(toy_copy):
    size = ("input", "size"), [1, 64]
    toy.rewrite_manifest(toy_copy, lambda manifest: manifest.update(changed(manifest, *size)))
    with pytest.raises(SamEdgeError, match="an input of 1 by 64"):
        load(toy_copy)


@pytest.mark.parametrize("part", ["scorer", "upscaler"])
def test_one_stage_without_the_other_is_refused(toy_copy, part):
    toy.rewrite_manifest(toy_copy, lambda manifest: manifest["variants"][0].pop(part))
    with pytest.raises(SamEdgeError, match="alone"):
        load(toy_copy)


def test_an_upscaler_that_asks_for_what_the_scorer_does_not_make(toy_copy):
    name = ("variants", 0, "scorer", "outputs", 1, "name"), "something"
    toy.rewrite_manifest(toy_copy, lambda manifest: manifest.update(changed(manifest, *name)))
    with load(toy_copy) as sam:
        embedding = sam.encode(toy.picture())
        with pytest.raises(SamEdgeError, match="image_tokens"):
            list(sam._candidates(embedding, np.array([[40.0, 24.0]]), 1e-6))
