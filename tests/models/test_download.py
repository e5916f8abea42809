"""`sam-edge download` from a local server that stops halfway, sends the wrong file, or is down."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sam_edge.cli import main
from sam_edge.models.catalogue import CATALOGUE
from sam_edge.system.install import install_command

CONTENT = bytes(i * i % 251 for i in range(3_000_000))
SHA = hashlib.sha256(CONTENT).hexdigest()
NAME = "vit_b"
FILE = CATALOGUE[NAME].checkpoint.file


class Handler(BaseHTTPRequestHandler):
    """One file; `server` says how it is served."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            )
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A client that refuses the size hangs up while this is still writing.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[: server.stop])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def without_a_proxy(monkeypatch):
    """Whatever the environment names: nothing here is to be asked of one."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT at its `url`; the catalogue's vit_b is fetched from there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.stop, server.ranges, server.length, server.asked = (
            CONTENT,
            None,
            True,
            True,
            [],
        )
        server.url = f"http://127.0.0.1:{server.server_port}/file"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        published(monkeypatch, url=server.url)
        yield server
        server.shutdown()


def published(monkeypatch, **changes):
    """Let the catalogue say so of the checkpoint."""
    model = CATALOGUE[NAME]
    fields = {"bytes": len(CONTENT), "sha256": SHA, **changes}
    checkpoint = replace(model.checkpoint, **fields)
    monkeypatch.setitem(CATALOGUE, NAME, replace(model, checkpoint=checkpoint))


def refused(capsys, tmp_path, says, code=1, name=NAME, left=()):
    """One clear line, and in the directory only what is `left`."""
    assert main(["download", name, "--to", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and not out, err
    assert says in err
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == dict(left)
    return err


def fetched(capsys, tmp_path):
    assert main(["download", NAME, "--to", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    # pytest's stderr is no terminal: no progress.
    assert not err and str(tmp_path / FILE) in out
    assert (tmp_path / FILE).read_bytes() == CONTENT
    assert os.listdir(tmp_path) == [FILE]
    return out


def test_a_checkpoint_is_fetched_once(server, capsys, tmp_path):
    assert "sha256 is correct" in fetched(capsys, tmp_path)
    assert f"sam-edge export {NAME} --checkpoint" in fetched(capsys, tmp_path)
    assert server.asked == [None]


def test_json(server, capsys, tmp_path):
    assert main(["download", NAME, "--to", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "model": NAME,
        "path": str(tmp_path / FILE),
        "bytes": len(CONTENT),
        "checked": True,
    }


def test_a_transfer_that_stops_is_resumed(server, capsys, tmp_path):
    server.stop = 1_048_576
    left = {f"{FILE}.part": 1_048_576}
    says = "stopped after 1048576 of 3000000 bytes"
    assert "the same command resumes there" in refused(capsys, tmp_path, says, left=left)
    server.stop = 524_288
    refused(capsys, tmp_path, "stopped after 1572864 of", left={f"{FILE}.part": 1_572_864})
    server.stop = None
    fetched(capsys, tmp_path)
    assert server.asked == [None, "bytes=1048576-", "bytes=1572864-"]


def test_without_a_length_the_catalogues_tells_that_it_stopped(server, capsys, tmp_path):
    server.length, server.stop = False, 1_048_576
    refused(capsys, tmp_path, "stopped after 1048576 of 3000000", left={f"{FILE}.part": 1_048_576})


def test_a_server_without_ranges_starts_anew(server, capsys, tmp_path):
    server.ranges = False
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT[:1000])
    fetched(capsys, tmp_path)


def test_a_complete_part_only_needs_its_name(server, capsys, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT)
    fetched(capsys, tmp_path)


def test_a_part_longer_than_the_file_starts_anew(server, capsys, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT + b"more")
    fetched(capsys, tmp_path)
    assert server.asked[-1] is None


def test_a_part_of_another_file(server, capsys, tmp_path):
    (tmp_path / f"{FILE}.part").write_bytes(b"other")
    assert SHA in refused(capsys, tmp_path, "the download was removed")
    fetched(capsys, tmp_path)


def test_a_wrong_hash(server, monkeypatch, capsys, tmp_path):
    published(monkeypatch, url=server.url, sha256="0" * 64)
    refused(capsys, tmp_path, f"has the sha256 {SHA} instead of {'0' * 64} (recorded by third party)")


def test_a_wrong_size_is_not_fetched(server, monkeypatch, capsys, tmp_path):
    published(monkeypatch, url=server.url, bytes=7)
    refused(capsys, tmp_path, "has 3000000 bytes instead of 7; nothing was downloaded")


def test_without_a_hash_nothing_is_resumed_and_it_says_so(server, monkeypatch, capsys, tmp_path):
    published(monkeypatch, url=server.url, sha256=None, bytes=None)
    (tmp_path / f"{FILE}.part").write_bytes(b"other")
    server.stop = 1_048_576
    refused(capsys, tmp_path, "the same command starts again")
    server.stop = None
    assert "not checked: no hash" in fetched(capsys, tmp_path)
    assert server.asked == [None, None]


def test_a_page_that_is_not_there(server, monkeypatch, capsys, tmp_path):
    published(monkeypatch, url=server.url + "-gone")
    refused(capsys, tmp_path, "answered 404 Not Found; see https://github.com/")


def test_a_server_that_is_down(server, monkeypatch, capsys, tmp_path):
    server.shutdown()
    server.server_close()
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT[:9])
    refused(capsys, tmp_path, f"cannot download {server.url}: ", left={f"{FILE}.part": 9})


def test_a_host_that_is_not_known(monkeypatch, capsys, tmp_path):
    published(monkeypatch, url="http://no-such-host.invalid/file")
    refused(capsys, tmp_path, "cannot download http://no-such-host.invalid/file: ")


def test_another_file_of_that_name_is_left_alone(server, capsys, tmp_path):
    (tmp_path / FILE).write_bytes(b"mine")
    refused(capsys, tmp_path, "4 bytes instead of 3000000; move it away", 2, left={FILE: 4})
    assert not server.asked


def test_nothing_to_fetch(capsys, tmp_path):
    refused(capsys, tmp_path, "nothing to download", 2, "sam_edge_tiny")
    refused(capsys, tmp_path, "unknown model 'vit_x'; known: sam_edge_tiny,", 2, "vit_x")


def test_no_address(monkeypatch, capsys, tmp_path):
    published(monkeypatch, url=None)
    refused(capsys, tmp_path, "get it from https://github.com/facebookresearch/", 2)


def test_a_place_that_cannot_be_written(server, capsys, tmp_path):
    for place in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        assert main(["download", NAME, "--to", str(place)]) == 2
        assert "is not a directory" in capsys.readouterr().err
    (tmp_path / "file").unlink()
    (tmp_path / f"{FILE}.part").mkdir()
    assert main(["download", NAME, "--to", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_without_requests_the_extra_is_named(tmp_path):
    code = "import sys; sys.modules['requests'] = None; from sam_edge.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "download", NAME], capture_output=True, text=True)
    assert done.returncode == 2 and install_command("export") in done.stderr


def test_progress_on_a_terminal(server, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["download", NAME, "--to", str(tmp_path)]) == 0
    assert f"{FILE} 3.0 of 3.0 MB, 100%" in capsys.readouterr().err


def test_every_address_is_of_the_catalogues_file():
    for model in CATALOGUE.values():
        url = model.checkpoint.url
        assert url is None or (url.startswith("https://") and url.endswith(f"/{model.checkpoint.file}"))
    assert CATALOGUE["vit_b"].checkpoint.url
