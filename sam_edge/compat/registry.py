"""`sam_model_registry` as in `segment_anything`: a name and a checkpoint give a model.

The checkpoint is a bundle, or a checkpoint file whose bundle is beside it under the name that
`sam-edge export --checkpoint FILE` gives it: `sam_vit_b_01ec64.pth` and `sam_vit_b_01ec64-bundle`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import BundleError
from ..runtime.choice import Request
from ..runtime.loading import find_opener
from .sam import TorchSam

# Names in the published registries of SAM and MobileSAM that the catalogue has under another.
_ALIASES = {"vit_t": "mobile_sam"}


def _build(name: str, checkpoint: str | Path | None = None) -> TorchSam:
    if checkpoint is None:
        raise BundleError(
            f"sam_model_registry[{name!r}] needs checkpoint=BUNDLE, a directory made by `sam-edge export`"
        )
    path = Path(checkpoint)
    if not path.is_dir():
        bundle = path.with_name(f"{path.stem}-bundle")
        if not bundle.is_dir():
            raise BundleError(
                f"{path} is not a bundle, and {bundle} does not exist; make it with `sam-edge export "
                f"--checkpoint {path} --out {bundle}`"
            )
        path = bundle
    opener = find_opener(path, Request())
    found, asked = opener.bundle.manifest.model.name, _ALIASES.get(name, name)
    if asked not in ("default", found):
        raise BundleError(f"{path} holds {found}, not {asked}; use sam_model_registry[{found!r}]")
    return TorchSam(opener)


class _Registry:
    """Maps any name of `sam-edge models`, or "default" for whatever the bundle holds, to a function that
    loads it; the function's errors are those of `sam_edge.load`.

        sam = sam_model_registry["default"](checkpoint="bundle")
        predictor = SamPredictor(sam)
    """

    def __getitem__(self, name: str) -> Callable[..., TorchSam]:
        return partial(_build, name)


sam_model_registry = _Registry()
