"""A toy bundle of a few kilobytes, for tests that need graphs but no model."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import toy

from sam_edge import load


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory):
    """Do not change it."""
    return toy.write_bundle(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture
def toy_copy(toy_bundle, tmp_path):
    """One that a test may spoil."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "toy"))


@pytest.fixture(scope="session")
def sam(toy_bundle):
    with load(toy_bundle) as sam:
        yield sam
