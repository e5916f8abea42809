"""`manifest.json`: what a bundle holds and how its model wants its inputs.

The schema is `manifest.schema.json`; this module reads, checks and writes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BundleError, IntegrityError
from ..imaging.preprocess import InputRules
from ..system.files import write_atomically
from .enums import find_unknown_names, with_names
from .schema import validate

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# The parts of a decoder whose scores come before its masks: all that comes before, and what draws masks.
STAGES = ("scorer", "upscaler")


@dataclass(frozen=True)
class PromptRules:
    """How prompts are given to the decoder.

    Attributes:
        coordinate_size: (height, width) of the square that coordinates are pixels of; the encoder's input,
            padding included, scaled to it.
        padding_point: "without_box" or "always": when a padding point (0, 0), label -1, is appended.
        num_points: how many points the decoder takes, padding points included; None for any number.
        mask_prompt: whether an earlier mask can be a prompt.
        text_embeddings: whether the decoder takes text embeddings as tokens of a prompt.
    """

    coordinate_size: tuple[int, int]
    padding_point: str
    num_points: int | None
    mask_prompt: bool = True
    text_embeddings: bool = False


@dataclass(frozen=True)
class ClipRules:
    """How a bundle's CLIP wants its texts and images.

    Attributes:
        image_size: side of the square that it sees; images are resized by their short side, as Pillow's
            bicubic does, and cropped at their centre.
        mean, std: of the image's R, G and B, on the 0 to 255 scale.
        context_length: tokens of a text, the first and the last one included.
        end_of_text: the number of the token that ends a text.
        embed_dim: numbers of a feature.
        logit_scale: what it was trained to multiply cosine similarities with.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    context_length: int
    end_of_text: int
    embed_dim: int
    logit_scale: float


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. `data` is the JSON as read."""

    data: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        """family, name, parameters, checkpoint and license."""
        return dict(self.data["model"])

    @property
    def checkpoint_sha256(self) -> str:
        """Of the file that the bundle was made from."""
        return str(self.data["model"]["checkpoint"]["sha256"])

    @property
    def model_id(self) -> str:
        """The checkpoint's sha256, with the input's size where that is not the model's own: embeddings fit
        only the model they come from."""
        height, width = self.input.size
        return self.checkpoint_sha256 + (f"-{height}x{width}" if self.resized_from else "")

    @property
    def input(self) -> InputRules:
        """How an image becomes the encoder's input."""
        rules = self.data["input"]
        return InputRules(
            (int(rules["size"][0]), int(rules["size"][1])),
            rules["resize"],
            rules["antialias"],
            tuple(rules["mean"]),
            tuple(rules["std"]),
            rules["pad_value"],
        )

    @property
    def resized_from(self) -> dict[str, Any] | None:
        """`size` (height, width) that the model was made for, where the bundle's input is another, with
        `mean_iou`, `min_iou` and `boundary_iou`: how far the reference's masks at the bundle's size agree
        with those at that one."""
        found = self.data.get("resized_from")
        return None if found is None else dict(found)

    @property
    def prompt(self) -> PromptRules:
        """How prompts are given to the decoder."""
        rules = self.data["prompt"]
        height, width = rules["coordinate_size"]
        return PromptRules(
            (int(height), int(width)),
            rules["padding_point"],
            rules["num_points"],
            rules["mask_prompt"],
            rules.get("text_embeddings", False),
        )

    @property
    def clip(self) -> ClipRules | None:
        """How the bundle's CLIP wants its texts and images; None where it has none."""
        rules = self.data.get("clip")
        if rules is None:
            return None
        return ClipRules(
            int(rules["image_size"]),
            tuple(rules["mean"]),
            tuple(rules["std"]),
            int(rules["context_length"]),
            int(rules["end_of_text"]),
            int(rules["embed_dim"]),
            float(rules["logit_scale"]),
        )

    @property
    def square(self) -> InputRules:
        """`input` at the size of the coordinate square: prompts go to its pixels and masks come from them."""
        return replace(self.input, size=self.prompt.coordinate_size)

    @property
    def mask_threshold(self) -> float:
        """Logits above this belong to the mask."""
        return float(self.data["mask"]["threshold"])

    @property
    def mask_size(self) -> tuple[int, int]:
        """(h, w) of the low-resolution logits."""
        h, w = self.data["mask"]["size"]
        return int(h), int(w)

    @property
    def low_res_limit(self) -> float | None:
        """Low-resolution logits are given out clipped to plus and minus this, if to anything."""
        limit = self.data["mask"]["low_res_limit"]
        return None if limit is None else float(limit)

    @property
    def mask_count(self) -> int:
        """How many masks the decoder makes of a prompt."""
        return int(self.data["mask"]["count"])

    @property
    def first_multimask(self) -> int:
        """Index of the first of the decoder's masks for ambiguous prompts; one before it, if any, is for
        others."""
        return int(self.data["mask"]["first_multimask"])

    @property
    def pred_iou_thresh(self) -> float:
        """The predicted IoU that masks of everything-mode should have; SAM's 0.88 if the model has no own."""
        return float(self.data["mask"].get("pred_iou_thresh", 0.88))

    @property
    def stability_score_thresh(self) -> float:
        """The stability that masks of everything-mode should have; SAM's 0.95 if the model has no own."""
        return float(self.data["mask"].get("stability_score_thresh", 0.95))

    @property
    def golden(self) -> dict[str, Any]:
        """path, sha256 and bytes of the golden data."""
        return dict(self.data["golden"])

    @property
    def variants(self) -> list[dict[str, Any]]:
        """One entry per format and precision, as in the schema."""
        return list(self.data["variants"])


