"""Bundles that tests share: one of the embedded model and one of a few kilobytes."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sam_edge import load
from tests.support.exports import export_once, make_once, shared_folder

# How long an example takes says something of the machine only. A fixture that all examples of a test share is
# one that each of them leaves as it was.
settings.register_profile(
    "sam-edge",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sam-edge")


@pytest.fixture(scope="session", autouse=True)
def only_the_cpu():
    """In this process ONNX Runtime has the CPU alone, whichever of its packages and plugins are installed.

    Tests of other providers bring stand-ins; those of Qualcomm's simulator start processes of their own.
    """
    import onnxruntime

    from sam_edge.backends.onnxruntime import providers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
        patch.setattr(providers, "_PLUGINS", {})
        yield


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """The folder of the bundles that are exported once for all test processes."""
    return shared_folder(tmp_path_factory)


@pytest.fixture(scope="session")
def exported(bundles):
    """The embedded default model's bundle; do not change it."""
    return export_once(bundles, "default")


@pytest.fixture(scope="session")
def clip_folder(bundles):
    """A small random CLIP as published; do not change it."""
    from tools.make_clip import random_clip, write_hugging_face

    return make_once(bundles / "clip-checkpoint", lambda path: write_hugging_face(path, random_clip()))


@pytest.fixture(scope="session")
def six_variants(bundles, clip_folder):
    """The embedded model in ONNX and OpenVINO, in three precisions, with a small CLIP; do not change it.

    The gates on masks are off: other tests are of them, and the search for INT8 would take its time.
    """
    arguments = ["--format", "onnx,openvino", "--precision", "fp32,fp16,int8", "--min-iou", "0"]
    return export_once(bundles, "six-variants", *arguments, "--clip", str(clip_folder))


@pytest.fixture(scope="session")
def with_texts(bundles, clip_folder):
    """The embedded model in ONNX and OpenVINO, whose decoders take any number of prompts and text embeddings,
    with a small CLIP; do not change it."""
    arguments = ["--format", "onnx,openvino", "--dynamic", "--text-embeddings"]
    return export_once(bundles, "with-texts", *arguments, "--clip", str(clip_folder))


@pytest.fixture(scope="session")
def for_web(bundles):
    """The embedded model for any device and for browsers, as web/tests/setup.ts exports it."""
    arguments = ["--format", "onnx", "--precision", "fp32,int8", "--target", "any,web"]
    return export_once(bundles, "web", *arguments)


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
