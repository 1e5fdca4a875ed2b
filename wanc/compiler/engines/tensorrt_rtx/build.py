"""Building one engine with TensorRT-RTX, ahead of time and for any of its targets: no GPU is needed."""

from __future__ import annotations

import importlib
from typing import Any

from wanc.compiler.engines.distributions import PINNED
from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask, build

BINDINGS = "tensorrt_rtx_bindings"
VERSION = PINNED["tensorrt-rtx-cu12-bindings"]
"""Of which the build log is known; engines are of one version, and run with no other."""


def build_engine(task: BuildTask) -> BuildOutcome:
    """Build in this process, in which no other engine was built."""
    try:
        trt: Any = importlib.import_module(BINDINGS)
    except ImportError as error:
        return BuildOutcome(missing=error.name or BINDINGS)
    if trt.__version__ != VERSION:
        return BuildOutcome(version=f"{trt.__version__} is installed, and wanc builds with {VERSION}")

    def configure(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, task.target.upper()), 0)

    return build(trt, task, configure)
