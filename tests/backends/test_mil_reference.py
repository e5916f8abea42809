"""Core ML programs in NumPy: each operation against PyTorch or NumPy, then FP16, then whole programs."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sam_edge.backends.mil_reference import load, ops
from sam_edge.backends.mil_reference.package import import_coremltools
from sam_edge.backends.mil_reference.program import apply
from sam_edge.errors import BackendError
from sam_edge.system.output import suppress_output

F = torch.nn.functional

HALF, SINGLE, INT8 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.int8)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def close(ours, theirs, tolerance=1e-5):
    theirs = theirs.numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def t(array):
    return torch.from_numpy(np.ascontiguousarray(array))


# Operations


@settings(max_examples=60)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.tuples(*[st.integers(0, 3)] * 4),
    layout=st.sampled_from([(1, 3, 5), (2, 4, 6), (6, 6, 6), (3, 3, 6), (1, 1, 1)]),
    biased=st.booleans(),
)
def test_conv(kernel, strides, dilations, pad, layout, biased):
    groups, channels, out = layout
    x, weight = normal(2, channels, 9, 11), normal(out, channels // groups, *kernel, seed=1)
    bias = normal(out, seed=2) if biased else None
    top, bottom, left, right = pad
    padded = F.pad(t(x), (left, right, top, bottom))
    theirs = F.conv2d(padded, t(weight), t(bias) if biased else None, strides, 0, dilations, groups)
    close(
        ops.conv(
            x,
            weight,
            bias,
            strides=strides,
            pad_type="custom",
            pad=pad,
            dilations=dilations,
            groups=groups,
        ),
        theirs,
        1e-4,
    )


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 1), (8, 3, 2), (7, 3, 2), (9, 5, 3), (8, 2, 2)]
)
def test_conv_pads_to_the_same_size(size, kernel, stride):
    x, weight = normal(1, 2, size, size), normal(3, 2, kernel, kernel, seed=1)
    total = max(0, (math.ceil(size / stride) - 1) * stride + kernel - size)
    for pad_type, before in (("same", total // 2), ("same_lower", total - total // 2)):
        after = total - before
        theirs = F.conv2d(F.pad(t(x), (before, after, before, after)), t(weight), None, stride)
        assert theirs.shape[2] == math.ceil(size / stride)
        close(ops.conv(x, weight, strides=(stride, stride), pad_type=pad_type), theirs, 1e-4)


@settings(max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
    pad=st.integers(0, 1),
)
def test_conv_transpose(kernel, strides, dilations, groups, pad):
    x, weight, bias = normal(2, 4, 5, 6), normal(4, 3, *kernel, seed=1), normal(3 * groups, seed=2)
    smallest = min((x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in (0, 1))
    pad = pad if smallest > 2 * pad else 0
    theirs = F.conv_transpose2d(t(x), t(weight), t(bias), strides, pad, 0, groups, dilations)
    options = {
        "pad": (pad,) * 4,
        "pad_type": "custom",
        "strides": strides,
        "dilations": dilations,
        "groups": groups,
    }
    close(ops.conv_transpose(x, weight, bias, **options), theirs, 1e-4)
    shaped = ops.conv_transpose(x, weight, bias, output_shape=theirs.shape, **options)
    close(shaped, theirs, 1e-4)


@settings(max_examples=30)
@given(
    batch=st.sampled_from([((), ()), ((2,), (2,)), ((3, 1), (1, 2)), ((2, 2), (2,))]),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    flips=st.tuples(st.booleans(), st.booleans()),
)
def test_matmul(batch, sizes, flips):
    n, k, m = sizes
    x = normal(*batch[0], *((k, n) if flips[0] else (n, k)))
    y = normal(*batch[1], *((m, k) if flips[1] else (k, m)), seed=1)
    left = t(x).transpose(-1, -2) if flips[0] else t(x)
    right = t(y).transpose(-1, -2) if flips[1] else t(y)
    close(ops.matmul(x, y, *flips), left @ right)


def test_linear():
    x, weight, bias = normal(2, 3, 5), normal(4, 5, seed=1), normal(4, seed=2)
    close(ops.linear(x, weight, bias), F.linear(t(x), t(weight), t(bias)))
    close(ops.linear(x, weight), F.linear(t(x), t(weight)))


def test_layer_norm():
    x, gamma, beta = 5 + 3 * normal(2, 3, 4, 6), normal(6, seed=1), normal(6, seed=2)
    theirs = F.layer_norm(t(x), (6,), t(gamma), t(beta), 1e-6)
    close(ops.layer_norm(x, [-1], gamma, beta, 1e-6), theirs)
    close(ops.layer_norm(x, [2, 3]), F.layer_norm(t(x), (4, 6)))


def test_batch_norm():
    x, mean, gamma, beta = normal(2, 3, 4, 5), normal(3, seed=1), normal(3, seed=2), normal(3, seed=3)
    variance = np.abs(normal(3, seed=4))
    theirs = F.batch_norm(t(x), t(mean), t(variance), t(gamma), t(beta), eps=1e-3)
    close(ops.batch_norm(x, mean, variance, gamma, beta, 1e-3), theirs)


@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax(axis):
    x = 50 * normal(2, 3, 4)
    before = x.copy()
    close(ops.softmax(x, axis), F.softmax(t(x), axis))
    assert (x == before).all()


def test_gelu_and_erf():
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    close(ops.erf(x), np.array([math.erf(v) for v in x.tolist()], np.float32), 5e-7)
    close(ops.gelu(x, "EXACT"), F.gelu(t(x)), 2e-6)
    close(ops.gelu(x, "TANH_APPROXIMATION"), F.gelu(t(x), approximate="tanh"), 2e-6)
    close(ops.gelu(x, "SIGMOID_APPROXIMATION"), t(x) * torch.sigmoid(1.702 * t(x)), 2e-6)
    with pytest.raises(ValueError, match="OTHER"):
        ops.gelu(x, "OTHER")


ELEMENTWISE = {
    "abs": torch.abs,
    "cos": torch.cos,
    "erf": torch.erf,
    "exp": torch.exp,
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "square": torch.square,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_of_one(name):
    x = 4 * normal(3, 50)
    close(ops.COMPUTE_OPERATORS[name](x), ELEMENTWISE[name](t(x)), 1e-6)


def test_roots_and_inverses():
    x = np.abs(normal(40)) + 0.1
    close(ops.sqrt(x), torch.sqrt(t(x)))
    close(ops.rsqrt(x, 0.5), torch.rsqrt(t(x) + 0.5))
    close(ops.inverse(x, 0.5), 1 / (t(x) + 0.5))
    close(ops.clip(x, 0.5, 1.0), torch.clamp(t(x), 0.5, 1.0))


PAIRS = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.div,
    "sub": torch.sub,
}


@pytest.mark.parametrize("name", PAIRS)
def test_of_two_with_broadcasting(name):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 5, (3, 1, 4)).astype(np.float32), rng.integers(1, 5, (2, 1)).astype(np.float32)
    close(ops.COMPUTE_OPERATORS[name](x, y), PAIRS[name](t(x), t(y)))


def test_logic_and_select():
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert ops.logical_and(a, b).tolist() == [True, False, False, False]
    assert ops.logical_or(a, b).tolist() == [True, True, True, False]
    assert ops.logical_not(a).tolist() == [False, False, True, True]
    assert ops.select(a, np.arange(4), -np.arange(4)).tolist() == [0, 1, -2, -3]


@pytest.mark.parametrize("axes", [None, [1], [-1, 0]])
def test_reductions(axes):
    x = normal(2, 3, 4)
    dims = tuple(axes) if axes else (0, 1, 2)
    close(ops.reduce_mean(x, axes, True), t(x).mean(dims, keepdim=True))
    close(np.asarray(ops.reduce_sum(x, axes)), t(x).sum(dims))
    close(np.asarray(ops.reduce_max(x, axes)), t(x).amax(dims))


def test_shapes():
    x = normal(2, 3, 4)
    assert ops.reshape(x, [0, -1]).shape == (2, 12)
    assert (ops.transpose(x, [2, 0, 1]) == t(x).permute(2, 0, 1).numpy()).all()
    assert ops.squeeze(x[None, :, :1], [0, 2]).shape == (2, 4)
    assert ops.squeeze(x[None]).shape == (2, 3, 4)
    assert ops.expand_dims(x, [0, -1]).shape == (1, 2, 3, 4, 1)
    assert ops.tile(x, [1, 2, 3]).shape == (2, 6, 12)
    assert ops.shape(x).tolist() == [2, 3, 4]
    assert (ops.fill([2, 2], np.float32(3)) == 3).all()
    assert ops.identity(x) is x and ops.cast(x, "fp16") is x
    assert (ops.gather(x, np.array([1, 0]), 1) == x[:, [1, 0]]).all()


def test_splitting_and_joining():
    x, y = normal(2, 6), normal(2, 6, seed=1)
    assert [part.shape for part in ops.split(x, 1, num_splits=3)] == [(2, 2)] * 3
    assert [part.shape for part in ops.split(x, 1, split_sizes=[1, 5])] == [(2, 1), (2, 5)]
    with pytest.raises(ValueError, match="neither"):
        ops.split(x, 1)
    assert (ops.concat([x, y], -1) == torch.cat([t(x), t(y)], -1).numpy()).all()
    assert (ops.concat([x, y], 1, True)[:, 1::2] == y).all()
    assert (ops.stack([x, y], 1) == torch.stack([t(x), t(y)], 1).numpy()).all()


@settings(max_examples=40)
@given(
    bounds=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 2)), min_size=2, max_size=2
    ),
    masks=st.tuples(*[st.booleans()] * 4),
)
def test_slice_by_index(bounds, masks):
    x = normal(5, 5)
    (b0, e0, s0), (b1, e1, s1) = bounds
    first0, last1, one0, one1 = masks
    rows = b0 if one0 else slice(0 if first0 else b0, e0, s0)
    columns = b1 if one1 else slice(b1, 5 if last1 else e1, s1)
    ours = ops.slice_by_index(
        x,
        [b0, b1],
        [e0, e1],
        stride=[s0, s1],
        begin_mask=[first0, False],
        end_mask=[False, last1],
        squeeze_mask=[one0, one1],
    )
    assert (ours == x[rows, columns]).all()


def test_slices():
    x = normal(5, 6)
    assert (ops.slice_by_index(x, [-2, 0], [5, -1]) == x[-2:, :-1]).all()
    assert (ops.slice_by_index(x, [3, 0], [0, 6], stride=[-1, 1], end_mask=[True, False]) == x[3::-1]).all()
    assert (ops.slice_by_size(x, [1, -3], [2, -1]) == x[1:3, -3:]).all()


@pytest.mark.parametrize(
    ("mode", "theirs"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "replicate")]
)
def test_pad(mode, theirs):
    x = normal(1, 2, 4, 5)
    extra = {"value": 3.0} if mode == "constant" else {}
    close(ops.pad(x, [1, 2, 3, 0], mode, 3.0), F.pad(t(x), (3, 0, 1, 2), mode=theirs, **extra))
    with pytest.raises(ValueError, match="wrap"):
        ops.pad(x, [1, 1], "wrap")


@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 1)), ((3, 3), (2, 2), (1, 1))],
)
def test_max_pool(kernel, stride, pad):
    x = normal(2, 3, 9, 8) - 5
    around = [pad[0], pad[0], pad[1], pad[1]]
    theirs = F.max_pool2d(t(x), kernel, stride, pad)
    close(ops.max_pool(x, kernel, strides=stride, pad_type="custom", pad=around), theirs)


def test_upsample_nearest_neighbor():
    x = normal(2, 3, 4, 5)
    theirs = F.interpolate(t(x), scale_factor=(2.0, 3.0), mode="nearest")
    close(ops.upsample_nearest_neighbor(x, np.float32(2), np.float32(3)), theirs)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantize_and_dequantize():
    x = np.concatenate([3 * normal(2, 3, 40), np.full((2, 3, 1), 1e6, np.float32)], 2)
    for name, kind, zero in (("int8", torch.qint8, -3), ("uint8", torch.quint8, 7)):
        theirs = torch.quantize_per_tensor(t(x), 0.05, zero, kind)
        steps = ops.quantize(x, np.float32(0.05), np.array(zero, name), output_dtype=name)
        assert steps.dtype == name
        assert (
            np.abs(steps.astype(int) - theirs.int_repr().numpy().astype(int)).max() <= 1
        )  # x / s or x * (1 / s)
        assert (steps == theirs.int_repr().numpy()).mean() > 0.99
        close(
            ops.dequantize(steps, np.float32(0.05), np.array(zero, name)),
            0.05 * (steps.astype(np.float32) - zero),
        )
    scales = np.array([0.1, 0.2, 0.3], np.float32)
    theirs = torch.quantize_per_channel(t(x), t(scales), torch.zeros(3, dtype=torch.int64), 1, torch.qint8)
    steps = ops.quantize(x, scales, axis=1)
    assert (steps == theirs.int_repr().numpy()).mean() > 0.99
    close(ops.dequantize(steps, scales, axis=1), steps * scales[:, None])
    with pytest.raises(ValueError, match="int4"):
        ops.quantize(x, scales, axis=1, output_dtype="int4")


def test_stored_weights():
    data = np.arange(-12, 12, dtype=np.int8).reshape(4, 6)
    scale, zero = np.array([1, 2, 3, 4], np.float32), np.array([0, 1, 0, 1], np.int8)
    expected = (data.astype(np.float32) - zero[:, None]) * scale[:, None]
    close(ops.constexpr_affine_dequantize(data, zero, scale, 0), expected)
    close(ops.constexpr_blockwise_shift_scale(data, scale[:, None], zero[:, None]), expected)
    blocks = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    ours = ops.constexpr_blockwise_shift_scale(data, blocks)
    close(ours, data * np.kron(blocks, np.ones((2, 2), np.float32)))


def test_every_operation_is_tested():
    source = Path(__file__).read_text("utf-8")
    for name, function in (ops.MOVEMENT_OPERATORS | ops.COMPUTE_OPERATORS).items():
        assert f"ops.{function.__name__}(" in source or name in ELEMENTWISE or name in PAIRS


# FP16


@settings(max_examples=200)
@given(st.floats(width=16, allow_nan=False), st.floats(width=16, allow_nan=False))
def test_fp16_results_are_rounded_once(a, b):
    x, y = np.float16(a), np.float16(b)
    with np.errstate(all="ignore"):
        for kind, function in (("add", np.add), ("mul", np.multiply)):
            (ours,) = apply(kind, {"x": np.array([x]), "y": np.array([y])}, [HALF])
            exact = np.array([function(np.float64(x), np.float64(y))]).astype(np.float16)
            assert ours.dtype == HALF
            np.testing.assert_array_equal(ours, exact)


def test_fp16_overflows_to_infinity():
    with np.errstate(all="ignore"):
        big = np.array([300.0, -300.0], np.float16)
        assert apply("mul", {"x": big, "y": np.array([300.0, 300.0], np.float16)}, [HALF])[0].tolist() == [
            np.inf,
            -np.inf,
        ]
        assert apply("cast", {"x": np.float32([65519, 65520]), "dtype": "fp16"}, [HALF])[0].tolist() == [
            65504,
            np.inf,
        ]
        # Sums are kept in FP32, and only the result is rounded.
        ones = np.full((1, 4096), 30, np.float16)
        assert apply("matmul", {"x": ones, "y": ones.T}, [HALF])[0].item() == np.inf
        tall = np.array([[60000, 60000, -60000]], np.float16)
        assert apply("matmul", {"x": tall, "y": np.ones((3, 1), np.float16)}, [HALF])[0].item() == 60000


def test_fp16_reads_fp16_and_int8_makes_int8():
    (steps,) = apply("quantize", {"input": np.float16([1, -1]), "scale": np.float16(0.5)}, [INT8])
    assert steps.dtype == INT8 and steps.tolist() == [2, -2]
    (back,) = apply("dequantize", {"input": steps, "scale": np.float16(0.5)}, [HALF])
    assert back.dtype == HALF and back.tolist() == [1, -1]


# Programs


def save(path, build, inputs, half=False):
    """Convert a MIL program and save it; `build` gets coremltools' builder and the inputs."""
    import coremltools as ct

    import_coremltools()
    from coremltools.converters.mil import Builder

    with suppress_output():
        program = Builder.program(
            input_specs=[Builder.TensorSpec(shape=shape) for shape in inputs.values()],
            opset_version=ct.target.iOS17,
        )(build)
        package = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            skip_model_load=True,
        )
        package.save(str(path))
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    from coremltools.converters.mil import Builder

    weight = normal(70, 70, seed=3)

    def build(x):
        y = Builder.linear(x=x, weight=weight, bias=np.zeros(70, np.float32))
        first, second = Builder.split(x=Builder.mul(x=y, y=y), num_splits=2, axis=1)
        return Builder.sub(x=first, y=second, name="out")

    root = tmp_path_factory.mktemp("mil")
    save(root / "single.mlpackage", build, {"x": (2, 70)})
    save(root / "half.mlpackage", build, {"x": (2, 70)}, half=True)
    save(root / "unknown.mlpackage", lambda x: Builder.cumsum(x=x, axis=0, name="out"), {"x": (2, 70)})
    return root, weight


