"""The distributions of each engine's library, which building takes, and running what was built."""

from __future__ import annotations

from collections.abc import Mapping

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt-rtx": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs"),
}
