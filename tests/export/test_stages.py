"""The decoder in two stages: everything-mode's masks are the whole decoder's, and drawn only where a score
passes. And prompts with masks."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest

from sam_edge import BackendError, SamAutomaticMaskGenerator, load
from sam_edge.backends import Session, get_backend
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.variant import STAGES
from sam_edge.export.checkpoints.read import build_reference, load_checkpoint
from sam_edge.export.reference.golden import Reference
from sam_edge.models.catalogue import CATALOGUE, HERE
from sam_edge.models.photos import read_photo
from sam_edge.runtime.loading import load_variant
from sam_edge.types import Prompts

IMAGE = read_photo("cat.jpg")
VARIANTS = [f"{kind}-{precision}" for kind in ("onnx", "openvino") for precision in ("fp32", "fp16", "int8")]
POINTS = np.random.default_rng(3).uniform(0, 1, (19, 2)) * IMAGE.shape[1::-1]
ALL, SOME, NONE = 1e-9, 0.4, 2.0


@pytest.fixture(scope="module")
def bundle(six_variants):
    return six_variants


@pytest.fixture(scope="module")
def dynamic(with_texts):
    """Its whole decoder, too, takes prompts in batches, on which the order of OpenVINO's sums depends."""
    return with_texts


def both(bundle, name):
    """A variant with its stages, and without."""
    opened = open_bundle(bundle)
    variant = opened.variant(name)
    whole = replace(variant, scorer=None, upscaler=None)
    return load_variant(opened, variant, threads=1), load_variant(opened, whole, threads=1)


@pytest.mark.parametrize("name", VARIANTS)
def test_candidates_are_those_of_the_whole_decoder(bundle, name):
    staged, whole = both(bundle, name)
    with staged, whole:
        embedding = staged.encode(IMAGE)
        found, expected = (list(sam._candidates(embedding, POINTS, ALL)) for sam in (staged, whole))
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    assert len(found) == 3 * len(POINTS)
    # ONNX Runtime's CPU rounds to FP16 or does not, as the nodes around it are.
    limit = 2e-3 if name == "onnx-fp16" else 1e-4
    for (*_, score, low_res), (*_, other, logits) in zip(found, expected, strict=True):
        assert abs(score - other) <= limit
        assert np.linalg.norm(low_res - logits) <= limit * np.linalg.norm(logits)


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-fp32"])
@pytest.mark.parametrize("threshold", [ALL, SOME, NONE])
def test_everything_finds_the_same_records(dynamic, name, threshold):
    options = {
        "points_per_side": 6,
        "pred_iou_thresh": threshold,
        "stability_score_thresh": 0.5,
        "crop_n_layers": 1,
        "output_mode": "coco_rle",
    }
    staged, whole = both(dynamic, name)
    with staged, whole:
        found, expected = (
            SamAutomaticMaskGenerator(sam, **options).generate(IMAGE) for sam in (staged, whole)
        )
    assert found == expected
    assert bool(found) == (threshold != NONE)


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-fp32"])
@pytest.mark.parametrize("threshold", [0.0, ALL, SOME, NONE])
def test_only_prompts_that_pass_are_drawn(bundle, name, threshold):
    sam, whole = both(bundle, name)
    with sam, whole:
        embedding = sam.encode(IMAGE)
        list(sam._candidates(embedding, POINTS[:1], ALL))
        scorer, upscaler = sam._graphs._stages
        drawn = []

        def count(inputs):
            drawn.append(len(inputs["image_tokens"]))
            return upscaler.run(inputs)

        sam._graphs._stages = scorer, Session(count, "cpu")
        found = list(sam._candidates(embedding, POINTS, threshold))
        scores = whole.predict(embedding, POINTS[:, None], np.ones((len(POINTS), 1))).scores
        upscaler.close()
    passing = (scores > threshold).any(1).sum() if threshold else 0
    assert sum(drawn) == passing and all(drawn)
    assert len(found) == (scores > threshold).sum()
    assert (threshold == SOME) == (0 < passing < len(POINTS))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_stages_are_opened_by_everything_mode_only_and_once(bundle, monkeypatch, backend):
    opened, kind = [], type(get_backend(backend))
    start = kind.open
    monkeypatch.setattr(
        kind, "open", lambda self, path, *rest: opened.append(path.stem) or start(self, path, *rest)
    )
    with load(bundle, backend=backend) as sam:
        embedding = sam.encode(IMAGE)
        sam.predict(embedding, POINTS[:, None], np.ones((len(POINTS), 1)))
        assert sorted(opened) == ["decoder", "encoder"]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: list(sam._candidates(embedding, POINTS, SOME)), range(8)))
        assert sorted(opened) == ["decoder", "encoder", "scorer", "upscaler"]
        for one in found:
            for (*_, low_res), (*_, first) in zip(one, found[0], strict=True):
                np.testing.assert_array_equal(low_res, first)
    with pytest.raises(BackendError, match="closed"):
        list(sam._candidates(embedding, POINTS, SOME))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_stages_start_warm(bundle, tmp_path, backend):
    found = []
    for _ in range(2):
        with load(bundle, backend=backend, cache_dir=tmp_path) as sam:
            found.append(list(sam._candidates(sam.encode(IMAGE), POINTS, ALL)))
    with load(bundle, backend=backend) as sam:
        expected = list(sam._candidates(sam.encode(IMAGE), POINTS, ALL))
    for cached in found:
        for (*_, low_res), (*_, logits) in zip(cached, expected, strict=True):
            np.testing.assert_allclose(low_res, logits, atol=1e-3)


