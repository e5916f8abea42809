"""Which backend, device and variant are chosen, and the reasons given for the others."""

import json

import pytest

from sam_edge import BackendError, BundleError, DeviceError, load
from sam_edge.bundle.bundle import open_bundle
from sam_edge.cli import main
from sam_edge.runtime.choice import Request, explain_choice
from sam_edge.runtime.loading import load_variant
from sam_edge.system.install import install_command
from tests.support import toy


@pytest.fixture
def wide(toy_copy):
    """A bundle that says it has variants of two formats and three precisions."""

    def change(data):
        one = data["variants"][0]
        for kind, precision in (("onnx", "int8"), ("onnx", "fp16"), ("openvino", "fp32")):
            data["variants"].append(
                {**one, "id": f"{kind}-{precision}", "format": kind, "precision": precision}
            )

    toy.rewrite_manifest(toy_copy, change)
    return toy_copy


@pytest.fixture
def machine(monkeypatch):
    """One with a CPU for ONNX Runtime, and the backends that are not blocked."""
    import sys

    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "openvino", None)


def lines(bundle, **wanted):
    return [str(choice) for choice in explain_choice(open_bundle(bundle), Request(**wanted))]


def test_every_line(machine, wide):
    found = lines(wide)
    assert found[0] == "onnxruntime cpu CPUExecutionProvider onnx-fp32: chosen"
    assert sum(line.endswith(": chosen") for line in found) == 1
    for line in (
        "onnxruntime gpu CUDAExecutionProvider: not in the installed package; onnxruntime-gpu has it",
        "onnxruntime npu QNNExecutionProvider: not in the installed package; onnxruntime-qnn has it",
        "onnxruntime cpu CPUExecutionProvider onnx-int8: less exact than onnx-fp32",
        "onnxruntime cpu CPUExecutionProvider onnx-fp16: less exact than onnx-fp32",
        f"openvino cpu CPU: OpenVINO is not installed; {install_command('openvino')}",
        "coreml cpu mil-reference: the bundle has no coreml variant",
    ):
        assert line in found


def test_what_was_asked_for(machine, wide):
    found = lines(wide, precision="int8")
    assert "onnxruntime cpu CPUExecutionProvider onnx-int8: chosen" in found
    assert "onnxruntime cpu CPUExecutionProvider onnx-fp32: int8 was asked for" in found
    assert "coreml cpu mil-reference: the bundle has no coreml variant of precision int8" in found
    found = lines(wide, device="gpu")
    assert "onnxruntime cpu CPUExecutionProvider: gpu was asked for" in found
    assert not any(line.endswith("chosen") for line in found)
    found = lines(wide, backend="openvino")
    assert found == [f"openvino cpu CPU: OpenVINO is not installed; {install_command('openvino')}"]
    with pytest.raises(BackendError, match="abacus"):
        lines(wide, backend="abacus")


def test_a_device_of_another_backend_is_why_it_is_taken(machine, wide, monkeypatch):
    from sam_edge.backends import DeviceInfo, get_backend

    openvino = get_backend("openvino")
    rows = [DeviceInfo("openvino", name, kind, True, "") for name, kind in (("CPU", "cpu"), ("GPU.0", "gpu"))]
    monkeypatch.setattr(openvino, "devices", lambda: rows)
    assert lines(wide)[0].endswith("chosen") and "openvino cpu CPU: onnxruntime comes first" in lines(wide)
    found = lines(wide, device="gpu")
    assert "openvino gpu GPU.0 openvino-fp32: chosen" in found
    assert "openvino cpu CPU: gpu was asked for" in found
    found = lines(wide, backend="openvino")
    assert "openvino gpu GPU.0: auto is the cpu; ask for --device gpu" in found


def test_explain_prints_it_and_the_model_holds_it(machine, wide, capsys):
    with load(wide, explain=True) as sam:
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.splitlines() == [str(choice) for choice in sam.choices]
        (chosen,) = [choice for choice in sam.choices if choice.chosen]
        assert (chosen.backend, chosen.device, chosen.variant) == (sam.backend, sam.device, "onnx-fp32")
    with load(wide) as sam:
        assert capsys.readouterr() == ("", "") and sum(choice.chosen for choice in sam.choices) == 1


def test_it_is_explained_before_it_fails(machine, wide, capsys):
    with pytest.raises(DeviceError):
        load(wide, device="gpu", explain=True)
    assert "onnxruntime gpu CUDAExecutionProvider: not in the installed package" in capsys.readouterr().err
    with pytest.raises(BundleError):
        load(wide, precision="fp64", explain=True)
    assert "the bundle has no onnx variant of precision fp64" in capsys.readouterr().err


def test_a_variant_by_name_explains_itself(machine, wide):
    bundle = open_bundle(wide)
    with load_variant(bundle, bundle.choose(("onnx",), "int8")) as sam:
        (chosen,) = [choice for choice in sam.choices if choice.chosen]
        assert chosen.variant == "onnx-int8"
        reasons = {choice.variant: choice.reason for choice in sam.choices if choice.variant}
        assert reasons["onnx-fp32"] == "onnx-int8 was asked for"


def test_the_command_line(machine, wide, capsys, tmp_path):
    from PIL import Image

    assert main(["devices", str(wide)]) == 0
    assert capsys.readouterr().out.splitlines() == lines(wide)
    assert main(["devices", str(wide), "--precision", "int8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"devices", "choices"}
    assert all(
        row.keys() == {"backend", "device", "name", "variant", "chosen", "reason"}
        for row in answer["choices"]
    )
    assert [row["variant"] for row in answer["choices"] if row["chosen"]] == ["onnx-int8"]
    assert main(["devices", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"devices"}
    assert all(
        row.keys() == {"backend", "name", "kind", "available", "reason", "simulated"}
        for row in answer["devices"]
    )
    Image.fromarray(toy.picture()).save(tmp_path / "photo.png")
    command = ["predict", str(wide), str(tmp_path / "photo.png"), "--point", "9,9", "--json", "--explain"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["backend"] == "onnxruntime" and printed.err.splitlines() == lines(wide)


@pytest.mark.parametrize(
    "arguments", [["none"], ["--backend", "abacus"], ["{bundle}", "--backend", "abacus"], ["a", "b"]]
)
def test_wrong_arguments(capsys, toy_bundle, arguments):
    arguments = [part.format(bundle=toy_bundle) for part in arguments]
    assert main(["devices", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
