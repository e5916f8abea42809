"""Weights and inputs made from a seed, the same with every version of every package.

Golden outputs of published code are made with them, and compared with ours on them.
"""

import numpy as np
import torch

SAMPLES = 2048
_EMBEDDINGS = ("embeddings", "embed.", "token.", "points")


def seeded_weights(shapes, gain=1.0):
    """Weights by name that keep signals alive; `gain` scales the layers of the image encoder."""
    random, weights = np.random.default_rng(7), {}
    for name, shape in sorted(shapes.items()):
        noise = random.standard_normal(shape).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            value = np.zeros(shape, np.int64)
        elif name.endswith("running_var"):
            value = np.exp(0.3 * noise)
        elif name.endswith("gaussian_matrix"):
            value = noise
        elif len(shape) == 1 and name.endswith("weight"):
            value = 1 + 0.2 * noise
        elif len(shape) in (2, 4) and not any(part in name for part in _EMBEDDINGS):
            value = noise * ((gain if name.startswith("image_encoder.") else 1) / np.prod(shape[1:]) ** 0.5)
        else:
            value = 0.3 * noise
        if "output_hypernetworks" in name:
            # Logits far enough from the threshold to be stable.
            value = 2 * value
        weights[name] = torch.from_numpy(np.asarray(value, noise.dtype if value.dtype.kind == "f" else None))
    return weights


def seeded_image(size):
    """A random normalised image, (1, 3, size, size)."""
    return torch.from_numpy(np.random.default_rng(8).standard_normal((1, 3, size, size)).astype(np.float32))


def seeded_prompts(size):
    """Points with labels, boxes, masks of two prompts in an image of `size`, by kind; None where absent."""
    points = torch.tensor([[[0.1, 0.13], [0.62, 0.3]], [[0.02, 0.03], [0.4, 0.92]]]) * size
    labels = torch.tensor([[1, 0], [1, 1]])
    boxes = torch.tensor([[0.03, 0.06, 0.31, 0.4], [0.15, 0.2, 0.8, 0.99]]) * size
    mask = 4 * np.random.default_rng(9).standard_normal((2, 1, size // 4, size // 4)).astype(np.float32)
    return {
        "points": ((points, labels), None, None),
        "box": (None, boxes, None),
        "points and box": ((points, labels), boxes, None),
        "points and mask": ((points, labels), None, torch.from_numpy(mask)),
    }


def sampled(tensor):
    """At most `SAMPLES` values of a tensor, always at the same places."""
    flat = tensor.detach().numpy().ravel()
    if flat.size <= SAMPLES:
        return flat
    return flat[np.random.default_rng(10).choice(flat.size, SAMPLES, replace=False)]


def apart(ours, theirs):
    """The relative error: the norm of the difference over the norm of `theirs`."""
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
