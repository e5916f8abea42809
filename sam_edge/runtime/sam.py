"""`encode` an image once, `predict` masks for as many prompts as you like."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Session
from ..bundle.bundle import Bundle
from ..bundle.variant import Graph, Variant
from ..errors import BackendError, BundleError, ImageError, PromptError
from ..imaging.postprocess import Upscaling
from ..imaging.preprocess import letterbox, normalize, resize, resized_size
from ..system.threads import cores
from ..types import Arrays, Choice, ImageEmbedding, Masks, Prompts
from .prompts import by_point_count, encode_prompts, fill_up

if TYPE_CHECKING:
    from ..tasks.refine import RefinedMasks
    from ..tasks.text import TextMasks
    from .clip import Clip

# Image tokens in one run of the decoder, over all of its prompts: 8 prompts of SAM's 64 x 64, 81 of the
# embedded model's 20 x 20. More only take memory: on a CPU the time per prompt stays the same, or grows.
DECODER_TOKENS = 32_768

Floats = NDArray[np.float32]

_PER_PROMPT = ("point_coords", "point_labels", "text_embeddings")


class Sam:
    """One variant of a bundle, loaded on one backend and device. Safe to call from several threads."""

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        backend: str,
        encoder: Session,
        decoder: Session,
        explain: Callable[[], list[Choice]] = list,
        open_clip: Callable[[], Clip] | None = None,
        threads: int | None = None,
        open_stages: Callable[[], tuple[Session, Session]] | None = None,
    ) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.variant = variant
        self.backend = backend
        self.device = encoder.device
        self._encoder = encoder
        self._decoder = decoder
        self._explain = explain
        self._open_clip = open_clip
        self.threads = threads
        # For resizing pictures, in NumPy.
        self._threads = threads or cores()
        self._clip: Clip | None = None
        self._clip_lock = threading.Lock()
        self._open_stages = open_stages
        self._stages: tuple[Session, Session] | None = None
        self._stages_lock = threading.Lock()

    @property
    def placement(self) -> dict[str, dict[str, int] | None]:
        """For "encoder" and "decoder", how many nodes each part of the runtime took; None if it does not say.

        Of ONNX Runtime, after its basic rewrites: {"CUDAExecutionProvider": 301, "CPUExecutionProvider": 4}.
        """
        return {"encoder": self._encoder.placement, "decoder": self._decoder.placement}

    @property
    def compute_placement(self) -> dict[str, dict[str, int] | None]:
        """`placement` of matrix products and convolutions only: where the work is done."""
        return {"encoder": self._encoder.compute_placement, "decoder": self._decoder.compute_placement}

    @cached_property
    def choices(self) -> list[Choice]:
        """Why each backend, device and variant was taken or not: what `load(..., explain=True)` prints.

        Found out when first asked for: it imports every backend that is installed.
        """
        return self._explain()

    # Names that scripts for `segment_anything` read.
    image_format = "RGB"

    @property
    def mask_threshold(self) -> float:
        """Logits above this belong to the mask."""
        return self.manifest.mask_threshold

    @property
    def image_encoder(self) -> SimpleNamespace:
        """`img_size`: the long side of the encoder's input in pixels."""
        return SimpleNamespace(img_size=max(self.manifest.coordinate_space.size))

    def to(self, device: str) -> Sam:
        """Move to another device, "cpu", "gpu", "npu" or torch's "cuda" or "mps"; returns itself, as torch's.

        Raises:
            DeviceError: no such device here; nothing was moved.
        """
        name = str(device).partition(":")[0]
        kind = {"cuda": "gpu", "mps": "gpu"}.get(name, str(device))
        if kind != self.device:
            from .loading import load_variant

            moved = load_variant(self.bundle, self.variant, self.backend, kind, self.threads)
            self.close()
            self._encoder, self._decoder, self._clip = moved._encoder, moved._decoder, None
            self.device, self._open_clip = moved.device, moved._open_clip
            self._stages, self._open_stages = None, moved._open_stages
        return self

    def __call__(self, batched_input: list[dict[str, Any]], multimask_output: bool) -> list[dict[str, Any]]:
        """As the published `Sam.forward`; see `predictor.predict_batch`."""
        from ..compat.predictor import predict_batch

        return predict_batch(self, batched_input, multimask_output)

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """(H, W, 3) uint8 RGB -> its embedding.

        Raises:
            ImageError: not such an image.
        """
        resized = resize(image, self.manifest.input, self._threads)
        return self._encode(resized, (image.shape[0], image.shape[1]))

    def encode_resized(self, image: NDArray[Any], original_size: tuple[int, int]) -> ImageEmbedding:
        """(1, 3, h, w) RGB from 0 to 255, resized to the model's input already -> its embedding.

        Raises:
            ImageError: not the shape of an image of `original_size` (H, W) that was resized.
        """
        expected = (1, 3, *resized_size(original_size, self.manifest.input))
        if image.shape != expected:
            raise ImageError(
                f"the resized image has shape {image.shape}; expected {expected} for one of {original_size}"
            )
        return self._encode(image[0].transpose(1, 2, 0), original_size)

    def _encode(self, resized: NDArray[Any], original_size: tuple[int, int]) -> ImageEmbedding:
        rules, size = self.manifest.input, (resized.shape[0], resized.shape[1])
        if "image" in _names(self.variant.encoder):
            inputs: Arrays = {"image": letterbox(resized, rules), "resized_size": np.array(size, np.float32)}
        else:
            inputs = {"images": normalize(resized, rules)}
        outputs = self._encoder.run(inputs)
        _check_outputs(outputs, "image_embeddings")
        main = outputs.pop("image_embeddings")
        return ImageEmbedding(main, original_size, size, self.manifest.model_id, outputs)

    def predict(
        self,
        embedding: ImageEmbedding,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        text_embeddings: Any = None,
        min_region_area: float = 0,
    ) -> Masks:
        """Masks for N prompts.

        Args:
            embedding: from `encode`.
            point_coords: (K, 2) or (N, K, 2) x, y in pixels of the original image; or a list of N arrays
                (K_n, 2) with different numbers of points, each prompt giving the masks it gives alone.
            point_labels: (K,) or (N, K), or such a list: 1 foreground, 0 background, -1 padding.
            boxes: (4,) or (N, 4) x0, y0, x1, y1 in pixels of the original image.
            mask_input: (1, h, w) or (N, 1, h, w) low-resolution logits of an earlier prediction.
            multimask_output: three masks for an ambiguous prompt, or one; the best-scored of the three where
                the model has no other.
            return_logits: keep the logits at the original size instead of a threshold.
            text_embeddings: (T, dim) or (N, T, dim) tokens of a text, alone or with points and boxes, for
                bundles exported with `--text-embeddings`; `dim` is that of the image embeddings.
            min_region_area: holes and islands of masks with fewer pixels are filled and removed.

        Raises:
            PromptError: a prompt that makes no sense.
        """
        prompts = Prompts(point_coords, point_labels, boxes, mask_input, text_embeddings=text_embeddings)
        found = self.predict_prompts(embedding, prompts, multimask_output, return_logits)
        return found.cleaned(min_region_area) if min_region_area else found

    def refine(
        self,
        image: NDArray[np.uint8],
        found: Masks,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
    ) -> RefinedMasks:
        """Masks after a second pass on the crop around each: crisper edges and thin parts, for one more
        encoding a mask.

        Arguments, result and errors are those of `sam_edge.tasks.refine.refine`.
        """
        from ..tasks.refine import refine

        return refine(self, image, found, point_coords, point_labels, boxes)

    def predict_prompts(
        self,
        embedding: ImageEmbedding,
        prompts: Prompts,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Masks:
        """As `predict`, for prompts as a value."""
        low_res, scores = self.decode(embedding, prompts, multimask_output)
        return self._at_original_size(embedding, low_res, scores, return_logits)

    def predict_all(
        self,
        embedding: ImageEmbedding,
        point_coords: Any = None,
        point_labels: Any = None,
        boxes: Any = None,
        mask_input: Any = None,
        return_logits: bool = False,
    ) -> Masks:
        """All masks of the decoder: the single-mask output, if it has one, then the three of `predict`."""
        prompts = Prompts(point_coords, point_labels, boxes, mask_input)
        return self._at_original_size(embedding, *self._decode_prompts(embedding, prompts), return_logits)

    @property
    def clip(self) -> Clip:
        """The bundle's CLIP, opened when it is first asked for, on the same backend and device.

        Raises:
            BundleError: the bundle has none; the message says how to export it.
            IntegrityError: its files are not as exported.
        """
        with self._clip_lock:
            if self._clip is None:
                self.bundle.clip_variant(self.variant.id)
                if self._open_clip is None:
                    raise BundleError("this Sam was made without its CLIP; load it with sam_edge.load")
                self._clip = self._open_clip()
            return self._clip

    def predict_text(
        self,
        image: NDArray[np.uint8],
        text: str,
        top_k: int | None = 1,
        threshold: float | None = None,
        templates: Sequence[str] = ("{}",),
        masks: Sequence[Mapping[str, Any]] | None = None,
    ) -> TextMasks:
        """The masks of an image that fit a text best: everything-mode's, ranked by the bundle's CLIP.

        Arguments, result and errors are those of `sam_edge.tasks.text.predict_text`.
        """
        from ..tasks.text import predict_text

        return predict_text(self, image, text, top_k, threshold, templates, masks)

    def decode(
        self, embedding: ImageEmbedding, prompts: Prompts, multimask_output: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Low-resolution logits (N, M, h, w) and scores (N, M) for N prompts, without upscaling.

        Raises:
            PromptError: a prompt that makes no sense.
        """
        low_res, scores = self._decode_prompts(embedding, prompts)
        first = self.manifest.first_multimask
        if multimask_output:
            return low_res[:, first:], scores[:, first:]
        if first:
            return low_res[:, :first], scores[:, :first]
        best = np.arange(len(scores)), scores.argmax(1)
        return low_res[best][:, None], scores[best][:, None]

    def candidates(
        self, embedding: ImageEmbedding, points: NDArray[Any], threshold: float
    ) -> Iterator[tuple[int, int, float, Floats]]:
        """The masks of clicks whose scores are above `threshold`, in order; 0 or less for all masks.

        Where the variant has the decoder in two stages, masks are drawn for no other prompts.

        Args:
            embedding: from `encode`.
            points: (N, 2) x, y in pixels of the original image, each a prompt of its own.
            threshold: of the scores.

        Yields:
            the point's index, the mask's among those of `decode`, its score, and its low-resolution logits
            (h, w).

        Raises:
            PromptError: as `decode`.
        """
        prompts, stages = Prompts(points[:, None]), self._both_stages() if threshold > 0 else None
        if stages is None:
            low_res, scores = self.decode(embedding, prompts)
            passed = scores > threshold if threshold > 0 else np.ones_like(scores, bool)
            for n, m in np.argwhere(passed):
                yield int(n), int(m), float(scores[n, m]), low_res[n, m]
            return
        scorer, upscaler = stages
        rules, first = self.manifest, self.manifest.first_multimask
        graphs = self.variant.graphs
        needed = _names(graphs["upscaler"])
        tensors = {one.name: one.shape[1:] for one in graphs["scorer"].outputs if one.name in needed}
        ((_, inputs),) = self._inputs(embedding, prompts)
        done = 0
        for batch in self._batches(inputs, "scorer"):
            found, count = scorer.run(batch), len(batch["point_coords"])
            _check_outputs(found, "iou_predictions", count, rules.mask_count)
            for name, shape in tensors.items():
                _check_outputs(found, name, count, *shape)
            scores = found["iou_predictions"][:, first:]
            passed = scores > threshold
            drawn = np.flatnonzero(passed.any(1))
            if len(drawn):
                made = upscaler.run({name: found[name][drawn] for name in tensors})
                _check_outputs(made, "low_res_masks", len(drawn), rules.mask_count, *rules.mask_size)
                for n, low_res in zip(drawn, made["low_res_masks"], strict=True):
                    for m in np.flatnonzero(passed[n]):
                        yield done + int(n), int(m), float(scores[n, m]), low_res[first + m]
            done += count

    def _both_stages(self) -> tuple[Session, Session] | None:
        """The scorer and the upscaler, opened when they are first asked for; None where there are none."""
        with self._stages_lock:
            if self._stages is None and self._open_stages is not None:
                self._stages = self._open_stages()
            return self._stages

    def upscaling(self, original_size: tuple[int, int]) -> Upscaling:
        """How low-resolution logits are brought to an image of `original_size` (H, W)."""
        rules = self.manifest
        if rules.input.resize == "stretch":
            # There is no padding to cut off, so that published predictors resize masks once.
            return Upscaling(rules.mask_size, rules.mask_size, rules.mask_size, original_size)
        resized = resized_size(original_size, rules.coordinate_space)
        return Upscaling(rules.mask_size, rules.coordinate_space.size, resized, original_size)

    def _at_original_size(
        self,
        embedding: ImageEmbedding,
        low_res: NDArray[np.float32],
        scores: NDArray[np.float32],
        return_logits: bool,
    ) -> Masks:
        upscaling = self.upscaling(embedding.original_size)
        threshold, limit = self.manifest.mask_threshold, self.manifest.low_res_limit
        masks = upscaling.logits(low_res) if return_logits else upscaling.masks(low_res, threshold)
        return Masks(masks, scores, low_res if limit is None else low_res.clip(-limit, limit))

    def _decode_prompts(
        self, embedding: ImageEmbedding, prompts: Prompts
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """All of the decoder's masks (N, M, h, w) and scores (N, M)."""
        rules = self.manifest
        groups = self._inputs(embedding, prompts)
        found = [self._decode(inputs) for _, inputs in groups]
        for (_, inputs), outputs in zip(groups, found, strict=True):
            n, m = len(inputs["point_coords"]), rules.mask_count
            _check_outputs(outputs, "low_res_masks", n, m, *rules.mask_size)
            _check_outputs(outputs, "iou_predictions", n, m)
        low_res, scores = (
            np.concatenate([one[name] for one in found]) if len(found) > 1 else found[0][name]
            for name in ("low_res_masks", "iou_predictions")
        )
        if len(groups) > 1:
            order = np.argsort(np.concatenate([indices for indices, _ in groups]))
            low_res, scores = low_res[order], scores[order]
        return low_res, scores

    def _inputs(self, embedding: ImageEmbedding, prompts: Prompts) -> list[tuple[NDArray[np.intp], Arrays]]:
        """The decoder's inputs for the prompts of each number of points, and which prompts these are; every
        prompt is checked."""
        rules = self.manifest
        if embedding.model != rules.model_id:
            raise PromptError(
                "the embedding was made with another model, or at another input size; encode the image again "
                "with this one"
            )
        resized = resized_size(embedding.original_size, rules.coordinate_space)
        encoded = [
            (indices, encode_prompts(group, embedding.original_size, resized, rules.prompt, rules.mask_size))
            for indices, group in by_point_count(prompts)
        ]
        return [(which, self._decoder_inputs(embedding, *self._filled_up(*one))) for which, one in encoded]

    def _filled_up(
        self, coords: Floats, labels: Floats, mask_input: Floats | None, text_embeddings: Floats | None
    ) -> tuple[Floats, Floats, Floats | None, Floats | None]:
        """With as many points as the decoder was exported for, where it knows absent ones."""
        points = self.variant.decoder.input("point_coords")
        if self.variant.absent_label is not None and points is not None:
            coords, labels = fill_up(coords, labels, int(points.shape[1]))
        return coords, labels, mask_input, text_embeddings

    def _decoder_inputs(
        self,
        embedding: ImageEmbedding,
        coords: NDArray[np.float32],
        labels: NDArray[np.float32],
        mask_input: NDArray[np.float32] | None,
        text_embeddings: NDArray[np.float32] | None,
    ) -> Arrays:
        n = len(coords)
        has_mask = np.full(1, mask_input is not None, np.float32)
        if mask_input is None:
            mask_input = np.zeros((1, 1, *self.manifest.mask_size), np.float32)
        inputs = {
            **embedding.arrays,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": mask_input,
            "has_mask_input": has_mask,
        }
        if self.manifest.prompt.text_embeddings:
            dim = embedding.image_embeddings.shape[1]
            texts = np.zeros((n, 0, dim), np.float32) if text_embeddings is None else text_embeddings
            if texts.shape[2] != dim:
                raise PromptError(f"text_embeddings has shape {texts.shape}; expected {dim} numbers a token")
            inputs["text_embeddings"] = texts
        return inputs

    def _decode(self, inputs: Arrays) -> Arrays:
        found = [self._decoder.run(batch) for batch in self._batches(inputs, "decoder")]
        if len(found) == 1:
            return found[0]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def _batches(self, inputs: Arrays, graph: str) -> Iterator[Arrays]:
        """Of `inputs`; one by one where the graph was exported for one prompt, or prompts have masks."""
        batch = next(t.shape[0] for t in self.variant.graphs[graph].inputs if t.name == "point_coords")
        if not isinstance(batch, int):
            height, width = inputs["image_embeddings"].shape[2:]
            batch = DECODER_TOKENS // (height * width)
        batch = max(batch, 1)
        sliced: tuple[str, ...] = _PER_PROMPT
        if inputs["has_mask_input"].any():
            # A run takes one mask.
            batch, sliced = 1, (*_PER_PROMPT, "mask_input")
        count = len(inputs["point_coords"])
        for i in range(0, count, batch):
            yield {k: v[i : i + batch] if k in sliced else v for k, v in inputs.items()}

    def close(self) -> None:
        """Free the sessions."""
        self._encoder.close()
        self._decoder.close()
        with self._stages_lock:
            for session in self._stages or ():
                session.close()
            self._open_stages = None
        with self._clip_lock:
            if self._clip is not None:
                self._clip.close()

    def __enter__(self) -> Sam:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _names(graph: Graph) -> set[str]:
    return {tensor.name for tensor in graph.inputs}


def _check_outputs(outputs: Arrays, name: str, *shape: int | str) -> None:
    """Raise `BackendError` unless a graph made what the manifest says."""
    if name not in outputs or (shape and outputs[name].shape != shape):
        made = ", ".join(f"{key} {value.shape}" for key, value in outputs.items())
        raise BackendError(f"the graph makes {made}; the manifest says {name} {shape or ''}; export it again")
