"""What a back end is: one file of an engine, opened, that takes arrays and gives arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Backend(Protocol):
    """One engine file, open, for as many executions at once as it has lanes. What its library raises is passed on."""

    outputs: list[str]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Execute the graph on inputs by name; the results are in the order of `outputs`."""
        ...


def open_backend(path: Path, threads: int, lanes: int = 1) -> Backend:
    """Open an engine file with the library that its suffix names; 0 threads are all cores, and lanes share them.

    Raises what the library raises, and ModuleNotFoundError where it is not installed.
    """
    if path.suffix == ".xml":
        from .openvino import OpenVino

        return OpenVino(path, threads, lanes)
    from .onnxruntime import OnnxRuntime

    return OnnxRuntime(path, threads, lanes)


NAMES: Mapping[str, str] = {".onnx": "onnxruntime", ".xml": "openvino"}
"""The engine that runs a file, by the file's suffix."""
