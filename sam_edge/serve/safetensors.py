"""Arrays as the bytes of a safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def to_safetensors(arrays: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """float32 arrays by name, and texts by name, in safetensors' format: the header's length (8 bytes, little
    endian), the header (JSON, filled up with spaces to a multiple of 8), the arrays one after the other."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    parts = []
    start = 0
    for name, array in arrays.items():
        part = array.astype("<f4").tobytes()
        end = start + len(part)
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, end]}
        parts.append(part)
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
