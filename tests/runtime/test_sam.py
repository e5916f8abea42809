"""`load`, `encode`, `predict`: what an app relies on."""

import threading

import numpy as np
import pytest

import sam_edge
from sam_edge.imaging.metrics import boundary_iou, iou
from sam_edge.models.photos import read_photo


@pytest.fixture(scope="module")
def sam(exported):
    with sam_edge.load(exported, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def embedding(sam):
    return sam.encode(read_photo("cat.jpg"))


def test_shapes_and_kinds(sam, embedding):
    found = sam.predict(embedding, point_coords=[[230, 150]], point_labels=[1])
    assert found.masks.shape == (1, 3, 300, 451) and found.masks.dtype == bool
    assert found.scores.shape == (1, 3) and found.low_res_logits.shape == (1, 3, *sam.manifest.mask_size)
    assert found.best().shape == (1, 300, 451)
    one = sam.predict(embedding, boxes=[10, 10, 200, 200], multimask_output=False)
    assert one.masks.shape == (1, 1, 300, 451)
    logits = sam.predict(embedding, boxes=[10, 10, 200, 200], return_logits=True)
    np.testing.assert_array_equal(logits.masks > 0, sam.predict(embedding, boxes=[10, 10, 200, 200]).masks)


def test_a_batch_of_prompts_is_each_prompt_alone(sam, embedding):
    boxes = np.array([[10, 10, 200, 200], [100, 50, 400, 280], [0, 0, 451, 300]])
    together = sam.predict(embedding, boxes=boxes)
    for i, box in enumerate(boxes):
        alone = sam.predict(embedding, boxes=box)
        np.testing.assert_allclose(together.low_res_logits[i], alone.low_res_logits[0], atol=2e-3)


def test_a_mask_prompt_changes_the_answer(sam, embedding):
    first = sam.predict(embedding, point_coords=[[230, 150]])
    again = sam.predict(embedding, point_coords=[[230, 150]], mask_input=first.low_res_logits[0, :1])
    assert not np.allclose(first.low_res_logits, again.low_res_logits)
    with pytest.raises(sam_edge.PromptError, match="mask_input has shape"):
        sam.predict(embedding, mask_input=np.zeros((1, 5, 5)))


@pytest.mark.parametrize("size", [(1080, 1920), (1200, 600), (1, 50), (50, 1), (1, 1)])
def test_any_size_of_image(sam, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = sam.predict(sam.encode(image), point_coords=[[0, 0]])
    assert found.masks.shape == (1, 3, *size)


def test_an_embedding_is_a_value(sam, embedding, tmp_path):
    embedding.save(tmp_path / "cat.npz")
    loaded = sam_edge.ImageEmbedding.load(tmp_path / "cat.npz")
    a, b = (sam.predict(e, point_coords=[[230, 150]]) for e in (embedding, loaded))
    np.testing.assert_array_equal(a.masks, b.masks)
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(sam_edge.IntegrityError):
        sam_edge.ImageEmbedding.load(tmp_path / "bad.npz")


def test_an_embedding_of_another_model_is_refused(sam, embedding):
    other = sam_edge.ImageEmbedding(embedding.image_embeddings, (9, 9), (9, 9), "0" * 64)
    with pytest.raises(sam_edge.PromptError, match="another model"):
        sam.predict(other, point_coords=[[1, 1]])


def test_threads_share_one_sam(sam, embedding):
    expected = sam.predict(embedding, point_coords=[[230, 150]]).low_res_logits
    results = []

    def work():
        results.append(sam.predict(embedding, point_coords=[[230, 150]]).low_res_logits)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(r, expected) for r in results)


def test_an_absent_device_lists_what_is_there(exported):
    with pytest.raises(sam_edge.DeviceError, match=r"CPUExecutionProvider.*onnxruntime-qnn"):
        sam_edge.load(exported, device="npu")
    with pytest.raises(sam_edge.BackendError, match="unknown backend"):
        sam_edge.load(exported, backend="tpu")


def test_boundary_iou_is_that_of_the_paper():
    from scipy.ndimage import binary_erosion

    rng = np.random.default_rng(0)
    a, b = (np.kron(rng.random((9, 11)) < 0.6, np.ones((9, 9))).astype(bool) for _ in range(2))
    steps = max(1, round(0.02 * np.hypot(*a.shape)))

    def band(mask):
        return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=steps)

    assert boundary_iou(a, b) == pytest.approx(iou(band(a), band(b)))
    assert iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1
