"""A bundle on disk: its manifest, its variants, and whether its files are what was exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..axes import PRECISIONS
from ..errors import BundleError, IntegrityError
from ..system.files import sha256_file
from .manifest import ClipEntry, Manifest, read_manifest
from .variant import ClipVariant, File, Variant


@dataclass(frozen=True)
class Bundle:
    """A directory made by `sam-edge export` and its checked manifest."""

    path: Path
    manifest: Manifest

    def choose(self, formats: tuple[str, ...], precision: str = "auto") -> Variant:
        """Return the first variant in one of `formats` and of `precision` ("auto": the most exact).

        Raises:
            BundleError: the bundle has no such variant; lists those it has.
        """
        wanted = PRECISIONS.names() if precision == "auto" else (precision,)
        for one in wanted:
            for variant in self.manifest.variants:
                if variant.format in formats and variant.precision == one:
                    return variant
        raise BundleError(
            f"{self.path} has no variant of format {' or '.join(formats)} and precision {precision}; "
            f"it has: {self._ids()}"
        )

    def variant(self, name: str) -> Variant:
        """Return the variant with that id.

        Raises:
            BundleError: the bundle has no such variant; lists those it has.
        """
        for variant in self.manifest.variants:
            if variant.id == name:
                return variant
        raise BundleError(f"{self.path} has no variant {name!r}; it has {self._ids()}")

    def clip(self) -> ClipEntry:
        """Return the manifest's CLIP.

        Raises:
            BundleError: the bundle has none; the message says how to export it.
        """
        clip = self.manifest.clip
        if clip is None:
            raise BundleError(
                f"{self.path} holds no CLIP, which finds masks by a text; export it again with "
                "`sam-edge export ... --clip FOLDER`"
            )
        return clip

    def clip_variant(self, name: str) -> ClipVariant:
        """Return the CLIP graphs that belong to the variant `name`.

        Raises:
            BundleError: the bundle has no CLIP, or none for that variant.
        """
        clip = self.clip()
        for variant in clip.variants:
            if variant.id == name:
                return variant
        there = ", ".join(variant.id for variant in clip.variants)
        raise BundleError(f"{self.path} has no CLIP for {name}; it has it for: {there}")

    def check_files(self, variant: Variant | ClipVariant) -> None:
        """Raise `IntegrityError` unless every file of `variant` is the one exported."""
        for file in variant.files:
            self.check_file(file)

    def check_golden(self) -> Path:
        """Return the golden data's path; raise `IntegrityError` unless it is the file exported."""
        return self.check_file(self.manifest.golden)

    def check_clip_golden(self) -> Path:
        """Return the path of the golden data for its CLIP, checked as by `check_golden`."""
        return self.check_file(self.clip().golden)

    def check_tokenizer(self) -> Path:
        """Return the path of its CLIP's tokenizer, checked as by `check_golden`."""
        return self.check_file(self.clip().tokenizer)

    def check_clip(self) -> int:
        """Raise `IntegrityError` unless every file of its CLIP is the one exported; return their number."""
        clip = self.manifest.clip
        files = [] if clip is None else clip.files
        for file in files:
            self.check_file(file)
        return len(files)

    def check_file(self, file: File) -> Path:
        """Return the path of a file of the manifest; raise `IntegrityError` unless it is the one exported."""
        path = self.path / file.path
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; export or copy the bundle again")
        try:
            same = path.stat().st_size == file.bytes and sha256_file(path) == file.sha256
        except OSError as error:
            raise IntegrityError(
                f"{path} cannot be read ({error.strerror}); check its permissions"
            ) from error
        if not same:
            raise IntegrityError(
                f"{path} is not the file that was exported (its size or sha256 differs); export or "
                "copy the bundle again"
            )
        return path

    def _ids(self) -> str:
        return ", ".join(variant.id for variant in self.manifest.variants)


def open_bundle(path: str | Path) -> Bundle:
    """Read a bundle's manifest; files are checked when they are used.

    Raises:
        BundleError: not a bundle, or one that cannot be used; the message says why.
    """
    path = Path(path)
    return Bundle(path, read_manifest(path))
