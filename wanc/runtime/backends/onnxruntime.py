"""The engine `onnxruntime`, on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import onnxruntime

from ..cores import available_cores
from .base import Array
from .onnx_properties import properties

# onnxruntime's scale. Its errors are raised as well, and below them are notes on its own optimisations.
FATAL_ONLY = 4
# Its optimisations that cost time: the fused kernel takes more than three times as long as its parts.
SLOWER = ("SkipLayerNormFusion",)
QUANTIZED, ELSEWHERE = "wanc.quantized", "elsewhere"
"""The property, and its value in files that came quantised: the library makes the integer kernels of their Q/DQ."""
FLOAT32 = "1"
"""On the scale of accuracies that MatMulNBits has."""

MMAP_THRESHOLD, LARGE = -3, 2**20
"""Of glibc's mallopt(3): from so many bytes on, memory goes back to the system when it is freed."""


def session_options(threads: int, lanes: int = 1) -> onnxruntime.SessionOptions:
    """The options with which every graph is run.

    A session has threads of its own beside those that call it: one less than it is told, for it expects one caller.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads if lanes == 1 else (threads or available_cores()) - lanes + 1
    options.log_severity_level = FATAL_ONLY
    # Of weights alone that are codes, a product's other side stays what it is.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", FLOAT32)
    # A bundle has several sessions, each with threads of its own: those of one must not spin while another works.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def keep_nothing(options: onnxruntime.SessionOptions) -> None:
    """Let sessions with these options ask the system for each tensor, and give it back when nobody needs it.

    The library's pool keeps all that it ever had, and is a half larger than what is needed at once; but the system
    clears every page that it gives, and executions take a third longer. The C library would keep tensors as well.
    """
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    with suppress(AttributeError):  # other C libraries give back by themselves
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE)


def open_session(
    path: Path, options: onnxruntime.SessionOptions, providers: Sequence[str | tuple[str, dict[str, Any]]]
) -> onnxruntime.InferenceSession:
    """A `.onnx` file, opened as its graph asks for. The CPU executes what no other provider does."""
    if properties(path).get(QUANTIZED) != ELSEWHERE:
        # Integer kernels are the graph's own. Of Q/DQ the optimiser would make others: for fp8 one that there is
        # not, and for single Linears one that is not what was calibrated.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(path, options, providers=providers, disabled_optimizers=SLOWER)


class OnnxRuntime:
    """One `.onnx` file; its weights lie beside it."""

    def __init__(
        self,
        path: Path,
        threads: int,
        lanes: int = 1,
        options: onnxruntime.SessionOptions | None = None,
        *,
        thrifty: bool = False,
    ) -> None:
        chosen = session_options(threads, lanes) if options is None else options
        if thrifty:
            keep_nothing(chosen)
        self._session = open_session(path, chosen, ["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        return cast("list[Array]", self._session.run(self.outputs, dict(inputs)))

    def end_profiling(self) -> Path:
        """The file into which a session that was opened with profiling has written what it executed."""
        return Path(self._session.end_profiling())
