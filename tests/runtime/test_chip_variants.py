"""Variants exported for one accelerator: when they are chosen, and their decoders' fixed number of points."""

import json
import subprocess
import warnings
from dataclasses import replace

import numpy as np
import pytest

from sam_edge import BundleError, DeviceError, PromptError, SamEdgeWarning, load
from sam_edge.backends import DeviceInfo, Session, get_backend
from sam_edge.bundle.bundle import open_bundle
from sam_edge.cli import main
from sam_edge.runtime import targets
from sam_edge.runtime.choice import Request, choose, explain_choice
from sam_edge.runtime.opener import OpenedGraphs
from sam_edge.runtime.sam import Sam
from sam_edge.system.cpu import Cpu, this_cpu
from tests.support import toy

BACKEND = get_backend("onnxruntime")


def add_hexagon(data):
    """An int8 and an fp16 variant for Hexagon beside the ordinary one."""
    (one,) = data["variants"]
    for precision in ("int8", "fp16"):
        name = f"onnx-{precision}-hexagon"
        data["variants"].append({**one, "id": name, "precision": precision, "accelerator": "hexagon"})


@pytest.fixture
def both(toy_copy):
    toy.rewrite_manifest(toy_copy, add_hexagon)
    return toy_copy


def only_hexagon(data):
    add_hexagon(data)
    del data["variants"][0]


@pytest.fixture
def devices(monkeypatch):
    """A machine whose ONNX Runtime has a CPU and these."""

    def have(*names):
        found = [DeviceInfo("onnxruntime", "CPUExecutionProvider", "cpu", True, "")]
        found += [DeviceInfo("onnxruntime", name, "npu", True, "") for name in names]
        monkeypatch.setattr(BACKEND, "devices", lambda: found)

    return have


def taken(bundle, **wanted):
    return choose(open_bundle(bundle), Request(**wanted)).variant.id


def test_the_chips_variants_are_for_the_chip(both, devices):
    devices("QNNExecutionProvider")
    assert taken(both) == "onnx-fp32"
    assert taken(both, device="cpu") == "onnx-fp32"
    assert taken(both, device="npu") == "onnx-fp16-hexagon"
    assert taken(both, device="qnn", precision="int8") == "onnx-int8-hexagon"


def test_another_npu_takes_the_others(both, devices):
    devices("VitisAIExecutionProvider")
    assert taken(both, device="npu") == "onnx-fp32"


def test_where_there_is_nothing_else_they_run_anywhere(toy_copy, devices):
    devices()
    toy.rewrite_manifest(toy_copy, only_hexagon)
    assert taken(toy_copy) == "onnx-fp16-hexagon"
    with load(toy_copy) as sam:
        assert sam.device == "cpu"
        assert sam.predict(sam.encode(toy.picture()), [[40, 24]]).masks.any()


def test_what_is_said_of_the_others(both, devices):
    devices("QNNExecutionProvider")
    lines = [str(one) for one in explain_choice(open_bundle(both), Request(backend="onnxruntime"))]
    assert "onnxruntime cpu CPUExecutionProvider onnx-int8-hexagon: made for hexagon" in lines
    wanted = Request(backend="onnxruntime", device="npu")
    lines = [str(one) for one in explain_choice(open_bundle(both), wanted)]
    said = "onnxruntime npu QNNExecutionProvider onnx-fp32: onnx-fp16-hexagon is made for this device"
    assert said in lines


def test_nothing_is_said_to_be_made_for_a_device_that_it_is_not_made_for(toy_copy, devices):
    def change(data):
        (one,) = data["variants"]
        data["variants"].append({**one, "id": "onnx-fp32-hexagon", "accelerator": "hexagon"})
        one["browser"] = "web"

    toy.rewrite_manifest(toy_copy, change)
    devices()
    lines = [str(one) for one in explain_choice(open_bundle(toy_copy), Request(backend="onnxruntime"))]
    assert "onnxruntime cpu CPUExecutionProvider onnx-fp32-hexagon: made for hexagon" in lines


