"""Reads the documentation's pages, and the working directory that their examples expect."""

import re

from PIL import Image

from tests.support import ROOT

PAGES = [
    "README.md",
    "web/README.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
]
# Bundles that the examples name and that the embedded model's stands in for.
BUNDLES = ("out/sam_edge_tiny", "vit_b")


def read(page):
    return (ROOT / page).read_text("utf-8")


def blocks(page, language):
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.S | re.M)


def make_folder(folder, exported):
    """Put the files that the examples name into `folder`."""
    (folder / "out").mkdir()
    for name in BUNDLES:
        (folder / name).symlink_to(exported)
    photo = Image.open(ROOT / "models/photos/astronaut.jpg").convert("RGB")
    photo.resize((1024, 768)).save(folder / "photo.jpg")
