"""Pictures sent to the server: their embeddings, or what is wrong with them."""

import asyncio
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load as load_safetensors

import sam_edge
from sam_edge.errors import BackendError
from sam_edge.imaging.io import read_image
from sam_edge.serve.site import Limits
from sam_edge.testing import mock_sam
from tests.support.asgi import HeldSam, ask, asked, post

SMALL = ("content-type", "image/png")


def picture(width=40, height=30, form="PNG", mode="RGB", **more):
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise[..., : 4 if "A" in mode else 3]).convert(mode).save(buffer, form, **more)
    return buffer.getvalue()


def png_of(width, height):
    """A PNG that says it is so large, and ends there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return head + struct.pack(">I", 100) + b"IDAT"


@pytest.fixture(scope="module")
def sam(exported):
    with sam_edge.load(exported) as loaded:
        yield loaded


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    return picture(60, 40, "JPEG", exif=exif)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("photo.jpg", None),
        ("turned.jpg", turned()),
        ("alpha.png", picture(mode="RGBA")),
        ("palette.png", picture(mode="P")),
        ("grey.webp", picture(form="WEBP", mode="L")),
    ],
)
def test_the_embedding_is_that_of_the_runtime_to_the_bit(serve, sam, photo, tmp_path, name, body):
    body = photo.read_bytes() if body is None else body
    answer = post(serve(sam=sam), body, "application/octet-stream")
    assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream"
    path = tmp_path / name
    path.write_bytes(body)
    image = read_image(path)  # as `sam-edge predict` does
    expected = sam.encode(image).arrays
    found = load_safetensors(answer.body)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == np.float32 and np.array_equal(found[key], array)
    length = int.from_bytes(answer.body[:8], "little")
    header = answer.body[8 : 8 + length]
    height, width = image.shape[:2]
    for text in (f'"original_height":"{height}"', f'"original_width":"{width}"', sam.manifest.model_id):
        assert text.encode() in header
    assert (8 + length) % 8 == 0


def test_several_embeddings_of_one_model(serve):
    """As of SAM 2, whose encoder makes more than one."""
    sam = mock_sam(64)
    encode = sam.encode
    more = {"high_res": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}

    def both(image):
        found = encode(image)
        found.extra_embeddings.update(more)
        return found

    sam.encode = both
    found = load_safetensors(post(serve(sam=sam), picture()).body)
    assert found.keys() == {"image_embeddings", "high_res"}
    assert np.array_equal(found["high_res"], more["high_res"])


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"", "image/jpeg", 400, "empty"),
        (b"This is a text.\n" * 50, "image/jpeg", 400, "unknown format"),
        (picture(200, form="JPEG")[:3000], "image/jpeg", 400, "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/x-eps", 400, "JPEG, PNG"),
        (b"hello", "text/plain", 415, "text/plain"),
        (b"hello", "multipart/form-data; boundary=x", 415, "multipart"),
        (png_of(20_000, 10_000), "image/png", 413, "megapixels"),
        (png_of(10_000, 9_000), "image/png", 413, "10000 x 9000 pixels, 90 megapixels; the limit is 80"),
        (picture() + bytes(200_000), "image/png", 413, "100000 bytes"),
    ],
    ids=["empty", "text", "cut", "eps", "named text", "form", "200 MP", "90 MP", "long"],
)
def test_what_is_no_picture_is_refused_and_the_server_goes_on(serve, body, kind, status, words):
    app = serve(sam=mock_sam(64), limits=Limits(max_body_bytes=100_000))
    with warnings.catch_warnings(action="ignore"):
        answer = post(app, body, kind)
    assert answer.status == status and words in answer.json["error"]
    assert post(app, picture()).status == 200


def test_a_body_that_says_it_is_too_large_is_not_waited_for(serve):
    app = serve(sam=mock_sam(64), limits=Limits(max_body_bytes=1000))
    answer = post(app, None, headers=[("content-length", "1001")])
    assert answer.status == 413


def test_a_body_that_does_not_come(serve):
    app = serve(sam=mock_sam(64), upload_seconds=0.05, queue_capacity=1)
    assert post(app, None).status == 408
    assert post(app, picture()).status == 200


def test_a_client_that_leaves_while_it_sends(serve):
    app = serve(sam=mock_sam(64), queue_capacity=1)

    async def leaves():
        gone = asyncio.Event()
        gone.set()
        return await asked(app, "POST", "/embeddings", [SMALL], None, gone=gone)

    asyncio.run(leaves())
    assert post(app, picture()).status == 200


def test_a_picture_is_encoded_once(serve):
    sam = HeldSam()
    sam.go.set()
    app = serve(sam=sam)
    first, again, other = (post(app, picture(*seed)) for seed in ((), (), (41,)))
    assert first.status == 200
    first, again, other = (load_safetensors(one.body)["image_embeddings"] for one in (first, again, other))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert sam.began == [(30, 40), (30, 41)]


def test_an_encoder_that_fails(serve):
    sam = mock_sam(64)
    encode = sam.encode

    def fail(image):
        raise BackendError("the runtime refuses")

    def break_(image):
        raise RuntimeError("a bug")

    app = serve(sam=sam)
    sam.encode = fail
    answer = post(app, picture())
    assert (answer.status, answer.json) == (500, {"error": "the runtime refuses"})
    sam.encode = break_
    with pytest.raises(RuntimeError, match="a bug"):  # which the server logs
        post(app, picture())
    sam.encode = encode
    assert post(app, picture()).status == 200


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def send(app, width, gone=None):
    return asyncio.create_task(asked(app, "POST", "/embeddings", [SMALL], picture(width), gone=gone))


def test_past_its_bound_the_queue_refuses(serve):
    sam = HeldSam()
    app = serve(sam=sam, queue_capacity=3)

    async def scenario():
        waiting = [send(app, 10 + i) for i in range(3)]
        await until(lambda: sam.began)
        refused = await send(app, 20)
        assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1
        assert "waiting" in refused.json["error"]
        # The files are sent meanwhile.
        assert (await asked(app, "GET", "/")).status == 200
        sam.go.set()
        assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 3
        assert (await send(app, 20)).status == 200

    asyncio.run(scenario())


def test_who_leaves_the_queue_makes_room_and_costs_nothing(serve):
    sam = HeldSam()
    app = serve(sam=sam, queue_capacity=3)

    async def scenario():
        gone = asyncio.Event()
        first = send(app, 10)
        await until(lambda: sam.began)
        leaver, other = send(app, 11, gone), send(app, 12)
        await until(lambda: app._app.state.server.queue._taken == 3)
        gone.set()
        await leaver
        last = send(app, 13)
        sam.go.set()
        assert [answer.status for answer in await asyncio.gather(first, other, last)] == [200] * 3
        assert sorted(width for _, width in sam.began) == [10, 12, 13]

    asyncio.run(scenario())


def test_the_worker_goes_on_when_the_one_it_works_for_leaves(serve):
    sam = HeldSam()
    app = serve(sam=sam, queue_capacity=2)

    async def scenario():
        gone = asyncio.Event()
        leaver = send(app, 10, gone)
        await until(lambda: sam.began)
        gone.set()
        await leaver
        other = send(app, 11)
        sam.go.set()
        assert (await other).status == 200

    asyncio.run(scenario())


def test_a_server_that_does_not_encode(serve):
    answer = post(serve(encode="page"), picture())
    assert answer.status == 404 and "--encode page" in answer.json["error"]


ORIGIN = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"origin": ORIGIN, "sec-fetch-site": "same-origin"}, 200),
        ({"origin": ORIGIN}, 200),  # an older browser, or plain HTTP to an address
        ({"origin": "http://example.com"}, 403),
        ({"origin": "http://127.0.0.1:8001"}, 403),
        ({"origin": "http://127.0.0.1:8000.example.com"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ORIGIN, "sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
    ],
)
def test_posts_of_other_origins_are_refused(serve, headers, status):
    answer = post(serve(sam=mock_sam(64)), picture(), headers=headers.items())
    assert answer.status == status


@pytest.mark.parametrize(
    ("bound", "host", "ok"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "LOCALHOST:8000", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "rebound.example.com", False),
        ("127.0.0.1", "localhost.example.com", False),
        ("127.0.0.1", "192.168.1.5", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "127.0.0.1:80x", False),
        ("127.0.0.1", "evil@127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1/evil", False),
        ("192.168.1.5", "192.168.1.5:8000", True),
        ("192.168.1.5", "192.168.1.6:8000", False),
        ("box.lan", "box.lan:8000", True),
        ("0.0.0.0", "192.168.1.5:8000", True),
        ("::", "[fd00::1]:8000", True),
        ("0.0.0.0", "rebound.example.com", False),
    ],
)
def test_only_this_servers_names_are_answered(serve, bound, host, ok):
    answer = ask(serve(host=bound), "GET", "/", [("host", host)])
    assert answer.status == (200 if ok else 421)
    assert answer.headers["content-security-policy"]
