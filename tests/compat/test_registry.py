"""`sam_model_registry` and `Sam.to` as scripts for segment_anything use them; prompts of several lengths."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam_edge import BundleError, DeviceError, PromptError, SamPredictor, sam_model_registry
from sam_edge.backends import Backend, DeviceInfo, Session, get_backend
from sam_edge.compat.sam import TorchSam
from sam_edge.runtime import targets
from sam_edge.runtime.choice import Request
from sam_edge.runtime.loading import find_opener
from sam_edge.runtime.opener import OpenedGraphs
from sam_edge.system.cpu import Cpu
from sam_edge.testing import mock_sam
from tests.support import PATIENCE, toy


def test_a_bundle_or_the_checkpoint_beside_it(toy_bundle, tmp_path):
    shutil.copytree(toy_bundle, tmp_path / "sam_toy-bundle")
    for name, path in (("toy", toy_bundle), ("default", toy_bundle), ("toy", tmp_path / "sam_toy.pth")):
        with sam_model_registry[name](checkpoint=str(path)) as sam:
            assert sam.to(device="cpu") is sam
            predictor = SamPredictor(sam)
            predictor.set_image(toy.picture())
            assert predictor.predict(np.array([[40, 24]]), np.array([1]))[0].shape == (3, 48, 80)


@pytest.mark.parametrize(
    ("name", "path", "says"),
    [
        ("vit_b", "{toy}", "holds toy, not vit_b"),
        ("toy", None, "needs checkpoint=BUNDLE"),
        ("toy", "none.pth", "sam-edge export --checkpoint none.pth"),
    ],
)
def test_what_cannot_be_loaded(toy_bundle, name, path, says):
    with pytest.raises(BundleError, match=says):
        sam_model_registry[name](checkpoint=path and path.format(toy=toy_bundle))


def test_a_device_that_is_not_there_moves_nothing(toy_bundle):
    with sam_model_registry["toy"](checkpoint=toy_bundle) as sam:
        with pytest.raises(DeviceError):
            sam.to("cuda:0")
        assert sam.device == "cpu" and sam.encode(toy.picture()).original_size == (48, 80)


class TwoDevices(Backend):
    """ONNX Runtime's CPU under two names; keeps how each graph was opened."""

    name, formats = "two", ("onnx",)

    def __init__(self):
        self.opened = []

    def devices(self):
        return [DeviceInfo("two", kind.upper(), kind, True, "") for kind in ("cpu", "gpu")]

    def open(self, path, device, threads):
        kind = self.select_device(device).kind
        self.opened.append((path.stem, kind, threads))
        inner = get_backend("onnxruntime").open(path, "cpu", threads)
        return Session(inner.run, kind, inner.close)

    def open_cached(self, path, device, threads, cache):
        session = self.open(path, device, threads)
        self.opened[-1] += ("cached",)
        return session


@pytest.fixture
def two(monkeypatch):
    backend = TwoDevices()
    monkeypatch.setattr("sam_edge.backends.plugins.installed", lambda own: ({"two": backend}, []))
    return backend


def load_movable(path, precision="auto", cache_dir=None):
    return TorchSam(find_opener(path, Request("two", precision=precision), 1, cache_dir=cache_dir))


def test_moving_keeps_settings_and_the_cache_directory(two, toy_bundle, tmp_path):
    with load_movable(toy_bundle, cache_dir=tmp_path) as sam:
        two.opened.clear()
        assert sam.to("cuda:0") is sam and sam.device == "gpu"
        list(sam._candidates(sam.encode(toy.picture()), np.array([[40.0, 24.0]]), 1e-6))
    graphs = ("encoder", "decoder", "scorer", "upscaler")
    assert two.opened == [(name, "gpu", 1, "cached") for name in graphs]
    two.opened.clear()
    with load_movable(toy_bundle) as sam:
        sam.to("gpu")
    assert two.opened[-1] == ("decoder", "gpu", 1)


