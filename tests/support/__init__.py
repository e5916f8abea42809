"""What several tests share: the toy bundle, sample reports, requests to the server."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
