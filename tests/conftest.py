"""Bundles that tests share: one of the embedded model and one of a few kilobytes."""

import shutil
from pathlib import Path

import pytest

from sam_edge import load
from sam_edge.cli import main


@pytest.fixture(scope="session", autouse=True)
def no_plugins():
    """This process is one of a machine without the packages that add devices to ONNX Runtime, whatever is
    installed; tests of Qualcomm's simulator start processes of their own."""
    from sam_edge.backends.onnxruntime import providers

    providers._PLUGINS.clear()


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The embedded default model's bundle; do not change it."""
    out = tmp_path_factory.mktemp("exported") / "bundle"
    assert main(["export", "--out", str(out)]) == 0
    return out


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy of the bundle that a test may change."""
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory):
    """A toy bundle, for tests that need graphs but no model; do not change it."""
    from tests.support import toy

    return toy.write_bundle(tmp_path_factory.mktemp("toy") / "bundle")


@pytest.fixture
def toy_copy(toy_bundle, tmp_path):
    """A copy of the toy bundle that a test may change."""
    return Path(shutil.copytree(toy_bundle, tmp_path / "toy"))


@pytest.fixture(scope="session")
def sam(toy_bundle):
    """The toy bundle, loaded."""
    with load(toy_bundle) as sam:
        yield sam


@pytest.fixture(scope="session")
def photo():
    from sam_edge.models.photos import HERE

    return HERE / "cat.jpg"
