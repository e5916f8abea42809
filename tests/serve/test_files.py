"""What the server sends, and what it does not."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_edge.bundle.bundle import open_bundle
from sam_edge.bundle.manifest import read_manifest, write_manifest
from sam_edge.errors import BundleError, ServeError
from sam_edge.models.photos import HERE, PHOTOS
from sam_edge.serve import site
from sam_edge.serve.app import make_app
from sam_edge.serve.site import page_files, page_variants
from tests.support.asgi import ask


def test_the_page_and_its_files(serve, page):
    app = serve()
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/assets/main.mjs", "text/javascript; charset=utf-8"),
        ("/assets/ort.wasm", "application/wasm"),
    ):
        answer = ask(app, "GET", path)
        assert answer.status == 200 and answer.headers["content-type"] == kind
        assert answer.body == (page / (path[1:] or "index.html")).read_bytes()


def test_what_the_page_asks_first(serve, exported):
    answer = ask(serve(encode="server"), "GET", "/config.json").json
    assert answer["encode"] == "server" and answer["variants"] == ["onnx-fp32"]
    assert answer["model_id"] == read_manifest(exported).model_id
    assert answer["max_body_bytes"] > 0 and answer["max_image_pixels"] > 0
    assert [sample["name"] for sample in answer["samples"]] == [name.partition(".")[0] for name in PHOTOS]
    for sample in answer["samples"]:
        sent = ask(serve(), "GET", f"/{sample['path']}")
        assert sent.body == (HERE / f"{sample['name']}.jpg").read_bytes()
        assert sent.headers["content-type"] == "image/jpeg"


def test_the_manifest_is_the_bundles(serve, exported):
    assert ask(serve(), "GET", "/bundle/manifest.json").json == json.loads(
        (exported / "manifest.json").read_text("utf-8")
    )


def test_every_file_of_the_manifest_with_its_hash_as_tag(serve, exported):
    app = serve()
    variant = read_manifest(exported).variants[0]
    for file in [read_manifest(exported).golden, *variant.files]:
        path, tag = f"/bundle/{file.path}", f'"{file.sha256}"'
        plain = ask(app, "GET", path)
        assert plain.body == (exported / file.path).read_bytes()
        assert plain.headers["etag"] == tag and plain.headers["cache-control"] == "no-cache"
        hashed = ask(app, "GET", path, query=f"sha256={file.sha256}")
        assert hashed.body == plain.body and "immutable" in hashed.headers["cache-control"]
        known = ask(app, "GET", path, [("if-none-match", f'"x", {tag}')])
        assert (known.status, known.body) == (304, b"")
        assert ask(app, "GET", path, query="sha256=0").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/config.json", 200),
        ("GET", "/bundle/golden.npz", 200),
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("DELETE", "/config.json", 405),
        ("GET", "/embeddings", 405),
        ("POST", "/embeddings", 404),
    ],
)
def test_headers_of_every_answer(serve, method, path, status):
    answer = ask(serve(encode="page"), method, path)
    assert answer.status == status
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'" and policy["default-src"] == "'none'"
    if status >= 400:
        assert answer.json["error"]


def test_no_file_that_the_manifest_does_not_list(serve, bundle):
    (bundle / "notes.txt").write_text("private")
    app = serve(bundle)
    for path in (
        "/bundle/notes.txt",
        "/bundle",
        "/bundle/",
        "/bundle/onnx-fp32",
        "/bundle/onnx-fp32/",
        "/assets",
    ):
        assert ask(app, "GET", path).status == 404, path


SEGMENTS = [
    "..",
    ".",
    "",
    "%2e%2e",
    "bundle",
    "page",
    "assets",
    "samples",
    "secret.txt",
    "etc",
    "passwd",
    "~",
]


@given(
    st.lists(st.sampled_from(SEGMENTS) | st.text(max_size=4), max_size=7),
    st.sampled_from(["/", "//", "\\", "/./", "\0", "%2f"]),
)
@settings(max_examples=300)
def test_no_path_leads_out(lair, segments, separator):
    app, allowed = lair
    answer = ask(app, "GET", "/" + separator.join(segments).encode("utf-8", "replace").decode())
    assert answer.status == 404 or answer.body in allowed


@pytest.fixture(scope="module")
def lair(exported, tmp_path_factory):
    """An application between secret files, and all that it may send."""
    folder = tmp_path_factory.mktemp("lair")
    (folder / "secret.txt").write_text("secret")
    (folder / "page" / "assets").mkdir(parents=True)
    (folder / "page" / "index.html").write_text("page")
    bundle = open_bundle(shutil.copytree(exported, folder / "bundle"))
    (folder / "bundle" / "secret.txt").write_text("secret")
    (folder / "page" / "secret.txt").symlink_to(folder / "secret.txt")
    return make_app(bundle, None, "page", page_variants(bundle), folder / "page"), {b"page"}


def test_links_that_leave_are_not_followed(serve, page, bundle, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.js").write_text("secret")
    (page / "x.js").symlink_to(outside / "x.js")
    (page / "more").symlink_to(outside)
    app = serve(bundle)
    assert ask(app, "GET", "/x.js").status == ask(app, "GET", "/more/x.js").status == 404
    # The very file, but from elsewhere.
    shutil.move(bundle / "golden.npz", outside / "golden.npz")
    (bundle / "golden.npz").symlink_to(outside / "golden.npz")
    refused = ask(app, "GET", "/bundle/golden.npz")
    assert refused.status == 500 and "link" in refused.json["error"]


def test_a_model_truncated_since_is_named_and_the_server_goes_on(serve, bundle):
    app = serve(bundle)
    encoder = bundle / "onnx-fp32" / "encoder.onnx"
    whole = encoder.read_bytes()
    assert ask(app, "GET", "/bundle/onnx-fp32/encoder.onnx").status == 200
    for damaged in (whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        encoder.write_bytes(damaged)
        answer = ask(app, "GET", "/bundle/onnx-fp32/encoder.onnx")
        assert answer.status == 500 and "onnx-fp32/encoder.onnx" in answer.json["error"]
        assert ask(app, "GET", "/bundle/onnx-fp32/decoder.onnx").status == 200
    encoder.unlink()
    assert "missing" in ask(app, "GET", "/bundle/onnx-fp32/encoder.onnx").json["error"]
    encoder.write_bytes(whole)
    assert ask(app, "GET", "/bundle/onnx-fp32/encoder.onnx").body == whole


def test_a_part_of_a_file(serve, exported):
    answer = ask(serve(), "GET", "/bundle/golden.npz", [("range", "bytes=2-5")])
    assert answer.status == 206 and answer.body == (exported / "golden.npz").read_bytes()[2:6]


def test_a_page_that_is_not_built(tmp_path):
    with pytest.raises(ServeError, match="make web"):
        page_files(tmp_path)


def test_the_page_runs_onnx_only(bundle):
    opened = open_bundle(bundle)
    assert [variant.id for variant in page_variants(opened, "fp32")] == ["onnx-fp32"]
    with pytest.raises(BundleError, match="no ONNX variant of precision int8"):
        page_variants(opened, "int8")
    data = opened.manifest.data
    data["variants"][0] |= {"id": "coreml-fp32", "format": "coreml", "opset": None}
    write_manifest(bundle, data)
    with pytest.raises(BundleError, match=r"no ONNX variant, .* it has coreml-fp32"):
        page_variants(open_bundle(bundle))


def test_the_page_is_of_the_source_tree_or_of_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "_BUILT", tmp_path / "tree")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sam_edge_page").mkdir()
    assert site.find_page() == tmp_path / "sam_edge_page"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "index.html").touch()
    assert site.find_page() == tmp_path / "tree"