def test_a_saved_program_runs(packages):
    root, weight = packages
    x = normal(2, 70)
    squares = (x @ weight.T) ** 2
    expected = squares[:, :35] - squares[:, 35:]
    program = load(root / "single.mlpackage")
    close(program.run({"x": x})["out"], expected, 1e-3)
    assert program.histogram() == {"linear": 1, "mul": 1, "split": 1, "sub": 1}
    half = load(root / "half.mlpackage").run({"x": x})["out"]
    relative = np.linalg.norm(half - expected) / np.linalg.norm(expected)
    assert 1e-5 < relative < 1e-2
    assert not np.isfinite(load(root / "half.mlpackage").run({"x": 100 * x})["out"]).all()


def test_values_are_freed_after_their_last_use(packages):
    steps = load(packages[0] / "single.mlpackage").steps
    freed = [name for step in steps for name in step.frees]
    made = [name for step in steps for name, _ in step.results]
    assert sorted(freed) == sorted({*made, "x"} - {"out"})


def test_an_unknown_operation_is_named(packages):
    with pytest.raises(BackendError, match="cumsum"):
        load(packages[0] / "unknown.mlpackage")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "expected x"),
        ({"y": np.zeros((2, 70), np.float32)}, "expected x"),
        ({"x": np.zeros((3, 70), np.float32)}, r"expects \(2, 70\)"),
        ({"x": np.zeros(70, np.float32)}, r"expects \(2, 70\)"),
    ],
)
def test_inputs_that_do_not_fit(packages, inputs, message):
    with pytest.raises(BackendError, match=message):
        load(packages[0] / "single.mlpackage").run(inputs)
