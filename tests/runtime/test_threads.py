"""One `Sam`, many threads, many calls: the same answers, and no memory leaks."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sam_edge import BackendError, load
from sam_edge.backends import Backend, Session
from sam_edge.backends.openvino import BACKEND as OPENVINO
from sam_edge.backends.openvino import no_telemetry
from sam_edge.runtime import choice
from sam_edge.system.threads import split_across_threads
from tests.support import PATIENCE, toy

THREADS, CALLS = 8, 1000


def prompts(seed):
    """What one call asks for: a number of points and boxes of its own."""
    rng = np.random.default_rng(seed)
    n, k = 1 + seed % 3, 1 + seed % 4
    given = {
        "point_coords": rng.uniform(0, 48, (n, k, 2)).astype(np.float32),
        "point_labels": np.ones((n, k), np.float32),
    }
    if seed % 2:
        given["boxes"] = np.tile(np.array([3, 4, 70, 40], np.float32), (n, 1))
    return given


def test_eight_threads_give_the_answers_of_one(sam):
    embedding = sam.encode(toy.picture())
    kinds = [prompts(seed) for seed in range(40)]
    alone = [sam.predict(embedding, **kind) for kind in kinds]

    def work(thread):
        wrong = 0
        for i in range(CALLS):
            which = (i + 5 * thread) % len(kinds)
            found = sam.predict(embedding, **kinds[which])
            expected = alone[which]
            wrong += not (
                np.array_equal(found.masks, expected.masks)
                and np.array_equal(found.scores, expected.scores)
                and np.array_equal(found.low_res_logits, expected.low_res_logits)
            )
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [0] * THREADS


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_what_threads_share_is_done_once_and_its_errors_are_raised(threads):
    done, there = [], set(threading.enumerate())
    split_across_threads(done.extend, range(20), threads)
    assert sorted(done) == list(range(20))

    def fail(numbers):
        if 13 in numbers:
            raise MemoryError("13")

    with pytest.raises(MemoryError, match="13"):
        split_across_threads(fail, range(20), threads)
    assert set(threading.enumerate()) <= there


def test_eight_threads_of_openvino(tmp_path):
    with no_telemetry():
        import openvino as ov
    toy.write_decoder(tmp_path / "decoder.onnx")
    model = ov.Core().read_model(tmp_path / "decoder.onnx")
    ov.save_model(model, tmp_path / "decoder.xml", compress_to_fp16=False)
    rng = np.random.default_rng(0)

    def inputs(n, k):
        arrays = {
            "image_embeddings": rng.random((1, 3, toy.GRID, toy.GRID)),
            "point_coords": rng.uniform(0, toy.SIDE, (n, k, 2)),
            "point_labels": rng.integers(-1, 4, (n, k)),
            "mask_input": rng.normal(size=(1, 1, toy.GRID, toy.GRID)),
            "has_mask_input": np.array([n % 2]),
        }
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    session = OPENVINO.open(tmp_path / "decoder.xml", "cpu", 1)
    kinds = [inputs(1 + i % 3, 1 + i % 4) for i in range(12)]
    alone = [session.run(kind)["low_res_masks"] for kind in kinds]

    def work(thread):
        return all(
            np.array_equal(session.run(kinds[(i + thread) % 12])["low_res_masks"], alone[(i + thread) % 12])
            for i in range(CALLS)
        )

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(work, range(THREADS)))


@pytest.mark.parametrize("backend", ["onnxruntime", "mock"])
def test_closing_while_others_run(toy_bundle, backend):
    """Who is too late is told so; nothing else can happen."""
    for _ in range(10):
        sam = load(toy_bundle, backend=backend)
        embedding = sam.encode(toy.picture())

        def work(_, sam=sam, embedding=embedding):
            done = 0
            try:
                while True:
                    sam.predict(embedding, [[9, 9]])
                    done += 1
            except BackendError as error:
                assert "closed" in str(error)
            return done

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(work, i) for i in range(4)]
            sam.predict(embedding, [[9, 9]])
            sam.close()
            assert all(one.result(PATIENCE) >= 0 for one in running)


def test_a_context_manager_closes(toy_bundle):
    with load(toy_bundle) as sam:
        embedding = sam.encode(toy.picture())
    with pytest.raises(BackendError, match="this model was closed; load it again"):
        sam.encode(toy.picture())
    with pytest.raises(BackendError, match="this model was closed; load it again"):
        sam.predict(embedding, [[9, 9]])


def resident(code, bundle):
    """Run `code`; return what it prints, in MB."""
    head = f"""
import gc, os, sys
import numpy as np, sam_edge

def megabytes():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

bundle = {str(bundle)!r}
picture = np.zeros((48, 80, 3), np.uint8)
"""
    command = [sys.executable, "-c", head + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split()]


LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")


@LINUX
def test_memory_is_flat_over_ten_thousand_calls(toy_bundle):
    code = """
with sam_edge.load(bundle) as sam:
    embedding = sam.encode(picture)
    def calls(count):
        for i in range(count):
            sam.predict(embedding, np.full((1 + i % 3, 1 + i % 4, 2), 5.0))
    calls(1000)
    before = megabytes()
    calls(10_000)
    print(before, megabytes())
"""
    before, after = resident(code, toy_bundle)
    assert after - before < 2


@LINUX
def test_loading_and_closing_gives_its_memory_back(toy_bundle):
    code = """
def loads(count):
    for _ in range(count):
        sam = sam_edge.load(bundle)
        sam.predict(sam.encode(picture), [[5, 5]])
        sam.close()
loads(30)
before = megabytes()
loads(200)
print(before, megabytes())
"""
    before, after = resident(code, toy_bundle)
    assert after - before < 5


class Doors(Backend):
    """Opens each graph but one that it fails at; keeps those that were closed."""

    name, formats = "doors", ("onnx",)

    def __init__(self, together, fails_at):
        self.concurrent_open, self.fails_at = together, fails_at
        self.opened, self.closed = [], []
        # Passed by two threads at once only.
        self.barrier = threading.Barrier(2, timeout=PATIENCE)

    def open(self, path, device, threads):
        """A graph."""
        if self.concurrent_open:
            self.barrier.wait()
        self.opened.append(path.stem)
        if path.stem == self.fails_at:
            raise BackendError(f"no {path.stem}")
        return Session(dict, "cpu", lambda: self.closed.append(path.stem))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("fails_at", "opened", "closed"),
    [("encoder", ["encoder"], []), ("decoder", ["encoder", "decoder"], ["encoder"])],
)
def test_where_one_graph_cannot_be_opened_the_other_is_closed(
    toy_bundle, monkeypatch, together, fails_at, opened, closed
):
    doors = Doors(together, fails_at)
    monkeypatch.setattr(choice, "find_backends", lambda _: iter([doors]))
    with pytest.raises(BackendError, match=f"no {fails_at}"):
        load(toy_bundle)
    if together:
        opened, closed = {"encoder", "decoder"}, {"encoder", "decoder"} - {fails_at}
        assert (set(doors.opened), set(doors.closed)) == (opened, closed)
    else:
        assert (doors.opened, doors.closed) == (opened, closed)
