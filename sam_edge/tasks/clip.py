"""A bundle's CLIP (Radford et al. 2021): texts and images to features that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Session
from ..bundle.bundle import Bundle
from ..bundle.manifest import ClipRules
from ..bundle.variant import ClipVariant
from ..errors import BackendError, IntegrityError, PromptError
from ..imaging.preprocess import check_image
from ..imaging.resample import resize_bicubic
from ..system.install import install_command
from ..types import Arrays

# Images in one call: more of them gain little on a CPU, and cost memory.
BATCH = 8


class Clip:
    """Both encoders of a bundle's CLIP on one backend and device. Safe to call from several threads."""

    def __init__(
        self, rules: ClipRules, variant: ClipVariant, tokenizer: Path, text: Session, image: Session
    ) -> None:
        self.rules = rules
        self.variant = variant
        self._tokenizer_file = tokenizer
        self._tokenizer: Any = None
        self._text, self._image = text, image
        self.device = image.device

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Encode T texts as token numbers, (T, context_length) int32: the tokens, cut to that length, then
        zeros.

        Raises:
            BackendError: the `tokenizers` package is not installed.
            PromptError: a text is not a string of valid Unicode.
            IntegrityError: the bundle's tokenizer cannot be used.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise PromptError("texts should be a list of strings")
        if self._tokenizer is None:
            self._tokenizer = read_tokenizer(self._tokenizer_file.read_bytes(), self.rules.context_length)
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise PromptError(f"the text {text!r:.60} is not valid Unicode ({error.reason})") from error
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        ids = np.zeros((len(rows), self.rules.context_length), np.int32)
        for row, numbers in zip(ids, rows, strict=True):
            row[: len(numbers)] = numbers
        return ids

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode T texts as features of length 1, (T, embed_dim) float32; raises as `tokenize`."""
        return self.encode_tokens(self.tokenize(texts))

    def encode_tokens(self, input_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Encode (T, context_length) int32 token numbers as features of length 1, (T, embed_dim) float32."""
        return self._run(self._text, "text_encoder", {"input_ids": input_ids}, BATCH)

    def encode_images(self, images: Sequence[NDArray[np.uint8]], batch: int = BATCH) -> NDArray[np.float32]:
        """Encode N images (H, W, 3) uint8 RGB, of any sizes, as features of length 1, (N, embed_dim) float32.

        Args:
            images: what to encode.
            batch: how many go through the graph at once, where it takes any number.

        Raises:
            ImageError: not such an image.
        """
        found = [np.zeros((0, self.rules.embed_dim), np.float32)]
        for start in range(0, len(images), batch):
            arrays = np.concatenate(
                [preprocess(image, self.rules) for image in images[start : start + batch]]
            )
            found.append(self._run(self._image, "image_encoder", {"images": arrays}, batch))
        return np.concatenate(found)

    def _run(self, session: Session, part: str, inputs: Arrays, batch: int) -> NDArray[np.float32]:
        """Run in batches of at most `batch`, or of the number that the graph was exported for."""
        ((name, array),) = inputs.items()
        graph = self.variant.graphs[part]
        fixed = graph.inputs[0].shape[0]
        step = fixed if isinstance(fixed, int) else batch
        output = graph.outputs[0].name
        found = [np.zeros((0, self.rules.embed_dim), np.float32)]
        for start in range(0, len(array), step):
            given = array[start : start + step]
            missing = step - len(given) if isinstance(fixed, int) else 0
            padded = np.concatenate([given, np.repeat(given[:1], missing, 0)])
            found.append(session.run({name: padded})[output][: len(given)])
        return normalise(np.concatenate(found).astype(np.float32))

    def close(self) -> None:
        """Free both sessions."""
        self._text.close()
        self._image.close()


def open_clip(bundle: Bundle, variant: str, open_graph: Callable[[ClipVariant, str], Session]) -> Clip:
    """Open the CLIP that belongs to a variant of the bundle; its files are checked first.

    Args:
        bundle: exported with `--clip`.
        variant: the variant's id.
        open_graph: opens a graph of a CLIP variant, "text_encoder" or "image_encoder".

    Raises:
        BundleError: the bundle has none; the message says how to export it.
        IntegrityError: its files are not as exported.
        BackendError, DeviceError: the backend refuses the graphs, or has no such device.
    """
    rules, found = bundle.clip().rules, bundle.clip_variant(variant)
    bundle.check_files(found)
    tokenizer = bundle.check_tokenizer()
    text = open_graph(found, "text_encoder")
    try:
        image = open_graph(found, "image_encoder")
    except BaseException:
        text.close()
        raise
    return Clip(rules, found, tokenizer, text, image)


def preprocess(image: NDArray[np.uint8], rules: ClipRules) -> NDArray[np.float32]:
    """Resize an image (H, W, 3) uint8 RGB as published, bicubic with its short side to S, and crop its
    centre: (1, 3, S, S) float32.

    Raises:
        ImageError: not such an image.
    """
    image = check_image(image)
    side, (height, width) = rules.image_size, image.shape[:2]
    short = min(height, width)
    size = side * height // short, side * width // short
    top, left = (round((length - side) / 2) for length in size)
    crop = resize_bicubic(image, size, (top, left, side, side)).astype(np.float32)
    mean, std = np.array(rules.mean, np.float32), np.array(rules.std, np.float32)
    return np.ascontiguousarray(((crop - mean) / std).transpose(2, 0, 1)[None])


def normalise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide each row of (N, D) by its length, so that products are cosine similarities."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.float32(1e-30))


def import_tokenizers() -> ModuleType:
    """Import the `tokenizers` package.

    Raises:
        BackendError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise BackendError(
            f"text needs tokenizers, which is not installed; {install_command('text')}"
        ) from error
    return tokenizers


def read_tokenizer(data: bytes, context_length: int) -> Any:
    """Read a tokenizer from the bytes of its JSON; it cuts texts to `context_length` and does not pad them.

    Raises:
        BackendError: the `tokenizers` package is not installed.
        IntegrityError: not such a JSON.
    """
    tokenizers = import_tokenizers()
    try:
        tokenizer = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(context_length)
    except Exception as error:  # tokenizers raises plain ones
        raise IntegrityError(f"not a tokenizer.json: {' '.join(str(error).split())}") from error
    return tokenizer
