"""The published decoder contract, against the published exporter's own module."""

import numpy as np
import onnxruntime
import pytest
import torch

from sam_edge.cli import main
from sam_edge.export.architectures.model import SamModel
from sam_edge.export.contracts.segment_anything import write_published_decoder
from sam_edge.export.graphs import onnx
from tests.export.architectures.test_oracle_sam import SMALL, randomise
from tools.make_checkpoint import write_checkpoint
from tools.published import published, published_sam


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our file under the published contract, and the published module with the same weights."""
    ours = randomise(SamModel(SMALL))
    theirs = published_sam(SMALL)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    folder = tmp_path_factory.mktemp("compat")
    onnx.write_decoder(ours, SMALL, folder / "decoder.onnx")
    write_published_decoder(folder / "decoder.onnx", folder / "published.onnx", SMALL)
    return folder / "published.onnx", published("utils.onnx").SamOnnxModel(
        theirs.eval(), return_single_mask=False
    )


@pytest.mark.parametrize("name", ["efficient_sam_vitt", "sam_hq_vit_tiny"])
def test_a_model_that_stretches_or_has_more_embeddings_is_refused_at_once(name, tmp_path, capsys):
    write_checkpoint(name, tmp_path / "weights.pth")
    arguments = ["--checkpoint", str(tmp_path / "weights.pth"), "--out", str(tmp_path / "bundle")]
    assert main(["export", *arguments, "--compat", "segment-anything"]) == 2
    shown = capsys.readouterr()
    assert f"error: {name} cannot have" in shown.err and "without --compat" in shown.err
    assert "golden data" not in shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("size", [(240, 320), (500, 210), (77, 77)])
@pytest.mark.parametrize("has_mask", [0.0, 1.0])
def test_the_same_masks_at_the_images_size(both, size, has_mask):
    path, module = both
    rng = np.random.default_rng(3)
    low = 4 * SMALL.embedding_side
    given = {
        "image_embeddings": rng.normal(size=(1, 256, low // 4, low // 4)),
        "point_coords": rng.uniform(0, 300, (1, 3, 2)),
        "point_labels": np.array([[1, 0, -1]]),
        "mask_input": rng.normal(size=(1, 1, low, low)),
        "has_mask_input": np.array([has_mask]),
        "orig_im_size": np.array(size),
    }
    given = {name: np.asarray(value, np.float32) for name, value in given.items()}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(given)
    assert [o.name for o in session.get_outputs()] == ["masks", "iou_predictions", "low_res_masks"]
    with torch.inference_mode():
        expected = [t.numpy() for t in module(*(torch.from_numpy(v) for v in given.values()))]
    found = session.run(None, given)
    assert found[0].shape == (1, 4, *size)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)
