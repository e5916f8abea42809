"""A benchmark's report as `sam-edge benchmark` writes it, made of a seed: lognormal noise, common drift."""

from __future__ import annotations

import zlib

import numpy as np

PHASES = ("preprocess_ms", "encoder_ms", "decoder_ms", "decoder_64_ms", "postprocess_ms", "end_to_end_ms")
STATS = ("load_ms", "compile_ms", "first_ms", *PHASES)

# id, encoder ms, decoder ms, peak MB, bytes, mean / minimum / boundary IoU
VARIANTS = [
    ("onnx-fp32", 25.6, 6.1, 139.0, 13_400_000, 1.0, 1.0, 1.0),
    ("onnx-fp16", 71.2, 7.0, 152.0, 6_800_000, 0.9993, 0.997, 0.998),
    ("onnx-int8", 71.4, 6.4, 121.0, 4_300_000, 0.975, 0.923, 0.951),
    ("openvino-fp32", 34.9, 8.8, 196.0, 13_600_000, 1.0, 1.0, 1.0),
    ("openvino-fp16", 32.9, 8.7, 190.0, 7_000_000, 0.99998, 0.9997, 0.9999),
    ("openvino-int8", 21.7, 8.9, 183.0, 4_200_000, 0.953, 0.894, 0.921),
    ("coreml-fp32", 3100.0, 410.0, 402.0, 13_600_000, 1.0, 1.0, 1.0),
    ("coreml-fp16", 3300.0, 430.0, 398.0, 6_900_000, 0.997, 0.985, 0.99),
    ("coreml-int8", 3200.0, 420.0, 390.0, 3_700_000, 0.964, 0.913, 0.94),
]
BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino", "coreml": "coreml", "pytorch": "pytorch"}


def key_of(row):
    return row["id"], row["backend"], row["device"]


def stats(medians):
    """STATS of the medians of the rounds; the spread within a round is made up."""
    medians = [float(m) for m in medians]
    p50 = float(np.median(medians))
    return {
        "p50": p50,
        "p90": 1.12 * p50,
        "p99": 1.3 * p50,
        "n": 40 * len(medians),
        "rounds": medians,
        "first_fifth": medians[0],
        "last_fifth": medians[-1],
    }


def row_of(identity, backend, device, asked="cpu", status="measured", reason="", **more):
    form, _, precision = identity.partition("-")
    row = {
        "id": identity,
        "format": form,
        "precision": precision,
        "backend": backend,
        "device": device,
        "device_name": device,
        "asked": asked,
        "status": status,
        "reason": reason,
        "drift": None,
        "peak_rss_mb": None,
        "device_memory_mb": None,
        "energy_j": None,
        "bytes": None,
        "placement": None,
        "on_device": None,
        "compute_on_device": None,
        "matmul_peak_share": None,
        "parity": None,
        "mean_iou": None,
        "min_iou": None,
        "ground_truth": None,
        "worst": [],
    }
    return row | dict.fromkeys(STATS) | more


def parity(mean, low, boundary):
    found = {
        "source": "golden",
        "prompts": 50,
        "mean_iou": mean,
        "p5_iou": (mean + low) / 2,
        "min_iou": low,
        "boundary_iou": boundary,
        "max_iou_prediction_difference": 0.02,
        "embedding_relative_error": 0.01,
        "gate": {"mean_iou": 0.95, "min_iou": 0.8},
        "passed": True,
    }
    return {"parity": found, "mean_iou": mean, "min_iou": low}


