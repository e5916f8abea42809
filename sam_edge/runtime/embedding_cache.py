"""A cache of embeddings: an image that was encoded before is not encoded again."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import IntegrityError, OutputError, SamEdgeWarning
from ..types import ImageEmbedding
from .sam import Sam


class EmbeddingCache:
    """Keeps the embeddings of the last images, in memory and, if asked for, in a directory. Safe to use from
    several threads.

        cache = EmbeddingCache(size=8, directory="embeddings")
        embedding = cache.encode(sam, image)
    """

    def __init__(self, size: int = 8, directory: str | Path | None = None) -> None:
        """Make an empty cache.

        Args:
            size: how many embeddings stay in memory; the least recently used one is dropped first.
            directory: where embeddings are kept as well, for later and for other processes; created if it is
                missing, and never emptied. None for memory only.

        Raises:
            ValueError: a negative size.
            OutputError: `directory` is not a directory and cannot be made one.
        """
        if size < 0:
            raise ValueError(f"size is {size}; expected 0 or more")
        self._size = size
        self._directory = None if directory is None else Path(directory)
        if self._directory is not None:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot use {self._directory} for embeddings ({error.strerror}); give a directory"
                ) from error
        self._memory: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._lock = threading.Lock()
        # A lock for each image that is being encoded: other callers with the same image wait.
        self._busy: dict[str, threading.Lock] = {}

    def encode(self, sam: Sam, image: Any) -> ImageEmbedding:
        """Return `sam.encode(image)`, or what it returned before for the same pixels, model and variant.

        Args:
            sam: the model.
            image: (H, W, 3) uint8 RGB.

        Raises:
            ImageError: as `Sam.encode`.
        """
        if not isinstance(image, np.ndarray):
            return sam.encode(image)
        key = _key(sam, image)
        with self._lock:
            known = self._known(key)
            if known is not None:
                return known
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:
            with self._lock:
                known = self._known(key)
            if known is not None:
                return known
            try:
                embedding = self._read(key, sam, image)
                if embedding is None:
                    embedding = sam.encode(image)
                    self._write(key, embedding)
                with self._lock:
                    self._memory[key] = embedding
                    while len(self._memory) > self._size:
                        self._memory.popitem(last=False)
                return embedding
            finally:
                with self._lock:
                    self._busy.pop(key, None)

    def clear(self) -> None:
        """Drop what is in memory."""
        with self._lock:
            self._memory.clear()

    def __len__(self) -> int:
        """Return how many embeddings are in memory."""
        return len(self._memory)

    def _known(self, key: str) -> ImageEmbedding | None:
        known = self._memory.get(key)
        if known is not None:
            self._memory.move_to_end(key)
        return known

    def _read(self, key: str, sam: Sam, image: Any) -> ImageEmbedding | None:
        if self._directory is None:
            return None
        try:
            embedding = ImageEmbedding.load(self._directory / f"{key}.npz")
        except IntegrityError:  # missing or damaged
            return None
        fits = embedding.model == sam.manifest.model_id and embedding.original_size == image.shape[:2]
        return embedding if fits else None

    def _write(self, key: str, embedding: ImageEmbedding) -> None:
        if self._directory is None:
            return
        try:
            embedding.save(self._directory / f"{key}.npz")
        except OutputError as error:
            warnings.warn(f"the embedding was not kept: {error}", SamEdgeWarning, stacklevel=3)


def _key(sam: Sam, image: Any) -> str:
    digest = hashlib.sha256(
        f"{sam.manifest.model_id} {sam.variant.id} {image.dtype.str} {image.shape}".encode()
    )
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
