"""Engines' libraries look up no host, and write nothing below HOME."""

from __future__ import annotations

import os
import sys
from typing import Any, cast


def stay_offline() -> None:
    """Must come before such a library is loaded, in every process that loads one.

    onnxruntime sends telemetry from 1.32 on, unless this variable is set when its module is loaded (its
    docs/Privacy.md); OpenVINO does through a package of its own, which it does without where that cannot be imported.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
