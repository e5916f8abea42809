"""A backend that loads any bundle without a runtime, for an app's tests: load(bundle, backend="mock").

It computes no model. The embedding is the image in grey, and the masks are drawn from the prompt:

- a positive point gives a disc whose radius is a tenth of the image's longer side;
- a box gives the box; points and boxes together give both;
- the mask input, where there is one, is part of the mask;
- a negative point cuts a disc of half that radius out of all of these.

The three masks of a prompt are nested. The middle one is as described and has the best score; in the first
and the last, discs have half and twice the radius, and boxes shrink and grow as much. The same inputs give
the same masks, whatever the image shows. "auto" never chooses this backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import MANIFEST, Manifest, read_manifest
from ..bundle.variant import Graph, Tensor
from ..errors import BackendError, BundleError
from ..types import Arrays
from .base import Backend, DeviceInfo, Session

Floats = NDArray[np.float32]

# Radius of a disc, as a fraction of the longer side of the coordinate space.
RADIUS = 0.1
# Growth, in radii, and score of each mask of an ambiguous prompt.
_GROWTH = (-0.5, 0.0, 1.0)
_SCORES = (0.75, 0.95, 0.85)
# Low-resolution logits are clipped to plus and minus this.
_LIMIT = 32.0


class Mock(Backend):
    """The mock backend."""

    name = "mock"
    formats = ("onnx", "openvino", "coreml")
    has_stages = False

    def devices(self) -> list[DeviceInfo]:
        """One CPU, always available."""
        return [DeviceInfo(self.name, "NumPy", "cpu", True, "")]

    def open(self, path: Path, device: str, threads: int | None) -> Session:
        """Read the graph's shapes from its bundle's manifest; the graph itself is not read.

        Raises:
            DeviceError: a device other than the CPU.
            BackendError: the graph is not part of a bundle.
        """
        self.select_device(device)
        for folder in path.parents:
            if (folder / MANIFEST).is_file():
                return mock_session(*_graph(path, folder))
        raise BackendError(f"{path} is not in a bundle; the mock backend reads shapes from the manifest")


def _graph(path: Path, bundle: Path) -> tuple[Manifest, Graph]:
    """Return the manifest and its entry for that graph."""
    try:
        manifest = read_manifest(bundle)
    except BundleError as error:
        raise BackendError(f"the mock backend cannot use {path}: {error}") from error
    for variant in manifest.variants:
        for graph in (variant.encoder, variant.decoder):
            if bundle / graph.path == path:
                return manifest, graph
    raise BackendError(f"{path} is not a graph of the bundle: {bundle / MANIFEST} does not list it")


def mock_session(manifest: Manifest, graph: Graph) -> Session:
    """Return a session that stands for `graph`, an encoder or decoder listed in `manifest`."""
    if graph.output("low_res_masks") is not None:
        return Session(lambda inputs: decode(inputs, manifest), "cpu")
    return Session(lambda inputs: _encode(inputs, graph.outputs), "cpu")


def _encode(inputs: Arrays, outputs: Sequence[Tensor]) -> Arrays:
    """Put the image in grey into every channel of every output, so that embeddings differ between images."""
    # (1, 3, S, S) normalised, or (1, S, S, 3) uint8.
    name = "image" if "image" in inputs else "images"
    grey = inputs[name][0].astype(np.float32).mean(-1 if name == "image" else 0)
    found = {}
    for tensor in outputs:
        channels, height, width = map(int, tensor.shape[1:])
        rows = np.arange(height) * grey.shape[0] // height
        columns = np.arange(width) * grey.shape[1] // width
        found[tensor.name] = np.repeat(grey[rows][:, columns][None, None], channels, axis=1)
    return found


def decode(inputs: Mapping[str, NDArray[Any]], manifest: Manifest) -> Arrays:
    """Draw masks from prompts, as the module's docstring says.

    Args:
        inputs: a decoder's inputs, float32: point_coords (N, K, 2) in the coordinate space, point_labels
            (N, K), mask_input (1, 1, h, w), has_mask_input (1,).
        manifest: sizes and threshold.

    Returns:
        low_res_masks (N, M, h, w) float32: the threshold plus the signed distance to the mask's edge in
        low-resolution pixels, positive inside; iou_predictions (N, M) float32.
    """
    (height, width), (h, w) = manifest.prompt.coordinate_size, manifest.mask_size
    radius = RADIUS * max(height, width)
    y = ((np.arange(h, dtype=np.float32) + 0.5) * np.float32(height / h))[:, None]
    x = ((np.arange(w, dtype=np.float32) + 0.5) * np.float32(width / w))[None]
    scale = max(height, width) / max(h, w)
    count, first = manifest.mask_count, manifest.first_multimask
    # The single mask of an unambiguous prompt is the middle one.
    growths = [0.0] * first + [_GROWTH[i % 3] for i in range(count - first)]
    scores = [_SCORES[1]] * first + [_SCORES[i % 3] for i in range(count - first)]
    prompts = zip(inputs["point_coords"], inputs["point_labels"], strict=True)
    masks = np.empty((len(inputs["point_coords"]), count, h, w), np.float32)
    for n, (coords, labels) in enumerate(prompts):
        inside, size = _region(coords, labels, x, y, radius)
        for m, growth in enumerate(growths):
            mask = (inside + growth * size) / scale
            if inputs["has_mask_input"][0] > 0:
                mask = np.maximum(mask, inputs["mask_input"][0, 0] - manifest.mask_threshold)
            for at in coords[labels == 0]:
                mask = np.minimum(mask, (np.hypot(x - at[0], y - at[1]) - radius / 2) / scale)
            masks[n, m] = mask.clip(-_LIMIT, _LIMIT) + manifest.mask_threshold
    return {"low_res_masks": masks, "iou_predictions": np.tile(np.array(scores, np.float32), (len(masks), 1))}


def _region(coords: Floats, labels: Floats, x: Floats, y: Floats, radius: float) -> tuple[Floats, float]:
    """Return the distance of each pixel into the discs and the box, and the size that `_GROWTH` scales."""
    inside = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf, np.float32)
    size = radius
    for at in coords[labels == 1]:
        inside = np.maximum(inside, radius - np.hypot(x - at[0], y - at[1]))
    if (labels == 2).any() and (labels == 3).any():
        (x0, y0), (x1, y1) = coords[labels == 2][0], coords[labels == 3][0]
        edges = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y))
        inside = np.maximum(inside, edges)
        size = min(radius, float(min(x1 - x0, y1 - y0)) / 2)
    return inside, size


BACKEND = Mock()