@pytest.mark.parametrize("name", VARIANTS)
def test_stages_take_the_weights_from_the_decoders_file(bundle, name):
    sizes = {
        path.name: path.stat().st_size for path in (bundle / name).iterdir() if "encoder" not in path.name
    }
    stages = sum(size for file, size in sizes.items() if file.startswith(STAGES))
    assert {file.partition(".")[0] for file in sizes} == {"decoder", *STAGES}
    assert stages < 0.2 * (sum(sizes.values()) - stages)


def test_the_decoder_has_the_published_outputs_only(bundle):
    for name in VARIANTS:
        outputs = open_bundle(bundle).variant(name).decoder.outputs
        assert sorted(one.name for one in outputs) == ["iou_predictions", "low_res_masks"]
    graph = onnx.load(bundle / "onnx-fp32/decoder.onnx").graph
    assert [one.name for one in graph.output] == ["low_res_masks", "iou_predictions"]


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-fp32"])
def test_prompts_with_masks_are_each_the_references(bundle, name):
    model = CATALOGUE["sam_edge_tiny"]
    reference = Reference(build_reference(load_checkpoint(HERE / model.checkpoint.file)), model)
    seen = reference.encode(IMAGE)
    with load_variant(open_bundle(bundle), open_bundle(bundle).variant(name)) as sam:
        embedding = sam.encode(IMAGE)
        points, labels = POINTS[:3, None].astype(np.float32), np.ones((3, 1), np.float32)
        first = sam.predict(embedding, points, labels, multimask_output=False).low_res_logits
        together = sam._segment(embedding, Prompts(points, labels, mask_input=first), "all")
        without = sam._segment(embedding, Prompts(points, labels), "all")
        for n in range(3):
            prompt = Prompts(points[n], labels[n], mask_input=first[n])
            alone = sam._segment(embedding, prompt, "all")
            np.testing.assert_array_equal(together.low_res_logits[n], alone.low_res_logits[0])
            low_res, _, scores = reference.decode(seen, points[n], labels[n], first[n])
            np.testing.assert_allclose(together.low_res_logits[n], low_res, atol=5e-3)
            np.testing.assert_allclose(together.scores[n], scores, atol=1e-4)
            assert np.abs(without.low_res_logits[n] - low_res).max() > 0.1
