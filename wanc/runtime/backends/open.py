"""Opening an engine file with the library of its engine, which is imported only then."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..engine_file import CPU, CUDA
from ..pool import Empty
from .base import Backend
from .offline import stay_offline


def open_backend(
    engine: str,
    path: Path,
    threads: int,
    lanes: int = 1,
    target: str = CPU,
    thrifty: bool = False,
    empty: Empty = np.empty,
) -> Backend:
    """Open a file of the engine for a target; 0 threads are all cores, and lanes share them.

    `thrifty` is for executions that are large beside the memory there is: where the library can, it then keeps nothing
    for the next one. On a CPU its outputs are arrays that `empty` makes.

    Raises what the library raises, ModuleNotFoundError where it is not installed, and ValueError for another engine.
    """
    stay_offline()
    if (engine, target) == ("onnxruntime", CUDA):
        from .cuda import OnnxRuntimeCuda

        return OnnxRuntimeCuda(path, threads, lanes)
    if engine == "onnxruntime":
        from .onnxruntime import OnnxRuntime

        return OnnxRuntime(path, threads, lanes, thrifty=thrifty, empty=empty)
    if engine == "openvino":
        from .openvino import OpenVino

        return OpenVino(path, threads, lanes, thrifty=thrifty, empty=empty)
    if engine == "tensorrt-rtx":
        raise ValueError("engines for GPUs are built, and not run yet")
    raise ValueError(f"there is no back end for {engine}")
