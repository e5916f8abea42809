"""Decoding: prompts to the decoder's inputs, in batches; its outputs to masks.

Plain functions of values: sessions are given to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Session
from ..bundle.manifest import Manifest
from ..bundle.variant import Graph, Variant
from ..errors import BackendError, PromptError
from ..imaging.postprocess import Upscaling
from ..imaging.preprocess import resized_size
from ..tasks.segmenter import Candidate, MaskOutput
from ..types import Arrays, ImageEmbedding, Masks, Prompts
from .prompts import EncodedPrompts, by_point_count, encode_prompts, fill_up

# Image tokens in one run of the decoder, over all of its prompts: 8 prompts of SAM's 64 x 64, 81 of the
# embedded model's 20 x 20. More only take memory: on a CPU the time per prompt stays the same, or grows.
DECODER_TOKENS = 32_768

_PER_PROMPT = ("point_coords", "point_labels", "text_embeddings")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Decoding:
    """How prompts become masks for one variant of a model."""

    rules: Manifest
    variant: Variant

    def decode(
        self, decoder: Session, embedding: ImageEmbedding, prompts: Prompts, output: MaskOutput
    ) -> tuple[Floats, Floats]:
        """Return low-resolution logits (N, M, h, w) and scores (N, M) for N prompts.

        Raises:
            PromptError: an invalid prompt.
        """
        low_res, scores = self._decode_all(decoder, embedding, prompts)
        first = self.rules.first_multimask
        if output == "all":
            return low_res, scores
        if output == "multimask":
            return low_res[:, first:], scores[:, first:]
        if first:
            return low_res[:, :first], scores[:, :first]
        best = np.arange(len(scores)), scores.argmax(1)
        return low_res[best][:, None], scores[best][:, None]

    def candidates(
        self,
        decoder: Session,
        stages: tuple[Session, Session] | None,
        embedding: ImageEmbedding,
        points: NDArray[Any],
        threshold: float,
    ) -> Iterator[Candidate]:
        """Yield the masks of clicks whose scores are above `threshold`, in order; 0 or less for all masks.

        Args:
            decoder: the whole decoder.
            stages: the scorer and the upscaler, so that masks are computed for no other prompts; None to run
                the whole decoder.
            embedding: of the image.
            points: (N, 2) x, y in pixels of the original image, each a prompt of its own.
            threshold: of the scores.

        Raises:
            PromptError: an invalid prompt.
        """
        prompts = Prompts(points[:, None])
        if stages is not None:
            yield from self._candidates_in_stages(stages, embedding, prompts, threshold)
            return
        low_res, scores = self.decode(decoder, embedding, prompts, "multimask")
        passed = scores > threshold if threshold > 0 else np.ones_like(scores, bool)
        for n, m in np.argwhere(passed):
            yield Candidate(int(n), int(m), float(scores[n, m]), low_res[n, m])

    def masks(self, embedding: ImageEmbedding, low_res: Floats, scores: Floats, return_logits: bool) -> Masks:
        """Upscale low-resolution logits to masks, or logits, at the original image's size."""
        upscaling = self.upscaling(embedding.original_size)
        threshold, limit = self.rules.mask_threshold, self.rules.low_res_limit
        masks = upscaling.logits(low_res) if return_logits else upscaling.masks(low_res, threshold)
        return Masks(masks, scores, low_res if limit is None else low_res.clip(-limit, limit))

    def upscaling(self, original_size: tuple[int, int]) -> Upscaling:
        """Return how low-resolution logits are resized to an image of `original_size` (H, W)."""
        rules = self.rules
        if rules.input.resize == "stretch":
            # Without padding to cut off, published predictors resize masks once.
            return Upscaling(rules.mask_size, rules.mask_size, rules.mask_size, original_size)
        space = rules.coordinate_space
        return Upscaling(rules.mask_size, space.size, resized_size(original_size, space), original_size)

    def _candidates_in_stages(
        self,
        stages: tuple[Session, Session],
        embedding: ImageEmbedding,
        prompts: Prompts,
        threshold: float,
    ) -> Iterator[Candidate]:
        scorer, upscaler = stages
        rules, first, graphs = self.rules, self.rules.first_multimask, self.variant.graphs
        needed = {tensor.name for tensor in graphs["upscaler"].inputs}
        tensors = {one.name: one.shape[1:] for one in graphs["scorer"].outputs if one.name in needed}
        ((_, inputs),) = self._inputs(embedding, prompts)
        done = 0
        for batch in self._batches(inputs, graphs["scorer"]):
            found, count = scorer.run(batch), len(batch["point_coords"])
            check_outputs(found, "iou_predictions", count, rules.mask_count)
            for name, shape in tensors.items():
                check_outputs(found, name, count, *shape)
            scores = found["iou_predictions"][:, first:]
            passed = scores > threshold
            drawn = np.flatnonzero(passed.any(1))
            if len(drawn):
                made = upscaler.run({name: found[name][drawn] for name in tensors})
                check_outputs(made, "low_res_masks", len(drawn), rules.mask_count, *rules.mask_size)
                for n, low_res in zip(drawn, made["low_res_masks"], strict=True):
                    for m in np.flatnonzero(passed[n]):
                        yield Candidate(done + int(n), int(m), float(scores[n, m]), low_res[first + m])
            done += count

    def _decode_all(
        self, decoder: Session, embedding: ImageEmbedding, prompts: Prompts
    ) -> tuple[Floats, Floats]:
        """Return all of the decoder's masks (N, M, h, w) and scores (N, M)."""
        rules = self.rules
        groups = self._inputs(embedding, prompts)
        found = [self._run(decoder, inputs) for _, inputs in groups]
        for (_, inputs), outputs in zip(groups, found, strict=True):
            n, m = len(inputs["point_coords"]), rules.mask_count
            check_outputs(outputs, "low_res_masks", n, m, *rules.mask_size)
            check_outputs(outputs, "iou_predictions", n, m)
        low_res, scores = (
            np.concatenate([one[name] for one in found]) if len(found) > 1 else found[0][name]
            for name in ("low_res_masks", "iou_predictions")
        )
        if len(groups) > 1:
            order = np.argsort(np.concatenate([indices for indices, _ in groups]))
            low_res, scores = low_res[order], scores[order]
        return low_res, scores

    def _inputs(self, embedding: ImageEmbedding, prompts: Prompts) -> list[tuple[NDArray[np.intp], Arrays]]:
        """Return the decoder's inputs for each group of prompts with one number of points, and the indices of
        these prompts; every prompt is checked before any is run."""
        rules = self.rules
        if embedding.model != rules.model_id:
            raise PromptError(
                "the embedding was made with another model, or at another input size; encode the image again "
                "with this one"
            )
        size, low = embedding.original_size, rules.mask_size
        resized = resized_size(size, rules.coordinate_space)
        encoded = [
            (indices, encode_prompts(group, size, resized, rules.prompt, low))
            for indices, group in by_point_count(prompts)
        ]
        return [(indices, self._decoder_inputs(embedding, one)) for indices, one in encoded]

    def _decoder_inputs(self, embedding: ImageEmbedding, prompts: EncodedPrompts) -> Arrays:
        coords, labels, mask_input = prompts.coords, prompts.labels, prompts.mask_input
        points = self.variant.decoder.input("point_coords")
        if self.variant.absent_label is not None and points is not None:
            coords, labels = fill_up(coords, labels, int(points.shape[1]))
        has_mask = np.full(1, mask_input is not None, np.float32)
        if mask_input is None:
            mask_input = np.zeros((1, 1, *self.rules.mask_size), np.float32)
        inputs = {
            **embedding.arrays,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": mask_input,
            "has_mask_input": has_mask,
        }
        if self.rules.prompt.text_embeddings:
            dim = embedding.image_embeddings.shape[1]
            texts = prompts.text_embeddings
            texts = np.zeros((len(coords), 0, dim), np.float32) if texts is None else texts
            if texts.shape[2] != dim:
                raise PromptError(f"text_embeddings has shape {texts.shape}; expected {dim} numbers a token")
            inputs["text_embeddings"] = texts
        return inputs

    def _run(self, decoder: Session, inputs: Arrays) -> Arrays:
        found = [decoder.run(batch) for batch in self._batches(inputs, self.variant.decoder)]
        if len(found) == 1:
            return found[0]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    def _batches(self, inputs: Arrays, graph: Graph) -> Iterator[Arrays]:
        """Yield `inputs` in batches; one by one where the graph was exported for one prompt, or prompts have
        masks."""
        points = graph.input("point_coords")
        batch = None if points is None else points.shape[0]
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


def check_outputs(outputs: Arrays, name: str, *shape: int | str) -> None:
    """Raise `BackendError` unless a graph made the output that the manifest describes."""
    if name not in outputs or (shape and outputs[name].shape != shape):
        made = ", ".join(f"{key} {value.shape}" for key, value in outputs.items())
        raise BackendError(
            f"the graph returns {made}; the manifest describes {name} {shape or ''}; export the bundle again"
        )
