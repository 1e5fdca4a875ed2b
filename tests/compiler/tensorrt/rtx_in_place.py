"""Builds as `tensorrt` does, with TensorRT-RTX in place of TensorRT: Polygraphy and all that both editions share."""

from __future__ import annotations

import importlib
import os
from typing import Any

from wanc.compiler.engines.tensorrt import build
from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask

os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1"
build.MODULE, build.VERSION = "tensorrt_rtx", "1.7.1.116"


def build_engine(task: BuildTask) -> BuildOutcome:
    capability = divmod(int(task.target.removeprefix("sm")), 10)

    def create_config(**options: Any) -> Any:
        rtx: Any = importlib.import_module("polygraphy.backend.tensorrt_rtx")
        return rtx.CreateConfigRTX(compute_capabilities=[capability], **options)

    build.create_config = create_config
    return build.build_engine(task)
