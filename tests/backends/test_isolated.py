"""Graphs that run in a child process: the same answers, and a crash becomes an error."""

import threading

import numpy as np
import pytest

from sam_edge import BackendError, CrashError, DeviceError
from sam_edge.backends import get_backend
from sam_edge.backends.onnxruntime import isolated
from sam_edge.backends.onnxruntime.isolated import open_isolated
from sam_edge.cli import main
from tests.support import toy

BACKEND = get_backend("onnxruntime")


@pytest.fixture(scope="module")
def encoder(toy_bundle):
    return toy_bundle / "onnx-fp32" / "encoder.onnx"


def opened(path, device="cpu"):
    return open_isolated(path, device=device, threads=1)


def images(value=0.0):
    return {"images": np.full((1, 3, toy.SIDE, toy.SIDE), value, np.float32)}


@pytest.fixture
def processes(monkeypatch):
    """Those that the test starts."""
    started = []
    start = isolated.subprocess.Popen

    def remember(*arguments, **settings):
        started.append(start(*arguments, **settings))
        return started[-1]

    monkeypatch.setattr(isolated.subprocess, "Popen", remember)
    return started


def test_the_same_answers_for_several_threads(encoder):
    session, here = opened(encoder), BACKEND.open(encoder, "cpu", 1)
    assert session.device == here.device and session.placement == here.placement
    wrong = []

    def ask(value):
        for _ in range(20):
            ours, theirs = session.run(images(value)), here.run(images(value))
            if not np.array_equal(ours["image_embeddings"], theirs["image_embeddings"]):
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    assert not wrong


def test_errors_keep_their_class(encoder, tmp_path):
    with pytest.raises(DeviceError, match="unknown device 'abacus'"):
        opened(encoder, "abacus")
    (tmp_path / "encoder.onnx").write_text("not a graph")
    with pytest.raises(BackendError, match="cannot load"):
        opened(tmp_path / "encoder.onnx")
    session = opened(encoder)
    with pytest.raises(BackendError, match="cannot run the graph"):
        session.run({"images": np.zeros((1, 3, 2, 2), np.float32)})
    assert session.run(images())["image_embeddings"].shape == (1, 3, toy.GRID, toy.GRID)
    session.close()


def test_a_process_that_ends_is_an_error_that_says_how(encoder, processes):
    session = opened(encoder)
    processes[0].kill()
    with pytest.raises(CrashError, match=r"SIGKILL.* at onnx-fp32/encoder\.onnx"):
        session.run(images())
    with pytest.raises(CrashError):
        session.run(images())
    session.close()


def test_closing_ends_the_process(encoder, processes):
    session = opened(encoder)
    assert processes[0].poll() is None
    session.close()
    assert processes[0].poll() is not None
    with pytest.raises(BackendError, match="closed"):
        session.run(images())


# A package of a plugin that ends the process which asks it for its library, as a compiler may.
CRASHES = """
import os, sys

def get_library_path():
    print("cannot lower Tile", file=sys.stderr, flush=True)
    os.abort()
"""


def test_a_crash_while_compiling(encoder, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime_qnn.py").write_text(CRASHES)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CrashError, match=r"SIGABRT.*encoder\.onnx.*cannot lower Tile"):
        opened(encoder, "npu")


def test_verify_goes_on_after_a_crash(toy_copy, monkeypatch, capsys):
    """Two variants, of which the first one's graphs end their process."""

    def change(data):
        (one,) = data["variants"]
        data["variants"] = [{**one, "id": "onnx-int8", "precision": "int8"}, one]

    toy.rewrite_manifest(toy_copy, change)
    real, calls = BACKEND.open, []

    def open_(path, device, threads):
        calls.append(path)
        if len(calls) == 1:
            raise CrashError("the compiler ended its process")
        return real(path, device, threads)

    monkeypatch.setattr(BACKEND, "open", open_)
    assert main(["verify", str(toy_copy)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert "onnx-int8      FAILED: the compiler ended its process" in out
    assert any(line.startswith("onnx-fp32") and line.endswith("ok") for line in out)
