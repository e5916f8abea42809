"""The embedding cache: an image is encoded once for all threads, and damaged files on disk do no harm."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sam_edge import EmbeddingCache, ImageEmbedding, ImageError, OutputError, SamEdgeWarning, load
from tests.support import PATIENCE, toy


class Counted:
    """A `Sam` that counts its encodings, of which none goes on before so many have begun."""

    def __init__(self, sam, together=1):
        self.sam, self.manifest, self.variant = sam, sam.manifest, sam.variant
        self.count = 0
        self._begun = threading.Barrier(together)
        self._lock = threading.Lock()

    def encode(self, image):
        with self._lock:
            self.count += 1
        self._begun.wait(PATIENCE)
        return self.sam.encode(image)


@pytest.fixture
def counted(sam):
    return Counted(sam)


def pictures(count):
    return [np.roll(toy.picture(), 5 * i, 1) for i in range(count)]


def test_an_image_is_encoded_once(counted):
    cache = EmbeddingCache()
    one, other = pictures(2)
    first = cache.encode(counted, one)
    assert cache.encode(counted, one.copy()) is first and counted.count == 1
    assert cache.encode(counted, other) is not first and counted.count == 2
    np.testing.assert_array_equal(first.image_embeddings, counted.sam.encode(one).image_embeddings)
    assert len(cache) == 2
    cache.clear()
    cache.encode(counted, one)
    assert counted.count == 3


def test_what_makes_it_another(counted, toy_copy):
    cache = EmbeddingCache()
    image = toy.picture()
    cache.encode(counted, image)
    cache.encode(counted, image.reshape(80, 48, 3))
    assert counted.count == 2
    # The same pixels in another layout are the same image.
    cache.encode(counted, np.asfortranarray(image))
    cache.encode(counted, np.repeat(image, 2, 1)[:, ::2])
    assert counted.count == 2
    toy.rewrite_manifest(toy_copy, lambda data: data["variants"][0].update(id="onnx-other"))
    with load(toy_copy) as other:
        cache.encode(other, image)
    toy.rewrite_manifest(toy_copy, lambda data: data["model"]["checkpoint"].update(sha256="f" * 64))
    with load(toy_copy) as other:
        assert cache.encode(other, image).model == "f" * 64
    assert len(cache) == 4


def test_the_longest_unused_goes_first(counted):
    cache = EmbeddingCache(size=2)
    a, b, c = pictures(3)
    for image in (a, b, a, c):
        cache.encode(counted, image)
    assert counted.count == 3 and len(cache) == 2
    cache.encode(counted, a)
    assert counted.count == 3
    cache.encode(counted, b)
    assert counted.count == 4
    nothing = EmbeddingCache(size=0)
    nothing.encode(counted, a)
    nothing.encode(counted, a)
    assert counted.count == 6 and len(nothing) == 0


def test_threads_that_ask_together_encode_once(sam):
    slow = Counted(sam, together=4)
    cache = EmbeddingCache()
    images = pictures(4)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: cache.encode(slow, images[i % 4]), range(64)))
    assert slow.count == 4
    for i, embedding in enumerate(found):
        assert embedding is found[i % 4]


def test_different_images_do_not_wait_for_each_other(sam):
    slow = Counted(sam, together=8)
    cache = EmbeddingCache()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: cache.encode(slow, image), pictures(8)))
    assert slow.count == 8


def test_an_error_is_not_kept(counted):
    cache = EmbeddingCache()
    for wrong in (np.zeros((4, 4, 7), np.uint8), "photo.jpg", None):
        for _ in range(2):
            with pytest.raises(ImageError):
                cache.encode(counted, wrong)
    assert len(cache) == 0
    cache.encode(counted, toy.picture())


def test_a_directory_outlives_the_process(counted, tmp_path):
    folder = tmp_path / "made" / "embeddings"
    image = toy.picture()
    first = EmbeddingCache(directory=folder).encode(counted, image)
    again = EmbeddingCache(directory=str(folder)).encode(counted, image)
    assert counted.count == 1
    np.testing.assert_array_equal(again.image_embeddings, first.image_embeddings)
    (file,) = folder.iterdir()
    assert ImageEmbedding.load(file).original_size == (48, 80)


def test_damaged_files_are_made_again(counted, tmp_path):
    image = toy.picture()
    expected = EmbeddingCache(directory=tmp_path).encode(counted, image).image_embeddings
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    cases = [b"", b"text", whole[:-5], whole[: len(whole) // 2]]
    cases += [
        whole[:where] + bytes([whole[where] ^ 0xFF]) + whole[where + 1 :]
        for where in range(0, len(whole), 41)
    ]
    for case in cases:
        file.write_bytes(case)
        found = EmbeddingCache(directory=tmp_path).encode(counted, image)
        np.testing.assert_array_equal(found.image_embeddings, expected)
        assert found.resized_size == (38, 64)
    assert counted.count > len(cases) / 2
    # Another image's, put in its place.
    wide = np.repeat(image, 2, 1)
    EmbeddingCache(directory=tmp_path).encode(counted, wide)
    (other,) = set(tmp_path.iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    assert EmbeddingCache(directory=tmp_path).encode(counted, image).original_size == (48, 80)


def test_two_caches_share_a_directory(sam, tmp_path):
    caches = [EmbeddingCache(directory=tmp_path) for _ in range(4)]
    image = toy.picture()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: caches[i % 4].encode(sam, image), range(64)))
    for embedding in found:
        np.testing.assert_array_equal(embedding.image_embeddings, found[0].image_embeddings)
    (file,) = tmp_path.iterdir()
    ImageEmbedding.load(file)


def test_places_that_cannot_be_written(counted, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("1")
    with pytest.raises(OutputError, match="cannot use"):
        EmbeddingCache(directory=tmp_path / "file")
    with pytest.raises(ValueError, match="-1"):
        EmbeddingCache(size=-1)
    cache = EmbeddingCache(directory=tmp_path / "embeddings")
    (tmp_path / "embeddings").rmdir()
    with pytest.warns(SamEdgeWarning, match="not kept"):
        assert cache.encode(counted, toy.picture()).original_size == (48, 80)