@cache
def _own_schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("manifest.schema.json").read_bytes())
    return loaded


def schema() -> dict[str, Any]:
    """The manifest's JSON schema, with every format, precision and target that is registered."""
    return with_names(_own_schema())


def integrity(data: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of everything but the key `integrity` itself."""
    rest = {key: value for key, value in data.items() if key != "integrity"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def model_facts(data: dict[str, Any]) -> dict[str, Any]:
    """The part of a manifest that also goes into each artifact's own metadata."""
    keys = ("schema_version", "sam_edge_version", "model", "input", "resized_from", "prompt", "mask")
    return {key: data[key] for key in keys if key in data}


def cost_words(resized_from: dict[str, Any]) -> str:
    """What another input than the model's own costs, in words."""
    height, width = resized_from["size"]
    return (
        f"against the model's own {width} x {height}: mean IoU {resized_from['mean_iou']:.4f} "
        f"(min {resized_from['min_iou']:.4f}, boundary {resized_from['boundary_iou']:.4f}, "
        f"{resized_from['num_prompts']} prompts)"
    )


def read_manifest(bundle: Path) -> Manifest:
    """Read and check BUNDLE/manifest.json.

    Raises:
        BundleError: no bundle there, not JSON, made by a newer sam-edge, against the schema, or
            naming a path that leaves the bundle.
        IntegrityError: changed since the export.
    """
    path = bundle / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{bundle} is not a bundle: {path} cannot be read ({error.strerror}); give a directory "
            "made by `sam-edge export`"
        ) from error
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the bundle again") from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, this sam-edge reads up to {SCHEMA_VERSION}; "
            "upgrade sam-edge"
        )
    find_unknown_names(data)
    try:
        validate(data, schema())
    except ValueError as error:
        raise BundleError(f"{path} is not a valid manifest: {error}; export it again") from error
    if data["mask"]["first_multimask"] >= data["mask"]["count"]:
        raise BundleError(
            f"{path} has first_multimask {data['mask']['first_multimask']} of {data['mask']['count']} masks; "
            "export it again"
        )
    height, width = data["input"]["size"]
    if data["input"]["resize"] == "longest_side" and height != width:
        raise BundleError(
            f"{path} has an input of {height} by {width}, into which images resized by their longest side do "
            "not fit; export it again"
        )
    root = bundle.resolve()
    for name in dict.fromkeys(_paths(data)):
        _check_path(root, bundle, name)
    for variant in data["variants"]:
        stages = tuple(part for part in STAGES if part in variant)
        if stages not in ((), STAGES):
            raise BundleError(f"{path} names a {stages[0]} of {variant['id']!r} alone; export it again")
        _check_graphs(path, variant, ("encoder", "decoder", *stages))
        # How many prompts a run takes is read from there.
        for part in ("decoder", *stages[:1]):
            inputs = variant[part]["inputs"]
            if not any(tensor["name"] == "point_coords" and tensor["shape"] for tensor in inputs):
                raise BundleError(
                    f"{path}: the {part} of {variant['id']!r} takes no point_coords; export it again"
                )
        _check_target(path, variant)
    for variant in _clip_variants(data):
        _check_graphs(path, variant, ("text_encoder", "image_encoder"))
    if integrity(data) != data["integrity"]:
        raise IntegrityError(f"{path} was changed since it was exported; export or copy the bundle again")
    return Manifest(data)


