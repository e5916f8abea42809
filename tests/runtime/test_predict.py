"""Load, encode and predict, on the toy bundle."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import sam_edge
from sam_edge import BackendError, DeviceError, ImageEmbedding, IntegrityError, PromptError, load
from sam_edge.backends import backend_names, get_backend
from tests.support import toy

POINT = [[40, 24]]


@pytest.fixture(scope="module")
def embedding(sam):
    return sam.encode(toy.picture())


def test_shapes_types_and_names(sam, embedding):
    assert (sam.backend, sam.device, sam.variant.id) == ("onnxruntime", "cpu", "onnx-fp32")
    found = sam.predict(embedding, POINT)
    assert found.masks.shape == (1, 3, 48, 80) and found.masks.dtype == bool
    assert found.scores.shape == (1, 3) and found.scores.dtype == np.float32
    assert found.low_res_logits.shape == (1, 3, 8, 8)
    assert sam.predict(embedding, POINT, multimask_output=False).masks.shape == (1, 1, 48, 80)
    np.testing.assert_array_equal(found.best()[0], found.masks[0, found.scores[0].argmax()])


def test_logits_and_masks_agree(sam, embedding):
    logits = sam.predict(embedding, POINT, return_logits=True).masks
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits > 0, sam.predict(embedding, POINT).masks)


def test_the_mask_is_where_the_disc_is(sam, embedding):
    mask = sam.predict(embedding, POINT, multimask_output=False).masks[0, 0]
    assert mask[24, 40] and not mask[2, 2] and not mask[45, 77]


def test_a_batch_is_the_same_as_one_by_one(sam, embedding):
    points = np.array([[[40, 24]], [[4, 4]], [[70, 40]]])
    boxes = np.array([[0, 0, 40, 20], [5, 6, 70, 40], [1, 1, 2, 2]])
    batch = sam.predict(embedding, points, [[1], [0], [1]], boxes)
    for n, label in enumerate((1, 0, 1)):
        one = sam.predict(embedding, points[n], [label], boxes[n])
        np.testing.assert_array_equal(batch.masks[n], one.masks[0])
        np.testing.assert_allclose(batch.scores[n], one.scores[0])


def test_a_mask_can_be_the_next_prompt(sam, embedding):
    first = sam.predict(embedding, POINT, multimask_output=False)
    again = sam.predict(embedding, POINT, mask_input=first.low_res_logits[0])
    alone = sam.predict(embedding, mask_input=first.low_res_logits)
    plain = sam.predict(embedding, POINT)
    assert again.masks.shape == alone.masks.shape == plain.masks.shape
    np.testing.assert_allclose(
        again.low_res_logits - plain.low_res_logits, np.repeat(first.low_res_logits, 3, 1), atol=1e-5
    )


def test_each_prompt_has_its_own_mask(sam, embedding):
    masks = np.random.default_rng(1).normal(size=(3, 1, 8, 8)).astype(np.float32)
    points = [[[40, 24]], [[4, 4]], [[70, 40]]]
    together = sam.predict(embedding, points, [[1], [0], [1]], mask_input=masks)
    for n, label in enumerate((1, 0, 1)):
        alone = sam.predict(embedding, points[n], [label], mask_input=masks[n])
        np.testing.assert_array_equal(together.low_res_logits[n], alone.low_res_logits[0])


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((8, 8)),
        np.zeros((1, 4, 4)),
        np.full((1, 8, 8), np.nan),
        "mask",
        np.zeros((2, 1, 8, 8)),
        [[1], [1, 2]],
    ],
)
def test_bad_mask_prompts(sam, embedding, mask):
    with pytest.raises(PromptError):
        sam.predict(embedding, POINT, mask_input=mask)


def test_a_prompt_of_padding_only_is_none(sam, embedding):
    with pytest.raises(PromptError, match="padding"):
        sam.predict(embedding, [[[1, 1]], [[2, 2]]], [[1], [-1]])
    # With a box the second prompt is whole.
    sam.predict(embedding, [[[1, 1]], [[2, 2]]], [[1], [-1]], [[0, 0, 5, 5], [1, 1, 9, 9]])


def test_no_prompt_changes_the_callers_arrays(sam, embedding):
    points, labels = np.array([[40.0, 24.0]], np.float32), np.array([1.0], np.float32)
    boxes, mask = np.array([[1, 2, 30, 40]], np.float32), np.ones((1, 8, 8), np.float32)
    image = toy.picture()
    kept = [value.copy() for value in (points, labels, boxes, mask, image)]
    sam.predict(sam.encode(image), points, labels, boxes, mask)
    for before, after in zip(kept, (points, labels, boxes, mask, image), strict=True):
        np.testing.assert_array_equal(before, after)


def test_an_embedding_can_be_saved(sam, embedding, tmp_path):
    embedding.save(tmp_path / "e.npz")
    read = ImageEmbedding.load(tmp_path / "e.npz")
    assert (read.original_size, read.resized_size, read.model) == ((48, 80), (38, 64), toy.SHA)
    ours, theirs = (sam.predict(e, POINT).masks for e in (embedding, read))
    np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


def test_a_damaged_embedding(embedding, tmp_path):
    path = tmp_path / "e.npz"
    embedding.save(path)
    whole = path.read_bytes()
    np.save(tmp_path / "e.npy", np.zeros(3))
    cases = [b"", b"text", whole[:-9], (tmp_path / "e.npy").read_bytes()]
    for where in range(0, len(whole), 5):
        cases.append(whole[:where] + bytes([whole[where] ^ 0xFF]) + whole[where + 1 :])
    refused = 0
    for case in cases:
        path.write_bytes(case)
        try:
            ImageEmbedding.load(path)
        except IntegrityError:
            refused += 1
    assert refused > len(cases) / 2
    with pytest.raises(IntegrityError):
        ImageEmbedding.load(tmp_path / "none.npz")


def test_another_models_embedding(sam, embedding):
    other = ImageEmbedding(embedding.image_embeddings, (48, 80), (38, 64), "f" * 64)
    with pytest.raises(PromptError, match="another model"):
        sam.predict(other, POINT)


def test_an_embedding_of_another_shape_is_refused_by_the_backend(sam):
    other = ImageEmbedding(np.zeros((1, 3, 9, 9), np.float32), (48, 80), (38, 64), toy.SHA)
    with pytest.raises(BackendError):
        sam.predict(other, POINT)


def test_threads_share_a_model(sam):
    images = [np.roll(toy.picture(), 3 * i, 1) for i in range(8)]

    def both(image):
        return sam.predict(sam.encode(image), POINT).low_res_logits

    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(both, images), map(both, images), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_closed_model_says_so(toy_bundle):
    sam = load(toy_bundle)
    sam.close()
    sam.close()
    with pytest.raises(BackendError, match="closed"):
        sam.encode(toy.picture())


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_that_is_not_there_is_an_error(toy_bundle, device, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match=r"available: cpu .* provider: onnxruntime"):
        load(toy_bundle, device=device)


def test_a_silent_fallback_is_an_error(toy_bundle, monkeypatch):
    import onnxruntime

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers, **_: real(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(DeviceError, match="did not start"):
        load(toy_bundle, device="gpu")


def test_backends_and_devices_by_name(toy_bundle):
    with pytest.raises(BackendError, match="onnxruntime"):
        load(toy_bundle, backend="abacus")
    with pytest.raises(DeviceError, match="cpu"):
        load(toy_bundle, device="abacus")
    for name in backend_names():
        devices = get_backend(name).devices()
        assert devices and all(d.available or d.reason for d in devices)


def test_a_file_that_is_no_graph(toy_copy):
    (toy_copy / "onnx-fp32/decoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(BackendError, match=r"decoder\.onnx"):
        load(toy_copy, check_integrity=False)


@pytest.mark.parametrize("threads", [0, -3])
def test_threads_below_one(toy_bundle, threads):
    with pytest.raises(BackendError, match="threads"):
        load(toy_bundle, threads=threads)
    load(toy_bundle, threads=1).close()


def test_everything_named_is_there():
    for name in sam_edge.__all__:
        assert hasattr(sam_edge, name)
