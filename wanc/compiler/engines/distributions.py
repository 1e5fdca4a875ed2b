"""The distributions of each engine's library, which building takes, and running what was built, but for `RUN_BY`."""

from __future__ import annotations

from collections.abc import Mapping

DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorrt-rtx": ("tensorrt-rtx-cu12-bindings", "tensorrt-rtx-cu12-libs"),
    "tensorrt": ("polygraphy", "tensorrt-cu12"),
}
RUN_BY: Mapping[tuple[str, str], Mapping[str, str]] = {("onnxruntime", "cuda"): {"onnxruntime-gpu": "1.31.1"}}
"""By engine and target what runs it in place of what builds it: another distribution of the same module.

Its versions are not all of the other's, so that one is named that there is.
"""
PINNED: Mapping[str, str] = {
    "tensorrt-rtx-cu12-bindings": "1.7.1.116",
    "tensorrt-rtx-cu12-libs": "1.7.1.116",
}
"""The one version of a library that wanc knows what it builds with; the others may be any that its extra allows."""
ON_TARGET: Mapping[str, str] = {"polygraphy": "0.53.6", "tensorrt-cu12": "11.4.0.106"}
"""The versions of those that are needed where engines are built and executed, and not before."""
NOT_BUILT_WITH = frozenset((*ON_TARGET, *(name for names in RUN_BY.values() for name in names)))
"""What running a bundle takes that this build does not."""
