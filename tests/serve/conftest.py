"""A server of the default bundle and a stand-in for the built page."""

import pytest

from sam_edge.bundle.bundle import open_bundle
from sam_edge.serve.app import make_app
from sam_edge.serve.guard import Guard, allowed_hosts
from sam_edge.serve.site import page_variants


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "page"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>stand-in</title>")
    (folder / "assets" / "main.mjs").write_text("export {};")
    (folder / "assets" / "ort.wasm").write_bytes(b"\0asm")
    return folder


@pytest.fixture
def serve(page, exported):
    """Makes the whole application of a bundle."""

    def make(path=exported, sam=None, encode="both", host="127.0.0.1", **more):
        bundle = open_bundle(path)
        app = make_app(bundle, sam, encode, page_variants(bundle), page, **more)
        return Guard(app, *allowed_hosts(host))

    return make
