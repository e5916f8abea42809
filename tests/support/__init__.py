"""What several tests share: the toy bundle, sample reports, requests to the server, exported bundles."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

PATIENCE = 600
"""Seconds to wait for what must come. Only a failure takes them: a machine may be ten times overloaded."""


def left_behind(home: Path, *words: str) -> list[Path]:
    """What is below `home` that has one of the words (in lower case) in its name.

    Other software may leave files of its own: a graphics driver that is asked for devices makes its cache.
    """
    return [path for path in home.rglob("*") if any(word in path.name.casefold() for word in words)]