def write_manifest(bundle: Path, data: dict[str, Any]) -> None:
    """Check `data` against the schema, add its `integrity`, write BUNDLE/manifest.json."""
    data = {**data, "integrity": integrity(data)}
    data = json.loads(json.dumps(data, allow_nan=False))
    validate(data, schema())
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    write_atomically(bundle / MANIFEST, text.encode())


def _clip_variants(data: dict[str, Any]) -> list[dict[str, Any]]:
    return list(data["clip"]["variants"]) if "clip" in data else []


def _paths(data: dict[str, Any]) -> list[str]:
    names = [data["golden"]["path"]]
    for variant in data["variants"]:
        names += [file["path"] for file in variant["files"]]
        names += [variant[part]["path"] for part in ("encoder", "decoder", *STAGES) if part in variant]
        names += [variant["context"][part] for part in ("encoder", "decoder") if "context" in variant]
    if "clip" in data:
        names += [data["clip"]["tokenizer"]["path"], data["clip"]["golden"]["path"]]
    for variant in _clip_variants(data):
        names += [file["path"] for file in variant["files"]]
        names += [variant["text_encoder"]["path"], variant["image_encoder"]["path"]]
    return names


def _check_graphs(path: Path, variant: dict[str, Any], kinds: tuple[str, ...]) -> None:
    """Only files with a hash may be opened; a graph may be a directory of such files."""
    files = [file["path"] for file in variant["files"]]
    for kind in kinds:
        graph = variant[kind]["path"]
        if not any(file == graph or file.startswith(f"{graph}/") for file in files):
            raise BundleError(
                f"{path} names {graph!r} as the {kind} of {variant['id']!r}, but not among its files; "
                "export the bundle again"
            )


# More points than any prompt has.
_MOST_POINTS = 4096


def _check_target(path: Path, variant: dict[str, Any]) -> None:
    """A fixed number of points where absent ones fill up, and a hash for the compiled graphs."""
    name = variant["id"]
    files = {file["path"] for file in variant["files"]}
    for part in ("encoder", "decoder") if "context" in variant else ():
        if variant["context"][part] not in files:
            raise BundleError(
                f"{path} names {variant['context'][part]!r} as the compiled {part} of {name!r}, but not "
                "among its files; export the bundle again"
            )
    if "absent_label" in variant:
        for tensor in variant["decoder"]["inputs"]:
            if tensor["name"] == "point_coords" and not _is_count(tensor["shape"][1:2]):
                raise BundleError(
                    f"{path}: the decoder of {name!r} fills up with absent points, but takes no fixed number "
                    "of them; export it again"
                )


def _is_count(axis: list[Any]) -> bool:
    return len(axis) == 1 and isinstance(axis[0], int) and 1 <= axis[0] <= _MOST_POINTS


def _check_path(root: Path, bundle: Path, name: str) -> None:
    unsafe = name.startswith("/") or re.search(r"[\\:\x00]", name) is not None or ".." in name.split("/")
    try:
        if not unsafe and (root / name).resolve().is_relative_to(root):
            return
    except (OSError, RuntimeError, ValueError):
        pass
    raise BundleError(
        f"{bundle / MANIFEST} names {name!r}, which is not a file inside the bundle; do not use a "
        "bundle from this source"
    )
