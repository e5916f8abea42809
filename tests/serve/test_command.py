"""`sam-edge serve` as it is typed."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors

import sam_edge
from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.manifest import write_manifest
from sam_edge.cli import main
from sam_edge.imaging.io import read_image
from tests.support import PATIENCE


def start(*arguments):
    """The command, once it has printed its URL; and the URL."""
    command = [sys.executable, "-m", "sam_edge", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def fetch(url, body=None, **headers):
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)) as connection:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", parts.path, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_the_command_serves_until_it_is_interrupted(exported, page, photo):
    process, url = start(exported, "--page", page)
    try:
        assert url.startswith("http://127.0.0.1:")
        assert fetch(url) == (200, (page / "index.html").read_bytes())
        status, body = fetch(f"{url}embeddings", photo.read_bytes(), content_type="image/jpeg")
        with sam_edge.load(exported) as sam:
            expected = sam.encode(read_image(photo)).image_embeddings
        assert status == 200 and np.array_equal(load_safetensors(body)["image_embeddings"], expected)
        assert fetch(f"{url}bundle/../../etc/passwd")[0] == 404
        too_much = bytes(2**26 + 2**20)
        status, body = fetch(f"{url}embeddings", too_much, content_type="image/jpeg")
        assert status == 413 and b"make it smaller" in body
        assert fetch(url, host="rebound.example.com")[0] == 421
        # Who leaves in the middle of a picture.
        host, port = url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nhalf")
        assert json.loads(fetch(f"{url}config.json")[1])["encode"] == "both"
    finally:
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and out == ""
    assert error == "encodes with onnx-fp32 (onnxruntime, cpu)\n"


def test_interrupted_while_a_picture_is_encoded(exported, page, photo):
    code = """
import sys
from sam_edge.cli import main
from sam_edge.runtime.sam import Sam
encode = Sam.encode
def held(self, image):
    print("begun", flush=True)
    sys.stdin.read()
    return encode(self, image)
Sam.encode = held
sys.exit(main())
"""
    command = [sys.executable, "-c", code, "serve", str(exported), "--page", str(page), "--port", "0"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, text=True, **pipes)
    url = process.stdout.readline().strip()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(fetch, f"{url}embeddings", photo.read_bytes(), content_type="image/jpeg")
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        status, body = asked.result(PATIENCE)
    assert status == 503 and json.loads(body) == {"error": "the server was stopped"}
    _, error = process.communicate(timeout=PATIENCE)  # which lets the encoder go
    assert process.returncode == 0 and error.count("\n") == 1


def test_without_an_encoder_nothing_is_loaded(exported, page, photo):
    process, url = start(exported, "--page", page, "--encode", "page")
    try:
        assert json.loads(fetch(f"{url}config.json")[1])["encode"] == "page"
        assert fetch(f"{url}embeddings", photo.read_bytes(), content_type="image/jpeg")[0] == 404
    finally:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[1] == ""


def fails(capsys, *arguments):
    """The one line with which the command ends, having served nothing."""
    assert main(["serve", *map(str, arguments)]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_port_in_use(exported, page, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = fails(capsys, exported, "--page", page, "--port", port)
    assert f"port {port}" in error and "in use" in error and "--port" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "expected 0 to 65535"),
        (["--host", "no such host"], "--host no such host"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
        (["--device", "npu"], "npu"),
        (["--precision", "int8"], "no ONNX variant of precision int8"),
        (["--encode", "elsewhere"], "--encode"),
        (["--export", "out", "--encode", "server"], "--encode server"),
    ],
)
def test_wrong_options(exported, page, capsys, arguments, words):
    assert words in fails(capsys, exported, "--page", page, *arguments)


def test_no_bundle_no_page_no_onnx(bundle, page, tmp_path, capsys):
    assert "is not a bundle" in fails(capsys, tmp_path / "none", "--page", page)
    assert "make web" in fails(capsys, bundle, "--page", tmp_path / "none")
    (bundle / "onnx-fp32" / "encoder.onnx").write_bytes(b"")
    assert "encoder.onnx" in fails(capsys, bundle, "--page", page, "--port", "0")
    data = open_bundle(bundle).manifest.data
    data["variants"][0] |= {"id": "openvino-fp32", "format": "openvino", "opset": None}
    write_manifest(bundle, data)
    assert "no ONNX variant" in fails(capsys, bundle, "--page", page)


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "PIL"])
def test_an_extra_that_is_not_installed(exported, page, package):
    code = f"import sys; sys.modules[{package!r}] = None; from sam_edge.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(exported), "--page", str(page), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ") and "sam-edge[serve]" in done.stderr


def test_static_files(exported, page, tmp_path, capsys):
    out = tmp_path / "site"
    for _ in range(2):  # the second replaces the first
        assert main(["serve", str(exported), "--page", str(page), "--export", str(out)]) == 0
        assert "onnx-fp32" in capsys.readouterr().out
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    graphs = {f"bundle/{path}" for path in open_graphs(exported)}
    assert graphs >= {"bundle/onnx-fp32/encoder.onnx", "bundle/onnx-fp32/decoder.onnx"}
    samples = {f"samples/{name}.jpg" for name in ("cat", "coffee", "astronaut", "motorcycle", "rocket")}
    own = {"index.html", "assets/main.mjs", "assets/ort.wasm"}
    assert written == {"config.json", "_headers", "bundle/manifest.json"} | graphs | samples | own
    for path in graphs:
        assert (out / path).read_bytes() == (exported / path.removeprefix("bundle/")).read_bytes()
    told = json.loads((out / "config.json").read_text())
    assert told["encode"] == "page" and told["variants"] == ["onnx-fp32"]
    assert all((out / sample["path"]).is_file() for sample in told["samples"])
    assert open_bundle(out / "bundle").manifest == open_bundle(exported).manifest
    first, *rest = (out / "_headers").read_text().splitlines()
    assert first == "/*" and "  Cross-Origin-Embedder-Policy: require-corp" in rest
    assert sorted(os.listdir(tmp_path)) == ["page", "site"]


def open_graphs(path):
    variant = open_bundle(path).manifest.variants[0]
    return {graph.path for graph in variant.graphs.values()}


def test_static_files_of_a_damaged_bundle_or_over_something_else(bundle, page, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "diary.txt").write_text("dear")
    assert "not an exported page" in fails(capsys, bundle, "--page", page, "--export", out)
    assert os.listdir(out) == ["diary.txt"]
    (bundle / "onnx-fp32" / "decoder.onnx").write_bytes(b"cut")
    assert "decoder.onnx" in fails(capsys, bundle, "--page", page, "--export", tmp_path / "site")
    assert not (tmp_path / "site").exists()
