"""`Sam`: encode an image once, then predict masks for any number of prompts."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..imaging.postprocess import Upscaling
from ..imaging.preprocess import letterbox, normalize, resize, resized_size
from ..system.threads import cores
from ..tasks.clip import Clip
from ..tasks.refine import RefinedMasks, refine
from ..tasks.segmenter import Candidate, MaskOutput
from ..tasks.text import TextMasks, predict_text
from ..types import (
    Arrays,
    Boxes,
    Choice,
    ImageEmbedding,
    MaskInput,
    MaskRecord,
    Masks,
    PointCoords,
    PointLabels,
    Prompts,
    TextEmbeddings,
)
from .decoding import Decoding, check_outputs
from .graphs import OpenGraphs
from .opener import GraphOpener
from .prompts import check_prompts


class Sam:
    """One variant of a bundle, loaded on one backend and device. Safe to use from several threads.

        with sam_edge.load("bundle") as sam:
            masks = sam.predict(sam.encode(image), point_coords=[[320, 240]]).best()

    Attributes:
        bundle: where it was loaded from.
        manifest: the model's inputs and outputs.
        variant: what was loaded.
        backend: the backend's name.
        threads: threads within one operator; None for the backend's own choice.
    """

    def __init__(self, opener: GraphOpener) -> None:
        """Open the encoder and the decoder; `sam_edge.load` makes an `opener`.

        Raises:
            IntegrityError: a file is not as exported.
            BackendError, DeviceError: the runtime or the device is not available, or refuses a graph.
        """
        self.bundle = opener.bundle
        self.manifest = opener.bundle.manifest
        self.variant = opener.variant
        self.backend = opener.backend
        self.threads = opener.threads
        self._graphs = OpenGraphs(opener)
        self._lock = threading.Lock()
        self._choices: list[Choice] | None = None

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "gpu", "npu", or the backend's own word, such as "npu-simulated"."""
        return self._graphs.encoder.device

    @property
    def placement(self) -> dict[str, dict[str, int] | None]:
        """For "encoder" and "decoder", how many nodes each part of the runtime runs; None if it does not say.

        ONNX Runtime, after its basic rewrites: {"CUDAExecutionProvider": 301, "CPUExecutionProvider": 4}.
        """
        graphs = self._graphs
        return {"encoder": graphs.encoder.placement, "decoder": graphs.decoder.placement}

    @property
    def compute_placement(self) -> dict[str, dict[str, int] | None]:
        """`placement` of matrix products and convolutions only: where the work is done."""
        graphs = self._graphs
        return {"encoder": graphs.encoder.compute_placement, "decoder": graphs.decoder.compute_placement}

    @property
    def choices(self) -> list[Choice]:
        """Why each backend, device and variant was chosen or not: what `load(..., explain=True)` prints.

        Found out when first asked for: it imports every backend that is installed.
        """
        if self._choices is None:
            self._choices = self._graphs.opener.explain()
        return self._choices

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an image; the embedding serves any number of prompts.

        Args:
            image: (H, W, 3) uint8 RGB, of any size.

        Raises:
            ImageError: not such an image.
            BackendError: the model was closed, or the runtime fails.

        Example:
            embedding = sam.encode(np.asarray(Image.open("photo.jpg").convert("RGB")))
            masks = sam.predict(embedding, point_coords=[[320, 240]])
        """
        # Resizing is in NumPy, with threads of its own.
        resized = resize(image, self.manifest.input, self.threads or cores())
        return self._encode(resized, (image.shape[0], image.shape[1]))

    def predict(
        self,
        embedding: ImageEmbedding,
        point_coords: PointCoords | None = None,
        point_labels: PointLabels | None = None,
        boxes: Boxes | None = None,
        mask_input: MaskInput | None = None,
        multimask_output: bool = True,
        *,
        return_logits: bool = False,
        text_embeddings: TextEmbeddings | None = None,
        min_region_area: float = 0,
    ) -> Masks:
        """Predict masks for N prompts.

        Args:
            embedding: from `encode`.
            point_coords: (K, 2) or (N, K, 2) x, y in pixels of the original image; or a list of N arrays
                (K_n, 2) with different numbers of points, each prompt giving the masks it gives alone.
            point_labels: (K,) or (N, K), or such a list: 1 foreground, 0 background, -1 padding; None: all
                foreground.
            boxes: (4,) or (N, 4) x0, y0, x1, y1 in pixels of the original image.
            mask_input: (1, h, w) or (N, 1, h, w) low-resolution logits of an earlier prediction.
            multimask_output: three masks for an ambiguous prompt, or one; the best-scored of the three where
                the model has no other.
            return_logits: return logits at the original size, without the threshold.
            text_embeddings: (T, dim) or (N, T, dim) tokens of a text, alone or with points and boxes, for
                bundles exported with `--text-embeddings`; `dim` is that of the image embeddings.
            min_region_area: holes and islands of masks with fewer pixels are filled and removed.

        Raises:
            PromptError: an invalid prompt; the message says which number is wrong.
            BackendError: the model was closed, or the runtime fails.

        Example:
            found = sam.predict(embedding, point_coords=[[320, 240]], point_labels=[1])
            mask = found.best()[0]
        """
        prompts = Prompts(point_coords, point_labels, boxes, mask_input, text_embeddings=text_embeddings)
        output: MaskOutput = "multimask" if multimask_output else "single"
        found = self._segment(embedding, prompts, output, return_logits)
        return found.cleaned(min_region_area) if min_region_area else found

    def refine(
        self,
        image: NDArray[np.uint8],
        found: Masks,
        point_coords: PointCoords | None = None,
        point_labels: PointLabels | None = None,
        boxes: Boxes | None = None,
    ) -> RefinedMasks:
        """Refine masks by a second pass on the crop around each: crisper edges and thin parts, for one more
        encoding a mask.

        Arguments, result and errors are those of `sam_edge.tasks.refine.refine`.

        Example:
            found = sam.predict(embedding, boxes=[[10, 20, 80, 60]]).only_best()
            crisp = sam.refine(image, found, boxes=[[10, 20, 80, 60]]).masks
        """
        return refine(self, image, found, point_coords, point_labels, boxes)

    def predict_text(
        self,
        image: NDArray[np.uint8],
        text: str,
        top_k: int | None = 1,
        threshold: float | None = None,
        *,
        templates: Sequence[str] = ("{}",),
        masks: Sequence[MaskRecord] | None = None,
    ) -> TextMasks:
        """Return the masks of an image that match a text best: everything-mode's, ranked by CLIP.

        Arguments, result and errors are those of `sam_edge.tasks.text.predict_text`.

        Example:
            found = sam.predict_text(image, "a dog", top_k=3)
            mask, score = found.masks[0], found.scores[0]
        """
        return predict_text(self, image, text, top_k, threshold, templates=templates, masks=masks)

    @property
    def clip(self) -> Clip:
        """The bundle's CLIP, opened when it is first asked for, on the same backend and device.

        Raises:
            BundleError: the bundle has none; the message says how to export it.
            IntegrityError: its files are not as exported.
        """
        return self._graphs.clip()

    def close(self) -> None:
        """Free the sessions; later calls raise `BackendError`."""
        self._graphs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The `Segmenter` protocol, and what the drop-in classes, the benchmark and the tests need besides.

    def _check_prompts(self, prompts: Prompts, original_size: tuple[int, int]) -> None:
        """See `Segmenter._check_prompts`."""
        check_prompts(prompts, original_size, self.manifest)

    def _segment(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        output: MaskOutput = "multimask",
        return_logits: bool = False,
    ) -> Masks:
        """See `Segmenter._segment`."""
        low_res, scores = self._decode(embedding, prompts, output)
        return self._decoding.masks(embedding, low_res, scores, return_logits)

    def _decode(
        self, embedding: ImageEmbedding, prompts: Prompts, output: MaskOutput = "multimask"
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return low-resolution logits (N, M, h, w) and scores (N, M), without upscaling."""
        with self._using_graphs() as graphs:
            return self._decoding.decode(graphs.decoder, embedding, prompts, output)

    def _candidates(
        self, embedding: ImageEmbedding, points: NDArray[Any], threshold: float
    ) -> Iterator[Candidate]:
        """See `Segmenter._candidates`."""
        with self._using_graphs() as graphs:
            stages = graphs.stages() if threshold > 0 else None
            yield from self._decoding.candidates(graphs.decoder, stages, embedding, points, threshold)

    def _upscaling(self, original_size: tuple[int, int]) -> Upscaling:
        """See `Segmenter._upscaling`."""
        return self._decoding.upscaling(original_size)

    def _encode_resized(self, image: NDArray[Any], original_size: tuple[int, int]) -> ImageEmbedding:
        """Encode an image (1, 3, h, w) RGB from 0 to 255, already resized to the model's input.

        Raises:
            ImageError: not the shape of an image of `original_size` (H, W) that was resized.
        """
        expected = (1, 3, *resized_size(original_size, self.manifest.input))
        if image.shape != expected:
            raise ImageError(
                f"the resized image has shape {image.shape}; expected {expected} for one of {original_size}"
            )
        return self._encode(image[0].transpose(1, 2, 0), original_size)

    @property
    def _decoding(self) -> Decoding:
        return Decoding(self.manifest, self.variant)

    def _encode(self, resized: NDArray[Any], original_size: tuple[int, int]) -> ImageEmbedding:
        rules, size = self.manifest.input, (resized.shape[0], resized.shape[1])
        if self.variant.encoder.input("image") is not None:
            inputs: Arrays = {"image": letterbox(resized, rules), "resized_size": np.array(size, np.float32)}
        else:
            inputs = {"images": normalize(resized, rules)}
        with self._using_graphs() as graphs:
            outputs = graphs.encoder.run(inputs)
        check_outputs(outputs, "image_embeddings")
        main = outputs.pop("image_embeddings")
        return ImageEmbedding(main, original_size, size, self.manifest.model_id, outputs)

    @contextmanager
    def _using_graphs(self) -> Iterator[OpenGraphs]:
        """Keep the current graphs open, though `_replace_graphs` replaces them meanwhile."""
        with self._lock:
            graphs = self._graphs
            graphs.users += 1
        try:
            yield graphs
        finally:
            with self._lock:
                graphs.users -= 1
                unused = graphs.is_retired and not graphs.users
            if unused:
                graphs.close()

    def _replace_graphs(self, graphs: OpenGraphs) -> None:
        """Run on other graphs from now on; the old ones are closed when nobody uses them any more."""
        with self._lock:
            old, self._graphs, self._choices = self._graphs, graphs, None
            old.is_retired = True
            unused = not old.users
        if unused:
            old.close()