def test_they_must_run_whole(both, devices, monkeypatch):
    devices("QNNExecutionProvider")
    asked = []

    def open_without_fallback(path, device, threads):
        asked.append((path.name, device))
        return BACKEND.open(path, "cpu", threads)

    monkeypatch.setattr(BACKEND, "open_without_fallback", open_without_fallback)
    load(both, device="npu").close()
    assert sorted(asked) == [("decoder.onnx", "npu"), ("encoder.onnx", "npu")]
    asked.clear()
    load(both, precision="int8", device="cpu").close()
    assert not asked


def test_verify_leaves_out_what_is_not_made_for_the_device(both, devices, monkeypatch, capsys):
    devices("QNNExecutionProvider")
    monkeypatch.setattr(
        BACKEND, "open_without_fallback", lambda path, device, threads: BACKEND.open(path, "cpu", threads)
    )
    assert main(["verify", str(both), "--device", "npu", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["variants"]}
    assert rows["onnx-fp32"]["passed"] is None and "not exported for QNN" in rows["onnx-fp32"]["reason"]
    assert rows["onnx-int8-hexagon"]["passed"] and rows["onnx-fp16-hexagon"]["passed"]


def test_the_benchmark_has_rows_for_what_is_meant_only(both, devices):
    from sam_edge.benchmarks.measure.rows import find_rows

    devices("QNNExecutionProvider")
    rows = find_rows(open_bundle(both), "onnxruntime", ["cpu", "npu"], [])
    assert {(row.asked, row.id) for row in rows} == {
        ("cpu", "onnx-fp32"),
        ("npu", "onnx-int8-hexagon"),
        ("npu", "onnx-fp16-hexagon"),
    }


def test_a_simulator_is_measured_only_where_it_is_asked_for(both, devices, monkeypatch):
    from sam_edge.benchmarks.measure.rows import find_rows

    devices("QNNExecutionProvider")
    simulated = [replace(one, simulated=one.kind == "npu") for one in BACKEND.devices()]
    monkeypatch.setattr(BACKEND, "devices", lambda: simulated)
    bundle = open_bundle(both)
    rows = find_rows(bundle, "onnxruntime", ["cpu", "npu"], [], simulators=False)
    assert [row.id for row in rows if not row.absent] == ["onnx-fp32"]
    assert {row.absent for row in rows if row.asked == "npu"} == {
        "a simulator, which takes minutes; add --device npu to measure it"
    }
    rows = find_rows(bundle, "onnxruntime", ["cpu", "npu"], [])
    assert len([row.id for row in rows if not row.absent]) == 3


# A fixed number of points


def fixed(bundle, count=5):
    """A `Sam` whose decoder takes one prompt of `count` points, and what it was given."""

    def change(data):
        (one,) = data["variants"]
        one["accelerator"], one["absent_label"] = "hexagon", -2
        shapes = {"point_coords": [1, count, 2], "point_labels": [1, count]}
        for tensor in one["decoder"]["inputs"]:
            tensor["shape"] = shapes.get(tensor["name"], tensor["shape"])

    toy.rewrite_manifest(bundle, change)
    given = []

    def decode(inputs):
        given.append(inputs)
        return {"low_res_masks": np.zeros((1, 4, toy.GRID, toy.GRID)), "iou_predictions": np.zeros((1, 4))}

    opened = open_bundle(bundle)
    (variant,) = opened.manifest.variants
    encoder = BACKEND.open(bundle / variant.encoder.path, "cpu", None)
    sessions = {"encoder": encoder, "decoder": Session(decode, "npu")}
    return Sam(OpenedGraphs(opened, variant, "onnxruntime", sessions)), given


def test_prompts_are_filled_up_with_absent_points(toy_copy):
    sam, given = fixed(toy_copy)
    embedding = sam.encode(toy.picture())
    sam.predict(embedding, boxes=[[20, 8, 60, 40], [10, 8, 60, 40]])
    sam.predict(embedding, [[40, 24]], [1])
    labels = [inputs["point_labels"].tolist() for inputs in given]
    assert labels == [[[2, 3, -2, -2, -2]], [[2, 3, -2, -2, -2]], [[1, -1, -2, -2, -2]]]
    assert all(inputs["point_coords"].shape == (1, 5, 2) for inputs in given)
    assert all(not inputs["point_coords"][inputs["point_labels"] == -2].any() for inputs in given)


def test_more_points_than_it_takes(toy_copy):
    sam, given = fixed(toy_copy)
    with pytest.raises(PromptError, match=r"has 6 points, .* at most 5"):
        sam.predict(sam.encode(toy.picture()), [[9, 9]] * 5)
    assert not given


@pytest.mark.parametrize("axis", ["num_points", 0, 5000, None])
def test_a_manifest_that_does_not_say_how_many(toy_copy, axis):
    def change(data):
        (one,) = data["variants"]
        one["absent_label"] = -2
        for tensor in one["decoder"]["inputs"]:
            if tensor["name"] == "point_coords":
                tensor["shape"] = [1] if axis is None else [1, axis, 2]

    toy.rewrite_manifest(toy_copy, change)
    with pytest.raises(BundleError, match="no fixed number"):
        open_bundle(toy_copy)


@pytest.mark.parametrize("place", ["onnx-fp32/other.onnx", "../encoder.onnx"])
def test_a_compiled_graph_without_a_hash(toy_copy, place):
    def change(data):
        (one,) = data["variants"]
        paths = {"encoder": place, "decoder": one["decoder"]["path"]}
        one["context"] = {**paths, "soc_model": "69", "htp_arch": "79", "tool": "onnxruntime-qnn 2.7.0"}

    toy.rewrite_manifest(toy_copy, change)
    with pytest.raises(BundleError, match=r"not among its files|not a file inside the bundle"):
        open_bundle(toy_copy)


# What a variant requires of the CPU


def needs_vnni(data):
    """An INT8 variant for CPUs with VNNI beside the ordinary FP32 one."""
    (one,) = data["variants"]
    requires = {"instruction_set": "vnni", "requires": ["x86: avx512_vnni or avx_vnni or amx_int8"]}
    data["variants"].append({**one, "id": "onnx-int8", "precision": "int8", **requires})


def only_vnni(data):
    needs_vnni(data)
    del data["variants"][0]


@pytest.fixture
def cpu(monkeypatch):
    """A machine with this CPU."""

    def have(architecture, *features):
        found = Cpu(architecture, None if features == (None,) else frozenset(features))
        monkeypatch.setattr(targets, "this_cpu", lambda: found)
        targets._warn_of_unknown_cpu.cache_clear()

    return have


VNNI = [
    ("x86", "avx2", "avx512_vnni"),
    ("x86", "avx_vnni"),
    ("x86", "amx_int8"),
    ("arm", "asimddp"),
    ("arm",),
]


@pytest.mark.parametrize("machine", VNNI)
def test_cpus_that_have_what_a_variant_requires(toy_copy, cpu, machine):
    toy.rewrite_manifest(toy_copy, needs_vnni)
    cpu(*machine)
    with load(toy_copy, precision="int8") as sam:
        assert sam.variant.id == "onnx-int8"


def test_a_cpu_without_it_is_refused_and_told_what_to_take(toy_copy, cpu):
    toy.rewrite_manifest(toy_copy, needs_vnni)
    cpu("x86", "avx2", "avx512f")
    with pytest.raises(
        DeviceError,
        match=r"onnx-int8 requires x86: avx512_vnni or .*ask for precision fp32, or export it again",
    ):
        load(toy_copy, precision="int8")
    with load(toy_copy) as sam:
        assert sam.variant.id == "onnx-fp32"
        said = [str(choice) for choice in sam.choices if choice.variant == "onnx-int8"]
    assert said == [
        "onnxruntime cpu CPUExecutionProvider onnx-int8: requires x86: avx512_vnni or avx_vnni or amx_int8, "
        "which this CPU does not have"
    ]


def test_where_there_is_no_other_the_user_exports_again(toy_copy, cpu, capsys):
    toy.rewrite_manifest(toy_copy, only_vnni)
    cpu("x86", "avx2")
    with pytest.raises(DeviceError, match="export it again with --target any"):
        load(toy_copy)
    assert not [c for c in explain_choice(open_bundle(toy_copy), Request("onnxruntime")) if c.chosen]
    assert main(["verify", str(toy_copy), "--json"]) == 2
    assert "onnx-int8 requires x86: avx512_vnni" in capsys.readouterr().err


def test_neither_a_chips_variant_nor_a_simulator_takes_its_place(toy_copy, cpu, devices):
    def change(data):
        (one,) = data["variants"]
        needs_vnni(data)
        data["variants"].append(
            {**one, "id": "onnx-int8-hexagon", "precision": "int8", "accelerator": "hexagon"}
        )
        data["variants"].append({**one, "id": "coreml-int8", "format": "coreml", "precision": "int8"})

    toy.rewrite_manifest(toy_copy, change)
    cpu("x86", "avx2")
    devices()
    with pytest.raises(DeviceError, match=r"onnx-int8 requires .*ask for precision fp32, or export it again"):
        load(toy_copy, precision="int8")


def test_the_benchmark_does_not_measure_what_this_cpu_cannot_run(toy_copy, cpu, devices):
    from sam_edge.benchmarks.measure.rows import find_rows

    toy.rewrite_manifest(toy_copy, needs_vnni)
    cpu("x86", "avx2")
    devices()
    rows = {row.id: row for row in find_rows(open_bundle(toy_copy), "onnxruntime", ["cpu"], [])}
    assert not rows["onnx-fp32"].absent
    assert "which this CPU does not have" in rows["onnx-int8"].absent


def test_verify_leaves_out_what_this_cpu_cannot_draw(toy_copy, cpu, capsys):
    toy.rewrite_manifest(toy_copy, needs_vnni)
    cpu("x86", "avx2")
    assert main(["verify", str(toy_copy), "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["variants"]}
    assert rows["onnx-fp32"]["passed"] and rows["onnx-int8"]["passed"] is None
    assert "which this CPU does not have" in rows["onnx-int8"]["reason"]


def test_other_devices_do_not_need_it(both, devices, cpu):
    """A GPU or NPU adds products of bytes in 32 bits."""
    devices("VitisAIExecutionProvider")
    toy.rewrite_manifest(
        both, lambda data: [one.update(requires=["x86: avx_vnni"]) for one in data["variants"]]
    )
    cpu("x86", "avx2")
    bundle = open_bundle(both)
    npu = BACKEND.devices()[1]
    assert all(targets.unmet_requirement(one, npu) is None for one in bundle.manifest.variants)


def test_a_system_that_does_not_say_is_warned_about_once(toy_copy, cpu):
    toy.rewrite_manifest(toy_copy, only_vnni)
    cpu("x86", None)
    with pytest.warns(SamEdgeWarning, match="does not say what its CPU has"):
        load(toy_copy).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(toy_copy).close()


@pytest.mark.parametrize(
    "requires",
    [
        ["a fast CPU"],
        ["x86: avx2\n"],
        ["x86: " + "a" * 1000],
        ["x86: avx2" + " or avx2" * 99],
        ["x86: avx2"] * 9,
    ],
)
def test_a_requirement_that_cannot_be_read(toy_copy, requires):
    toy.rewrite_manifest(toy_copy, lambda data: data["variants"][0].update(requires=requires))
    with pytest.raises(BundleError, match="requires"):
        load(toy_copy)


CPUINFO = {
    "flags\t\t: fpu avx2 avx512_vnni\n": ("x86_64", "x86", {"fpu", "avx2", "avx512_vnni"}),
    "processor : 0\nFeatures\t: fp asimd asimddp\n": ("aarch64", "arm", {"fp", "asimd", "asimddp"}),
    "processor : 0\nisa : rv64imafdc\n": ("riscv64", "riscv64", None),
}


@pytest.mark.parametrize("text", CPUINFO)
def test_the_cpu_of_linux(tmp_path, monkeypatch, text):
    machine, architecture, features = CPUINFO[text]
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr("sam_edge.system.cpu._CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sys.platform", "linux")
    assert this_cpu.__wrapped__() == Cpu(architecture, None if features is None else frozenset(features))


@pytest.mark.parametrize(
    ("machine", "said", "features"),
    [
        ("arm64", "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n", {"asimddp"}),
        ("x86_64", "hw.optional.avx512vnni: 1\nhw.memsize: 8\n", {"avx512_vnni"}),
        ("x86_64", "hw.optional.avx2_0: 1\n", set()),
        ("x86_64", "", None),
    ],
)
def test_the_cpu_of_a_mac(monkeypatch, machine, said, features):
    done = subprocess.CompletedProcess([], 0, said, "")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sys.platform", "darwin")
    assert this_cpu.__wrapped__().features == (None if features is None else frozenset(features))


def test_the_cpu_of_another_system(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert this_cpu.__wrapped__() == Cpu("x86", None)
