"""The cache of compiled graphs: loads from it give the same answers, whatever else its folder holds."""

import binascii
import json
import multiprocessing
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import sam_edge
from sam_edge import OutputError, SamEdgeWarning, load
from sam_edge.backends import Backend, Session, get_backend
from sam_edge.backends.compile_cache import CompileCache, WorkingCopy, checksum
from sam_edge.backends.openvino import no_telemetry
from tests.support import PATIENCE, toy

with no_telemetry():
    import openvino as ov

POINTS = [[40, 24], [9, 9]]


@pytest.fixture(scope="module")
def both(toy_bundle, tmp_path_factory):
    """The toy bundle with an OpenVINO variant."""
    root = Path(shutil.copytree(toy_bundle, tmp_path_factory.mktemp("both") / "bundle"))
    (root / "openvino-fp32").mkdir()
    for name in toy.PARTS:
        model = ov.Core().read_model(root / f"onnx-fp32/{name}.onnx")
        ov.save_model(model, root / f"openvino-fp32/{name}.xml", compress_to_fp16=False)

    def change(data):
        text = json.dumps(data["variants"][0]).replace("onnx-fp32", "openvino-fp32").replace(".onnx", ".xml")
        variant = {**json.loads(text), "format": "openvino", "opset": None}
        names = (f"openvino-fp32/{n}.{kind}" for n in toy.PARTS for kind in ("xml", "bin"))
        variant["files"] = [toy._file(root, name) for name in names]
        data["variants"].append(variant)

    toy.rewrite_manifest(root, change)
    return root


