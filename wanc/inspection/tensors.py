"""Tensors by dtype: how many, how large. Their values are never read."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wanc.artifacts.files import opened_input
from wanc.runtime.safetensors import read_header

Tensor = tuple[str, tuple[int, ...]]
"""A dtype, as ONNX, safetensors or numpy call it, and a shape."""

MAX_RANK = 8
MAX_ELEMENTS = 2**53

_NAMES = {"FLOAT": "float32", "DOUBLE": "float64", "BF16": "bfloat16"}
_SHORT = {"F": "float", "I": "int", "U": "uint"}  # as safetensors writes F32, I64, U8


def dtype_name(name: str) -> str:
    """numpy's name of a dtype: FLOAT and F32 are float32; what numpy lacks is in its style, such as float8e4m3fn."""
    if short := re.fullmatch(r"([FIU])(\d+)", name):
        return _SHORT[short[1]] + short[2]
    return _NAMES.get(name, name.lower())


def bytes_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor, 4-bit elements packed; text counts as nothing, because its length is not in its shape."""
    bits = re.fullmatch(r"[a-z]+?(\d+).*", dtype)
    return -(-math.prod(shape) * (int(bits[1]) if bits else 8 * (dtype == "bool")) // 8)


def tally(tensors: Iterable[Tensor]) -> dict[str, Any]:
    """Count, parameters (elements) and bytes: of all, and of each dtype, largest first.

    Raises ValueError for a shape that no tensor has.
    """
    dtypes: dict[str, dict[str, int]] = {}
    for dtype, shape in tensors:
        if len(shape) > MAX_RANK or min(shape, default=0) < 0 or math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"a tensor has the shape {list(shape[: MAX_RANK + 1])!s:.200}")
        name = dtype_name(dtype)
        entry = dtypes.setdefault(name, {"count": 0, "parameters": 0, "bytes": 0})
        entry["count"] += 1
        entry["parameters"] += math.prod(shape)
        entry["bytes"] += bytes_of(name, shape)
    total = {field: sum(entry[field] for entry in dtypes.values()) for field in ("count", "parameters", "bytes")}
    ordered = sorted(dtypes.items(), key=lambda item: (-item[1]["bytes"], item[0]))
    return {**total, "dtypes": dict(ordered)}


def describe_safetensors(path: Path) -> dict[str, Any]:
    """A safetensors file: its header only. Raises UserError where it is damaged or no regular file."""
    with opened_input(path):  # a FIFO must not hang the reader
        header = read_header(path)
    return {
        "kind": "tensors",
        "path": str(path),
        "size": path.stat().st_size,
        "weights": tally((info.dtype, info.shape) for info in header.values()),
        "tensors": {
            name: {"dtype": dtype_name(info.dtype), "shape": list(info.shape)} for name, info in header.items()
        },
    }
