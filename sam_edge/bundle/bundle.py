"""A bundle on disk: its manifest, its variants, and whether its files are what was exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..axes import PRECISIONS
from ..errors import BundleError, IntegrityError
from ..system.files import sha256_file
from .manifest import Manifest, read_manifest


@dataclass(frozen=True)
class Bundle:
    """A directory made by `sam-edge export` and its checked manifest."""

    path: Path
    manifest: Manifest

    def choose(self, formats: tuple[str, ...], precision: str = "auto") -> dict[str, Any]:
        """The first variant in one of `formats` and of `precision` ("auto": the most exact).

        Raises:
            BundleError: there is none; lists what there is.
        """
        wanted = PRECISIONS.names() if precision == "auto" else (precision,)
        for one in wanted:
            for variant in self.manifest.variants:
                if variant["format"] in formats and variant["precision"] == one:
                    return variant
        there = ", ".join(v["id"] for v in self.manifest.variants)
        raise BundleError(
            f"{self.path} has no variant of format {' or '.join(formats)} and precision {precision}; "
            f"it has: {there}"
        )

    def variant(self, name: str) -> dict[str, Any]:
        """The variant with that id.

        Raises:
            BundleError: there is none; lists those that there are.
        """
        for variant in self.manifest.variants:
            if variant["id"] == name:
                return variant
        there = ", ".join(variant["id"] for variant in self.manifest.variants)
        raise BundleError(f"{self.path} has no variant {name!r}; it has {there}")

    def check_files(self, variant: dict[str, Any]) -> None:
        """Raise `IntegrityError` unless every file of `variant` is the one exported."""
        for file in variant["files"]:
            self.check_file(file)

    def check_golden(self) -> Path:
        """The golden data's path; raises `IntegrityError` unless it is the file exported."""
        self.check_file(self.manifest.golden)
        return self.path / str(self.manifest.golden["path"])

    def check_clip_golden(self) -> Path:
        """The path of the golden data for its CLIP, as `check_golden`."""
        file = self.manifest.data["clip"]["golden"]
        self.check_file(file)
        return self.path / str(file["path"])

    def check_clip(self) -> int:
        """Raise `IntegrityError` unless every file of its CLIP is the one exported; how many there are."""
        clip = self.manifest.data.get("clip")
        if clip is None:
            return 0
        files = [clip["tokenizer"], clip["golden"]]
        files += [file for variant in clip["variants"] for file in variant["files"]]
        for file in files:
            self.check_file(file)
        return len(files)

    def check_tokenizer(self) -> Path:
        """The path of its CLIP's tokeniser, as `check_golden`."""
        file = self.manifest.data["clip"]["tokenizer"]
        self.check_file(file)
        return self.path / str(file["path"])

    def clip(self) -> dict[str, Any]:
        """The manifest's `clip`.

        Raises:
            BundleError: the bundle has none; the message says how to export it.
        """
        if "clip" not in self.manifest.data:
            raise BundleError(
                f"{self.path} holds no CLIP, which finds masks by a text; export it again with "
                "`sam-edge export ... --clip FOLDER`"
            )
        return dict(self.manifest.data["clip"])

    def clip_variant(self, name: str) -> dict[str, Any]:
        """The CLIP graphs that belong to the variant `name`.

        Raises:
            BundleError: the bundle has no CLIP, or none for that variant.
        """
        clip = self.clip()
        for variant in clip["variants"]:
            if variant["id"] == name:
                return dict(variant)
        there = ", ".join(v["id"] for v in clip["variants"])
        raise BundleError(f"{self.path} has no CLIP for {name}; it has it for: {there}")

    def check_file(self, file: dict[str, Any]) -> None:
        """Raise `IntegrityError` unless `file`, of those that the manifest lists, is the one exported."""
        path = self.path / file["path"]
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; export or copy the bundle again")
        try:
            same = path.stat().st_size == file["bytes"] and sha256_file(path) == file["sha256"]
        except OSError as error:
            raise IntegrityError(
                f"{path} cannot be read ({error.strerror}); check its permissions"
            ) from error
        if not same:
            raise IntegrityError(
                f"{path} is not the file that was exported (its size or sha256 differs); export or "
                "copy the bundle again"
            )


def open_bundle(path: str | Path) -> Bundle:
    """Read a bundle's manifest; files are checked when they are used.

    Raises:
        BundleError: not a bundle, or one that cannot be used; the message says why.
    """
    path = Path(path)
    return Bundle(path, read_manifest(path))
