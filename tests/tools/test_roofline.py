"""The roofline's arithmetic, on operators whose work is known; and of the embedded model."""

import pytest

from sam_edge.bundle.bundle import open_bundle
from tools.roofline import Operator, Rates, main, markdown, work


def operator(name, inputs, output):
    shapes = [{"float": shape} for shape in inputs]
    return {"op_name": name, "input_type_shape": shapes, "output_type_shape": [{"float": output}]}


@pytest.mark.parametrize(
    ("name", "inputs", "output", "mflop", "megabytes"),
    [
        ("MatMul", [[1, 10, 20], [20, 30]], [1, 10, 30], 2 * 10 * 20 * 30 / 1e6, 4 * (200 + 600 + 300) / 1e6),
        ("FusedMatMul", [[8, 10, 20], [8, 30, 20]], [8, 10, 30], 2 * 8 * 10 * 20 * 30 / 1e6, None),
        ("Gemm", [[10, 20], [30, 20], [30]], [10, 30], 2 * 10 * 20 * 30 / 1e6, None),
        ("Gemm", [[10, 20], [30]], [10, 30], 2 * 10 * 20 * 30 / 1e6, None),
        ("Conv", [[1, 8, 6, 6], [16, 4, 3, 3]], [1, 16, 6, 6], 2 * 16 * 36 * 4 * 9 / 1e6, None),
        ("Gelu", [[100, 10]], [100, 10], 0, 8 * 1000 / 1e6),
    ],
)
def test_what_an_operator_computes_and_moves(name, inputs, output, mflop, megabytes):
    gflop, moved = work(operator(name, inputs, output))
    assert 1e3 * gflop == pytest.approx(mflop)
    assert megabytes is None or moved == pytest.approx(megabytes)


def test_an_encoder_has_the_arithmetic_of_its_manifest(exported, capsys):
    assert main([str(exported), "--runs", "1"]) == 0
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if line.startswith("| all |"))
    gmacs = open_bundle(exported).manifest.model.encoder_gmacs
    assert float(line.split("|")[4]) == pytest.approx(2 * gmacs, rel=0.05, abs=0.06)
    assert "could reach at most" in printed


def test_the_bounds_are_of_what_is_computed_and_of_what_is_moved():
    rates = Rates(100.0, {1: 10.0, 100: 5.0})
    operators = [
        Operator("Convolution", 30.0, 2.0, 1.0),
        # Moves 100 MB at 5 GB/s.
        Operator("Subgraph", 25.0, 0.0, 100.0),
        # Only renames memory, in less time than a copy of 50 MB takes.
        Operator("Split", 0.5, 0.0, 50.0),
    ]
    assert [rates.bound(one) for one in operators] == [20.0, 20.0, 0.5]
    printed = markdown(operators, rates)
    assert "| all | 3 | 55.5 | 2.00 | 151 | 40.5 |" in printed
    # At the peak it would take 20 ms.
    assert "a share of 0.36 of the first, and could reach at most 0.49" in printed


def test_openvinos_operators_have_the_arithmetic_of_the_manifest(six_variants, capsys):
    bundle = six_variants
    assert main([str(bundle), "--variant", "openvino-fp32", "--runs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| FullyConnected |" in printed and "| Convolution |" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("| all |"))
    gmacs = open_bundle(bundle).manifest.model.encoder_gmacs
    assert float(line.split("|")[4]) == pytest.approx(2 * gmacs, rel=0.02)


def test_other_variants_are_refused(exported, capsys):
    assert main([str(exported), "--variant", "onnx-fp8"]) == 2
    assert "onnx-fp8" in capsys.readouterr().err
    assert main([str(exported), "--runs", "0"]) == 2