def test_moving_keeps_the_choices(two, toy_copy):
    def change(data):
        (one,) = data["variants"]
        data["variants"].append({**one, "id": "onnx-int8", "precision": "int8"})

    toy.rewrite_manifest(toy_copy, change)
    with load_movable(toy_copy, precision="int8") as sam:
        before = {str(choice) for choice in sam.choices}
        assert "two cpu CPU onnx-int8: chosen" in before
        after = {str(choice) for choice in sam.to("gpu").choices}
        assert after == {
            "two gpu GPU onnx-int8: chosen",
            "two cpu CPU: gpu was asked for",
            "two gpu GPU onnx-fp32: int8 was asked for",
        }
        assert {str(choice) for choice in sam.to("cpu").choices} - before == {
            "two gpu GPU: cpu was asked for"
        }


def test_a_cpu_without_what_the_variant_requires_is_refused(two, toy_copy, monkeypatch):
    def change(data):
        data["variants"][0] |= {"instruction_set": "vnni", "requires": ["x86: avx512_vnni"]}

    toy.rewrite_manifest(toy_copy, change)
    monkeypatch.setattr(targets, "this_cpu", lambda: Cpu("x86", frozenset({"avx2"})))
    with TorchSam(find_opener(toy_copy, Request("two", "gpu"))) as sam:
        with pytest.raises(DeviceError, match="requires x86: avx512_vnni"):
            sam.to("cpu")
        assert sam.device == "gpu" and sam.encode(toy.picture()).original_size == (48, 80)


def test_moving_while_other_threads_run(two, toy_bundle):
    """Each call ends where it began, and old graphs are closed when the last call has ended."""
    with load_movable(toy_bundle) as sam:
        image, point = toy.picture(), np.array([[40.0, 24.0]])
        embedding = sam.encode(image)
        expected = sam.predict(embedding, point).masks
        begun, moved = threading.Barrier(5, timeout=PATIENCE), threading.Event()

        def work(_):
            begun.wait()
            while not moved.is_set():
                np.testing.assert_array_equal(sam.predict(sam.encode(image), point).masks, expected)
                assert len(list(sam._candidates(embedding, point, 1e-6))) == 3

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work, i) for i in range(4)]
            begun.wait()
            for i in range(30):
                sam.to(("gpu", "cpu")[i % 2])
            moved.set()
            for one in running:
                one.result(timeout=PATIENCE)
        assert sam.device == "cpu"


def test_graphs_that_others_opened_cannot_move():
    sam = mock_sam(64)
    sessions = {name: Session(dict, "cpu") for name in ("encoder", "decoder")}
    movable = TorchSam(OpenedGraphs(sam.bundle, sam.variant, "mock", sessions))
    with pytest.raises(DeviceError, match="cannot move to gpu; load it with"):
        movable.to("gpu")


def test_a_predictor_without_an_image(sam):
    with pytest.raises(PromptError, match="set_image"):
        SamPredictor(sam).predict(np.array([[4, 4]]), np.array([1]))


def test_prompts_with_different_numbers_of_points_are_those_alone(sam):
    embedding = sam.encode(toy.picture())
    points = [[[40, 24]], [[4, 4], [70, 40]], [[9, 9]]]
    labels = [[1], [1, 0], [0]]
    found = sam.predict(embedding, points, labels)
    for n in range(3):
        alone = sam.predict(embedding, points[n], labels[n])
        np.testing.assert_array_equal(found.masks[n], alone.masks[0])
        np.testing.assert_array_equal(found.scores[n], alone.scores[0])
    boxes = [[0, 0, 40, 20], [5, 6, 70, 40], [1, 1, 2, 2]]
    some = sam.predict(embedding, [[], *points[1:]], [[], *labels[1:]], boxes)
    np.testing.assert_array_equal(some.masks[0], sam.predict(embedding, boxes=boxes[0]).masks[0])
    with pytest.raises(PromptError, match="expected one label a point"):
        sam.predict(embedding, points, [[1], [1], [0]])
    with pytest.raises(PromptError, match="boxes has 1 entries"):
        sam.predict(embedding, points, labels, boxes[:1])
