"""`sam_model_registry` as in `segment_anything`: a name and a checkpoint give a model.

Here the checkpoint is a bundle, or a checkpoint file whose bundle is beside it under the name that
`sam-edge export --checkpoint FILE` gives it: `sam_vit_b_01ec64.pth` and `sam_vit_b_01ec64-bundle`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import BundleError
from ..runtime.loading import load
from ..runtime.sam import Sam

# Names in the published registries of SAM and MobileSAM that the catalogue has under another.
_ALIASES = {"vit_t": "mobile_sam"}


def _build(name: str, checkpoint: str | Path | None = None) -> Sam:
    if checkpoint is None:
        raise BundleError(
            f"sam_model_registry[{name!r}] needs checkpoint=BUNDLE, a directory made by `sam-edge export`"
        )
    path = Path(checkpoint)
    if not path.is_dir():
        bundle = path.with_name(f"{path.stem}-bundle")
        if not bundle.is_dir():
            raise BundleError(
                f"{path} is no bundle, and {bundle} is not there; make it with `sam-edge export --checkpoint "
                f"{path} --out {bundle}`"
            )
        path = bundle
    sam = load(path)
    found, wanted = sam.manifest.model.name, _ALIASES.get(name, name)
    if wanted not in ("default", found):
        sam.close()
        raise BundleError(f"{path} holds {found}, not {wanted}; use sam_model_registry[{found!r}]")
    return sam


class _Registry:
    """Any name of `sam-edge models`, or "default" for whatever the bundle holds."""

    def __getitem__(self, name: str) -> Callable[..., Sam]:
        return partial(_build, name)


sam_model_registry = _Registry()
