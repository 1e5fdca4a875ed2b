"""The distributions of each engine's library, which building takes, and running what was built."""

from __future__ import annotations

from collections.abc import Mapping

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt-rtx": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs"),
    "tensorrt": ("polygraphy", "tensorrt-cu12"),
}
ON_TARGET: Mapping[str, str] = {"polygraphy": "0.53.6", "tensorrt-cu12": "11.4.0.106"}
"""The versions of those that are needed where engines are built and executed, and not before."""
