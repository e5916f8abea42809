"""One exported default bundle, shared by every test that only reads it."""

import shutil

import pytest

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
    """A copy of the bundle that a test may spoil."""
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture(scope="session")
def photo():
    from sam_edge.models.photos import HERE

    return HERE / "cat.jpg"