def answer(bundle, **given):
    with load(bundle, **given) as sam:
        embedding = sam.encode(toy.picture())
        return sam.predict(embedding, POINTS).low_res_logits, sam.predict(
            embedding, boxes=[1, 2, 30, 40]
        ).scores


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def entries(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


BACKENDS = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_second_load_takes_what_the_first_kept(both, tmp_path, backend):
    cold = answer(both, backend=backend)
    cache = tmp_path / "made" / "cache"
    first = answer(both, backend=backend, cache_dir=cache)
    kept = entries(cache)
    assert len(kept) == 2 and all(name.startswith(f"{backend}-") for name in kept)
    second = answer(both, backend=backend, cache_dir=cache)
    assert entries(cache) == kept
    assert same(first, cold) and same(second, cold)
    # Threads do not matter, a copy of the bundle is the same bundle.
    answer(both, backend=backend, cache_dir=str(cache), threads=1)
    moved = shutil.copytree(both, tmp_path / "moved")
    answer(moved, backend=backend, cache_dir=cache)
    assert entries(cache) == kept


def test_openvino_does_not_compile_again(both, tmp_path, monkeypatch):
    answer(both, backend="openvino", cache_dir=tmp_path)
    monkeypatch.setattr(ov.Core, "compile_model", None)
    answer(both, backend="openvino", cache_dir=tmp_path)


def test_onnx_runtime_reads_the_optimised_graph(both, tmp_path, monkeypatch):
    answer(both, cache_dir=tmp_path)
    real, opened = onnxruntime.InferenceSession, []

    def session(path, options, **given):
        opened.append((Path(path), options.graph_optimization_level))
        return real(path, options, **given)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    answer(both, cache_dir=tmp_path)
    off = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert len(opened) == 2
    assert all(path.is_relative_to(tmp_path) and level == off for path, level in opened)


def test_where_nodes_run_is_said_from_the_cache_too(both, tmp_path):
    placements = []
    for cache in (None, tmp_path, tmp_path):
        with load(both, backend="onnxruntime", cache_dir=cache) as sam:
            placements.append((sam.placement, sam.compute_placement))
    assert placements[0] == placements[1] == placements[2]
    assert placements[2][0]["decoder"]["CPUExecutionProvider"] > 5


def test_an_open_session_does_without_its_entry(both, tmp_path):
    """It maps the file, which may be replaced or removed meanwhile."""
    cold = answer(both, backend="onnxruntime")
    answer(both, backend="onnxruntime", cache_dir=tmp_path / "cache")
    with load(both, backend="onnxruntime", cache_dir=tmp_path / "cache") as sam:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        assert np.array_equal(sam.predict(sam.encode(toy.picture()), POINTS).low_res_logits, cold[0])


def test_graphs_that_are_mostly_weights_are_read_as_ever(both, tmp_path, monkeypatch):
    monkeypatch.setattr("sam_edge.backends.onnxruntime.session._MAX_CACHED_BYTES", 1000)
    answer(both, cache_dir=tmp_path)
    # The toy's encoder is smaller, its decoder larger.
    assert len(entries(tmp_path)) == 1


def damage(entry, kind):
    """Spoil an entry."""
    data = max((p for p in entry.iterdir() if p.name != "entry.json"), key=lambda p: p.stat().st_size)
    sidecar = entry / "entry.json"
    if kind == "flipped":
        whole = bytearray(data.read_bytes())
        whole[len(whole) // 2] ^= 1
        data.write_bytes(whole)
    elif kind == "cut short":
        data.write_bytes(data.read_bytes()[:-9])
    elif kind == "empty":
        data.write_bytes(b"")
    elif kind == "gone":
        data.unlink()
    elif kind == "one more":
        (entry / "other.bin").write_bytes(b"1")
    elif kind == "no hashes":
        sidecar.unlink()
    elif kind == "hashes of nothing":
        sidecar.write_text("{}")
    elif kind == "no JSON":
        sidecar.write_bytes(b"\xff\x00")
    elif kind == "a file":
        shutil.rmtree(entry)
        entry.write_text("hello")
    elif kind == "an empty folder":
        shutil.rmtree(entry)
        entry.mkdir()


KINDS = [
    "flipped",
    "cut short",
    "empty",
    "gone",
    "one more",
    "no hashes",
    "hashes of nothing",
    "no JSON",
    "a file",
    "an empty folder",
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_entry_is_made_again(both, tmp_path, backend, kind):
    cold = answer(both, backend=backend, cache_dir=tmp_path)
    kept = entries(tmp_path)
    for entry in list(tmp_path.iterdir()):
        damage(entry, kind)
    assert same(answer(both, backend=backend, cache_dir=tmp_path), cold)
    made = entries(tmp_path)
    assert made.keys() == kept.keys() and all(made[name] != kept[name] for name in kept)
    assert same(answer(both, backend=backend, cache_dir=tmp_path), cold)
    assert entries(tmp_path) == made


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_entry_of_another_graph_is_not_taken(both, tmp_path, backend):
    cold = answer(both, backend=backend, cache_dir=tmp_path)
    one, other = tmp_path.iterdir()
    held = one.rename(tmp_path / "held")
    other.rename(one)
    held.rename(other)
    assert same(answer(both, backend=backend, cache_dir=tmp_path), cold)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_whole_entry_that_the_runtime_refuses(both, tmp_path, backend):
    """As one of a runtime that changed without changing its version."""
    cold = answer(both, backend=backend, cache_dir=tmp_path)
    for entry in tmp_path.iterdir():
        sidecar = json.loads((entry / "entry.json").read_text())
        for name in sidecar["files"]:
            (entry / name).write_bytes(b"no graph")
            sidecar["files"][name] = checksum(entry / name)
        (entry / "entry.json").write_text(json.dumps(sidecar))
    assert same(answer(both, backend=backend, cache_dir=tmp_path), cold)


def test_what_an_entry_depends_on(both, tmp_path, monkeypatch):
    answer(both, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 2
    monkeypatch.setattr(onnxruntime, "__version__", "9.9.9")
    answer(both, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 4
    monkeypatch.setattr("sam_edge.backends.onnxruntime.session.processor_id", lambda: "another")
    answer(both, cache_dir=tmp_path)
    assert len(entries(tmp_path)) == 6


def test_a_changed_bundle_is_another(both, tmp_path):
    bundle = Path(shutil.copytree(both, tmp_path / "bundle"))
    cache = tmp_path / "cache"
    unchecked = {"cache_dir": cache, "check_integrity": False}
    before = answer(bundle, **unchecked)
    path = bundle / "onnx-fp32/decoder.onnx"
    whole = path.read_bytes()
    changed = whole.replace(np.float32(0.25).tobytes(), np.float32(0.75).tobytes())
    assert changed != whole
    path.write_bytes(changed)
    with pytest.raises(sam_edge.IntegrityError):
        load(bundle, cache_dir=cache)
    assert not same(answer(bundle, **unchecked), before)
    assert same(answer(bundle, **unchecked), answer(bundle, check_integrity=False))


def test_graphs_that_are_in_the_cache_are_neither_read_nor_compared(both, tmp_path):
    """And every other file is compared before it is read: those of everything-mode later."""
    bundle = Path(shutil.copytree(both, tmp_path / "bundle"))
    cache = tmp_path / "cache"
    before = answer(bundle, cache_dir=cache)
    (bundle / "onnx-fp32/encoder.onnx").write_bytes(b"damaged")
    assert same(answer(bundle, cache_dir=cache), before)
    with load(bundle, cache_dir=cache) as sam:
        embedding = sam.encode(toy.picture())
        with pytest.raises(sam_edge.IntegrityError, match=r"encoder\.onnx is not the file"):
            list(sam._candidates(embedding, np.array([[40.0, 24.0]]), 1e-6))
    with pytest.raises(sam_edge.IntegrityError):
        load(bundle)
    with pytest.raises(sam_edge.IntegrityError):
        load(bundle, cache_dir=tmp_path / "another")
    for entry in cache.iterdir():
        damage(entry, "flipped")
    with pytest.raises(sam_edge.IntegrityError):
        load(bundle, cache_dir=cache)


def test_openvino_reads_graphs_and_so_compares_them(both, tmp_path):
    bundle = Path(shutil.copytree(both, tmp_path / "bundle"))
    cache = tmp_path / "cache"
    answer(bundle, backend="openvino", cache_dir=cache)
    (bundle / "openvino-fp32/decoder.bin").write_bytes(b"damaged")
    with pytest.raises(sam_edge.IntegrityError):
        load(bundle, backend="openvino", cache_dir=cache)


def _process(bundle, cache, results):
    results.put(answer(bundle, cache_dir=cache))


def test_processes_that_start_together(both, tmp_path):
    cold = answer(both)
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        results = context.Queue()
        processes = [context.Process(target=_process, args=(both, tmp_path, results)) for _ in range(4)]
        for process in processes:
            process.start()
        answers = [results.get(timeout=PATIENCE) for _ in processes]
        for process in processes:
            process.join()
        assert all(same(one, cold) for one in answers)
        assert len(entries(tmp_path)) == 2


def test_a_place_that_is_no_directory(both, tmp_path):
    (tmp_path / "file").write_text("hello")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot use .* as a cache"):
            load(both, cache_dir=place)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_directory_that_cannot_be_written(both, tmp_path, monkeypatch, backend):
    cold = answer(both, backend=backend)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.warns(SamEdgeWarning, match="No space left on device.*loaded without"):
        warm = answer(both, backend=backend, cache_dir=tmp_path)
    assert same(warm, cold) and not list(tmp_path.iterdir())


def test_a_full_one_that_is_read_only(both, tmp_path, monkeypatch):
    cold = answer(both, cache_dir=tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with warnings.catch_warnings(action="error"):
        assert same(answer(both, cache_dir=tmp_path), cold)


def test_what_others_keep_in_the_directory_stays(both, tmp_path):
    import os

    old = tmp_path / ".config"
    old.mkdir()
    (old / "mine").write_text("mine")
    left = tmp_path / ".sam-edge-partial.x"
    left.mkdir()
    fresh = tmp_path / ".sam-edge-partial.y"
    fresh.mkdir()
    for folder in (old, left):
        os.utime(folder, (0, 0))
    answer(both, cache_dir=tmp_path)
    assert (old / "mine").read_text() == "mine" and not left.exists() and fresh.exists()


def test_the_environment_and_the_command_line(both, tmp_path, monkeypatch, capsys):
    from PIL import Image

    from sam_edge.cli import main

    Image.fromarray(toy.picture()).save(tmp_path / "photo.png")
    command = ["predict", str(both), str(tmp_path / "photo.png"), "--point", "40,24", "--json"]
    assert main(command) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--cache", str(tmp_path / "one")]) == 0
    assert capsys.readouterr() == (expected, "") and len(entries(tmp_path / "one")) == 2
    monkeypatch.setenv("SAM_EDGE_CACHE", str(tmp_path / "two"))
    assert main(command) == 0 and main(["verify", str(both)]) == 0
    assert len(entries(tmp_path / "two")) >= 4
    load(both, cache_dir=tmp_path / "three").close()
    assert len(entries(tmp_path / "three")) == 2
    monkeypatch.setenv("SAM_EDGE_CACHE", "")
    capsys.readouterr()
    assert main([*command, "--cache", str(tmp_path / "photo.png")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: cannot use") and printed.err.count("\n") == 1
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: 1 / 0)
    assert main([*command, "--cache", str(tmp_path / "four")]) == 0
    printed = capsys.readouterr()
    assert printed.out == expected
    assert all(line.startswith("warning: nothing was stored") for line in printed.err.splitlines())


def test_no_directory_unless_it_is_asked_for(both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for backend in BACKENDS:
        answer(both, backend=backend)
    assert not list(tmp_path.iterdir())


def test_a_provider_with_a_cache_of_its_own(both, tmp_path, monkeypatch):
    """As TensorRT: engines that come and go in a folder which its options name."""
    real, seen = onnxruntime.InferenceSession, []

    class Session:
        def __init__(self, path, options, providers, **_):
            self._real = real(path, providers=["CPUExecutionProvider"])
            folder = Path(providers[0][1]["trt_engine_cache_path"])
            assert providers[0][1]["trt_engine_cache_enable"] == "True"
            seen.append(sorted(p.name for p in folder.iterdir()))
            (folder / "a.engine").write_bytes(b"engine of " + Path(path).name.encode())
            self._folder = folder

        def get_providers(self):
            return ["TensorrtExecutionProvider", "CPUExecutionProvider"]

        def get_outputs(self):
            return self._real.get_outputs()

        def run(self, *given):
            # A shape that it had not seen before.
            (self._folder / "b.engine").write_bytes(b"another")
            return self._real.run(*given)

    names = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    cold = answer(both, device="tensorrt", cache_dir=tmp_path / "cache")
    assert seen == [[], []]
    answer(both, device="tensorrt", cache_dir=tmp_path / "cache")
    assert seen[2:] == [["a.engine", "b.engine"]] * 2
    for entry in (tmp_path / "cache").iterdir():
        (entry / "a.engine").write_bytes(b"damaged")
    assert same(answer(both, device="tensorrt", cache_dir=tmp_path / "cache"), cold)
    assert seen[4:] == [[], []]


def test_a_working_folder_goes_when_it_is_closed(tmp_path):
    folder = WorkingCopy(CompileCache(tmp_path, "graph"), "some", "facts")
    (folder.path / "below").mkdir()
    (folder.path / "below" / "file").write_text("1")
    folder.close()
    assert not folder.path.exists()
    again = WorkingCopy(CompileCache(tmp_path, "graph"), "some", "facts")
    assert (again.path / "below" / "file").read_text() == "1"
    before = entries(tmp_path)
    again.close()
    assert entries(tmp_path) == before


def test_core_ml_on_a_mac(tmp_path, monkeypatch):
    """With a stand-in for coremltools: a package is compiled once."""
    import types

    from sam_edge.backends import coreml

    compiled = []

    class Model:
        def __init__(self, path, compute_units):
            compiled.append(path)
            self._place = tmp_path / f"temporary{len(compiled)}.mlmodelc"
            self._place.mkdir()
            (self._place / "weights").write_text("compiled")

        def get_compiled_model_path(self):
            return str(self._place)

    class Compiled:
        def __init__(self, path, compute_units):
            assert (Path(path) / "weights").read_text() == "compiled"

    models = types.SimpleNamespace(MLModel=Model, CompiledMLModel=Compiled)
    ct = types.SimpleNamespace(
        models=models, __version__="9", ComputeUnit=types.SimpleNamespace(CPU_ONLY="cpu")
    )
    spec = types.SimpleNamespace(description=types.SimpleNamespace(input=[]))
    monkeypatch.setattr(coreml, "import_coremltools", lambda: ct)
    monkeypatch.setattr(coreml, "read_spec", lambda path: spec)
    monkeypatch.setattr(coreml, "_mac_devices", lambda: {"cpu"})
    monkeypatch.setattr(coreml, "_operations_on", lambda *_: (5, 6))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(coreml.importlib.util, "find_spec", lambda name: True)
    warm = CompileCache(tmp_path / "cache", "graph")
    for _ in range(3):
        session = coreml.BACKEND.open_cached(tmp_path / "x.mlpackage", "cpu", None, warm)
        assert session.placement == {"cpu": 5, "elsewhere": 1}
    assert len(compiled) == 1
    coreml.BACKEND.open(tmp_path / "x.mlpackage", "cpu", None)
    assert len(compiled) == 2


def test_a_backend_without_a_cache_is_opened_as_ever(toy_bundle, tmp_path):
    class Plain(Backend):
        name, formats = "plain", ("onnx",)

        def open(self, path, device, threads):
            return Session(lambda inputs: inputs, "cpu")

    warm = CompileCache(tmp_path, "graph")
    assert Plain().open_cached(Path("x"), "cpu", None, warm).device == "cpu"
    assert get_backend("mock").open_cached(toy_bundle / "onnx-fp32/encoder.onnx", "cpu", None, warm)


def test_the_checksum_of_large_files(tmp_path):
    """Any change anywhere, and any length, shows; and it is the CRC-32 that others compute."""
    path = tmp_path / "large"
    whole = np.random.default_rng(0).integers(0, 256, (1 << 20) + 5, np.uint8)
    seen = set()
    for length in (0, 1, 1 << 18, (1 << 18) + 1, 1 << 19, len(whole)):
        path.write_bytes(whole[:length].tobytes())
        seen.add(checksum(path))
    assert checksum(path) == f"{len(whole)}-{binascii.crc32(whole.tobytes()):08x}"
    for where in (0, 1 << 18, len(whole) - 1):
        whole[where] ^= 1
        path.write_bytes(whole.tobytes())
        seen.add(checksum(path))
        whole[where] ^= 1
    assert len(seen) == 9