def sample_report(
    seed=0, rounds=5, noise=0.05, drift=0.1, machine=1.0, slower=None, own=None, calibration_noise=None
):
    """A report of nine variants and, beside them, PyTorch, a simulated NPU, an absent GPU, a failed row.

    Args:
        seed: of the noise.
        rounds: how many.
        noise: standard deviation of a round's median, in logarithms, of each row and phase.
        drift: the same of what is common to every row of a round, calibration included.
        machine: how many times slower the whole machine is.
        slower: factor by row id: that variant is that much slower in every phase.
        own: noise by row id, where it is not `noise`.
        calibration_noise: of the calibration beyond what is common; None for `noise`.
    """
    rng = np.random.default_rng(seed)
    common = machine * np.exp(drift * rng.standard_normal(rounds))

    def noisy(value, row=""):
        sigma = (own or {}).get(row, noise)
        return value * (slower or {}).get(row, 1.0) * common * np.exp(sigma * rng.standard_normal(rounds))

    def timed(identity, encoder, decoder, load=60.0):
        # What disturbs a row in a round disturbs every phase of it, nearly.
        shared = noisy(1.0, identity)
        base = {
            "load_ms": load,
            "compile_ms": load / 2,
            "first_ms": 1.4 * (encoder + decoder),
            "preprocess_ms": 4.1,
            "encoder_ms": encoder,
            "decoder_ms": decoder,
            "decoder_64_ms": 52 * decoder,
            "postprocess_ms": 2.2,
            "end_to_end_ms": encoder + decoder + 6.5,
        }
        own_noise = 0.3 * noise * rng.standard_normal((len(base), rounds))
        return {
            name: stats(value * shared * np.exp(extra))
            for (name, value), extra in zip(base.items(), own_noise, strict=True)
        }

    rows = []
    for identity, encoder, decoder, memory, size, mean, low, boundary in VARIANTS:
        form = identity.partition("-")[0]
        core = form == "coreml"
        provider = {"onnx": "CPUExecutionProvider", "openvino": "CPU", "coreml": "mil-reference"}[form]
        rows.append(
            row_of(
                identity,
                BACKENDS[form],
                "mil-reference" if core else "cpu",
                status="simulated" if core else "measured",
                reason="Core ML runs on Apple's systems; evaluated by NumPy" if core else "",
                **timed(identity, encoder, decoder),
                **parity(mean, low, boundary),
                drift=1.01,
                peak_rss_mb=memory,
                bytes=size,
                on_device=1.0,
                matmul_peak_share=0.61,
                placement={"encoder": {provider: 150}, "decoder": {provider: 90}},
                worst=[{"prompt": "cat: box 1", "iou": low, "image": f"worst/{identity}-0.png"}],
            )
        )
    rows += [
        row_of(
            "pytorch-fp32",
            "pytorch",
            "cpu",
            **timed("pytorch-fp32", 88.0, 61.0),
            **parity(1.0, 1.0, 1.0),
            drift=1.0,
            peak_rss_mb=421.0,
            bytes=13_300_000,
        ),
        row_of(
            "onnx-hexagon",
            "onnxruntime",
            "npu-simulated",
            "npu",
            "simulated",
            "Qualcomm's simulator",
            **timed("onnx-hexagon", 5100.0, 900.0),
            **parity(0.962, 0.9, 0.94),
            bytes=4_500_000,
            peak_rss_mb=910.0,
            on_device=1.0,
            placement={"encoder": {"QNNExecutionProvider": 1}, "decoder": {"QNNExecutionProvider": 1}},
        ),
        row_of(
            "onnx-fp32",
            "onnxruntime",
            "gpu",
            "gpu",
            "absent",
            "pip install onnxruntime-gpu",
            bytes=13_400_000,
        ),
        row_of(
            "openvino-int8",
            "openvino",
            "gpu",
            "gpu",
            "failed",
            "the device disappeared in round 3",
            bytes=4_200_000,
        ),
    ]
    fixed = 0.3 * noise if calibration_noise is None else calibration_noise
    gflops = 130.0 / (common * np.exp(fixed * rng.standard_normal(rounds)))
    return {
        "schema": 1,
        "partial": False,
        "created": "2026-11-24T20:40:00+00:00",
        "machine": {
            "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "isa": ["avx2", "avx512f", "avx512_vnni"],
            "cores": 2,
            "threads": 2,
            "governor": "unknown",
            "memory_mb": 24000,
            "os": "Linux-6.1-x86_64",
            "python": "3.11.9",
            "drivers": {},
            "revision": "cf1a017",
            "packages": {
                "sam-edge": "0.1.0",
                "numpy": "2.4.6",
                "onnxruntime": "1.32.0",
                "openvino": "2026.4.1",
            },
            "matmul_gflops": {
                "p50": float(np.median(gflops)),
                "p90": float(gflops.max()),
                "p99": float(gflops.max()),
                "n": 2 * rounds,
                "rounds": [float(g) for g in gflops],
                "first_fifth": float(gflops[0]),
                "last_fifth": float(gflops[-1]),
            },
        },
        "bundle": {
            "path": "out/sam_edge_tiny",
            "family": "sam",
            "name": "sam_edge_tiny",
            "checkpoint_sha256": f"{zlib.crc32(b'tiny'):064x}",
            "input_size": [512, 512],
            "encoder_flops": 1.2e9,
        },
        "settings": {
            "duration_s": 10.0,
            "rounds": rounds,
            "seed": seed,
            "image_size": [1080, 1920],
            "parity": "golden",
        },
        "rows": rows,
    }


def find(report, identity, device="cpu"):
    return next(row for row in report["rows"] if row["id"] == identity and row["device"] == device)


def worst_picture(width=12, height=8):
    """The bytes of a small PNG: three panels beside each other."""
    import io

    from PIL import Image

    panels = np.zeros((height, 3 * width, 3), np.uint8)
    for i, colour in enumerate(([0, 114, 178], [230, 159, 0], [213, 94, 0])):
        panels[1:-1, i * width + 1 : (i + 1) * width - 1] = colour
    out = io.BytesIO()
    Image.fromarray(panels).save(out, "PNG")
    return out.getvalue()


def write_pictures(report, folder, data=None):
    """The pictures that `report` names, under `folder`."""
    data = worst_picture() if data is None else data
    for row in report["rows"]:
        for case in row["worst"]:
            path = folder / case["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
