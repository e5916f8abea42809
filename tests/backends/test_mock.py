"""The mock backend: masks that follow the prompts, with NumPy and nothing else."""

import re
import subprocess
import sys

import numpy as np
import pytest

from sam_edge import BackendError, DeviceError, load
from sam_edge.backends import get_backend
from sam_edge.bundle.manifest import schema
from sam_edge.bundle.schema import validate
from sam_edge.imaging.metrics import iou
from sam_edge.system.install import install_command
from sam_edge.testing import mock_sam
from tests.support import ROOT, toy

IMAGE = np.zeros((300, 400, 3), np.uint8)


@pytest.fixture(scope="module")
def sam():
    with mock_sam() as sam:
        yield sam


@pytest.fixture(scope="module")
def embedding(sam):
    return sam.encode(IMAGE)


def disc(x, y, radius):
    rows, columns = np.mgrid[:300, :400] + 0.5
    return np.hypot(columns - x, rows - y) < radius


def box(x0, y0, x1, y1):
    mask = np.zeros((300, 400), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_point_makes_a_disc(sam, embedding):
    found = sam.predict(embedding, [[150, 100]])
    assert found.masks.shape == (1, 3, 300, 400) and found.scores.shape == (1, 3)
    assert iou(found.best()[0], disc(150, 100, 40)) > 0.98
    assert iou(found.masks[0, 0], disc(150, 100, 20)) > 0.97
    assert iou(found.masks[0, 2], disc(150, 100, 80)) > 0.98


def test_a_box_is_filled(sam, embedding):
    found = sam.predict(embedding, boxes=[[50, 60, 210, 260], [300, 20, 390, 60]])
    assert iou(found.best()[0], box(50, 60, 210, 260)) > 0.97
    assert iou(found.best()[1], box(300, 20, 390, 60)) > 0.95
    one = sam.predict(embedding, boxes=[50, 60, 210, 260], multimask_output=False)
    np.testing.assert_array_equal(one.masks[0, 0], found.best()[0])


def test_negative_points_are_cut_out(sam, embedding):
    found = sam.predict(embedding, [[150, 100], [170, 100]], [1, 0]).best()[0]
    assert iou(found, disc(150, 100, 40) & ~disc(170, 100, 20)) > 0.97
    found = sam.predict(embedding, [[[100, 100]]], [[0]], [[50, 60, 210, 260]]).best()[0]
    assert iou(found, box(50, 60, 210, 260) & ~disc(100, 100, 20)) > 0.97
    assert not sam.predict(embedding, [[150, 100]], [0]).masks.any()


def test_points_and_boxes_together(sam, embedding):
    found = sam.predict(embedding, [[[150, 100], [350, 250]]], [[1, 1]], [[50, 60, 210, 260]]).best()[0]
    assert iou(found, box(50, 60, 210, 260) | disc(150, 100, 40) | disc(350, 250, 40)) > 0.97


def test_a_mask_is_kept_and_added_to(sam, embedding):
    first = sam.predict(embedding, [[150, 100]], multimask_output=False)
    alone = sam.predict(embedding, mask_input=first.low_res_logits[0]).best()
    np.testing.assert_array_equal(alone, first.masks[:, 0])
    both = sam.predict(embedding, [[300, 200]], mask_input=first.low_res_logits[0]).best()[0]
    assert iou(both, disc(150, 100, 40) | disc(300, 200, 40)) > 0.97
    cut = sam.predict(embedding, [[170, 100]], [0], mask_input=first.low_res_logits[0]).best()[0]
    assert iou(cut, disc(150, 100, 40) & ~disc(170, 100, 20)) > 0.97


@pytest.mark.parametrize("prompt", [{"point_coords": [[150, 100]]}, {"boxes": [50, 60, 210, 260]}])
def test_three_nested_masks_with_scores(sam, embedding, prompt):
    found = sam.predict(embedding, **prompt)
    small, middle, large = found.masks[0]
    assert small.any() and not (small & ~middle).any() and not (middle & ~large).any()
    assert small.sum() < middle.sum() < large.sum()
    assert ((found.scores > 0) & (found.scores < 1)).all() and found.scores[0].argmax() == 1


def test_the_same_again(sam, embedding):
    one, other = (s.predict(s.encode(IMAGE), [[150, 100]]) for s in (sam, mock_sam()))
    np.testing.assert_array_equal(one.low_res_logits, other.low_res_logits)
    picture = np.random.default_rng(0).integers(0, 256, IMAGE.shape, np.uint8)
    assert not np.array_equal(sam.encode(picture).image_embeddings, embedding.image_embeddings)


def test_a_small_one_is_rougher(embedding):
    small = mock_sam(128)
    found = small.predict(small.encode(IMAGE), [[150, 100]]).best()[0]
    assert iou(found, disc(150, 100, 40)) > 0.9


def test_its_manifest_is_a_whole_one(sam):
    validate(sam.manifest.data, schema())
    assert sam.choices == [] and sam.placement == {"encoder": None, "decoder": None}


def test_closed(sam):
    other = mock_sam()
    other.close()
    with pytest.raises(BackendError, match="closed"):
        other.encode(IMAGE)


def test_any_bundle(toy_bundle, embedding):
    picture = toy.picture()
    with load(toy_bundle, backend="mock") as sam:
        assert (sam.backend, sam.device, sam.variant.id) == ("mock", "cpu", "onnx-fp32")
        found = sam.predict(sam.encode(picture), [[[40, 24]], [[10, 10]]])
        assert found.masks.shape == (2, 3, 48, 80) and found.masks[0, 1, 24, 40]
        assert not found.masks[0, 1, 2, 2]
        (chosen,) = [choice for choice in sam.choices if choice.chosen]
        assert str(chosen) == "mock cpu NumPy onnx-fp32: chosen"
    with pytest.raises(DeviceError, match="cpu"):
        load(toy_bundle, backend="mock", device="gpu")


def test_the_default_models_bundle(exported):
    with load(exported, backend="mock") as sam:
        embedding = sam.encode(IMAGE)
        outputs = {tensor.name: tensor.shape for tensor in sam.variant.encoder.outputs}
        assert {name: array.shape for name, array in embedding.arrays.items()} == outputs
        assert iou(sam.predict(embedding, boxes=[50, 60, 210, 260]).best()[0], box(50, 60, 210, 260)) > 0.95


def test_a_graph_of_no_bundle(tmp_path, toy_bundle):
    mock = get_backend("mock")
    with pytest.raises(BackendError, match="not in a bundle"):
        mock.open(tmp_path / "encoder.onnx", "cpu", None)
    with pytest.raises(BackendError, match="is not a graph of the bundle"):
        mock.open(toy_bundle / "onnx-fp32/other.onnx", "cpu", None)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BackendError, match=r"manifest\.json"):
        mock.open(tmp_path / "onnx-fp32/encoder.onnx", "cpu", None)


def test_it_needs_numpy_only_and_is_never_chosen(toy_bundle):
    """With no runtime installed, and the documentation's example."""
    text = (ROOT / "docs/guides/backends.md").read_text()
    example = re.search(r"```python\n(from sam_edge\.testing.*?)```", text, re.S)[1]
    blocked = ["onnxruntime", "openvino", "coremltools", "onnx", "torch", "PIL", "scipy"]
    code = f"""
import sys; sys.modules.update(dict.fromkeys({blocked!r}))
import numpy as np
image = np.zeros((70, 90, 3), np.uint8)
{example}
assert found.best().shape == (1, 70, 90) and found.best()[0, 40, 40] and not found.best()[0, 5, 5]
import sam_edge
with sam_edge.load({str(toy_bundle)!r}, backend="mock") as sam:
    assert sam.predict(sam.encode(image), [[9, 9]]).masks.any()
try:
    sam_edge.load({str(toy_bundle)!r})
except sam_edge.BackendError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == f"ONNX Runtime is not installed; {install_command('onnxruntime')}\n", done.stderr
