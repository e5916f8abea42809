"""The types of the public API, as a user's type checker sees them, and the errors that it exports."""

import re
import subprocess
import sys
from typing import get_args

import numpy as np

import sam_edge
from sam_edge import errors
from sam_edge.axes import PRECISIONS
from sam_edge.tasks.everything import OUTPUT_MODES
from sam_edge.testing import mock_sam
from sam_edge.types import MaskRecord, OutputMode, Precision
from tests.support import ROOT

GOOD = """
import numpy as np
import sam_edge
from sam_edge import DeviceName, MaskRecord, Masks, SamAutomaticMaskGenerator, SamPredictor
from sam_edge import sam_model_registry
from sam_edge.testing import mock_sam

image = np.zeros((48, 80, 3), np.uint8)
with sam_edge.load("bundle", device="cpu", precision="int8", threads=1) as sam:
    embedding: sam_edge.ImageEmbedding = sam.encode(image)
    found: Masks = sam.predict(embedding, point_coords=[[320, 240.5]], point_labels=[1])
    sam.predict(embedding, np.array([[320, 240]]), np.array([True]), return_logits=True)
    sam.predict(embedding, [[[1, 2]], [[3, 4], [5, 6]]], [[1], [1, 0]])
    sam.predict(embedding, [np.array([[1.0, 2.0]]), np.array([[3, 4], [5, 6]])])
    sam.predict(embedding, [(np.int64(3), np.float32(4))], boxes=(1, 2, 3, 4))
    sam.predict(embedding, boxes=[np.array([1, 2, 3, 4], np.float32)], mask_input=found.low_res_logits[0, :1])
    sam.refine(image, found, boxes=[[1, 2, 3, 4]]).outcomes
    sam.predict_text(image, "a dog", top_k=2, masks=[]).scores
sam_edge.load("bundle", device=DeviceName("GPU.0"))
records: list[MaskRecord] = SamAutomaticMaskGenerator(sam, output_mode="coco_rle").generate(image)
area: int = records[0]["area"]
predictor = SamPredictor(sam_model_registry["default"](checkpoint="bundle").to("cuda"))
masks, scores, logits = predictor.predict(np.array([[1, 2]]), np.array([1]))
masks, scores, logits = predictor.predict(box=[1, 2, 3, 4])
mock_sam(64).predict(embedding, [[1, 2]])
"""
BAD = """
import numpy as np
import sam_edge

sam = sam_edge.load("bundle")
embedding = sam.encode(np.zeros((48, 80, 3), np.uint8))
words = np.array(["a"], dtype=np.str_)
sam.predict(embedding, point_coords="nonsense")
sam.predict(embedding, point_coords=["nonsense"])
sam.predict(embedding, point_coords=[["a", "b"]])
sam.predict(embedding, point_coords=3)
sam.predict(embedding, boxes={"x": 1})
sam.predict(embedding, point_coords=words)
sam_edge.load("bundle", device="cup")
sam_edge.load("bundle", precision="int4")
sam_edge.SamAutomaticMaskGenerator(sam, output_mode="png")
sam_edge.SamPredictor(sam).predict(box="0,0,1,1")
sam_edge.SamAutomaticMaskGenerator(sam).generate(sam.encode)[0]["score"]
"""


def test_a_type_checker_accepts_prompts_and_refuses_nonsense(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache")]
    done = subprocess.run(
        [*command, "good.py", "bad.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    reported = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert not [line for line in reported if not line.startswith("bad.py")], done.stdout + done.stderr
    wrong = {int(re.match(r"bad\.py:(\d+):", line)[1]) for line in reported}
    first = BAD.splitlines().index('sam.predict(embedding, point_coords="nonsense")') + 1
    assert wrong == set(range(first, len(BAD.splitlines()) + 1)), done.stdout


def test_choices_in_types_are_those_that_there_are():
    assert get_args(Precision) == ("auto", *PRECISIONS.built_in_names())
    assert get_args(OutputMode) == OUTPUT_MODES


def test_every_error_is_exported_and_in_the_documented_tree():
    def tree(kind):
        return {kind, *(one for child in kind.__subclasses__() for one in tree(child))}

    known = {kind for kind in tree(errors.SamEdgeError) if kind.__module__ == "sam_edge.errors"}
    assert len(known) > 10
    for kind in (*known, errors.SamEdgeWarning):
        assert getattr(sam_edge, kind.__name__) is kind and kind.__name__ in sam_edge.__all__
        assert kind is errors.SamEdgeWarning or kind.__name__ in errors.__doc__
    assert sorted(sam_edge.__all__) == list(sam_edge.__all__)


def test_everything_public_says_what_it_does():
    for name in sam_edge.__all__:
        public = getattr(sam_edge, name)
        assert name.startswith("__") or (public.__doc__ or "").strip(), name


def test_records_have_the_keys_of_their_type():
    sam = mock_sam(64)
    image = np.zeros((48, 80, 3), np.uint8)
    generator = sam_edge.SamAutomaticMaskGenerator(sam, points_per_side=2, stability_score_thresh=0)
    (record, *_) = generator.generate(image)
    assert record.keys() == MaskRecord.__annotations__.keys()
