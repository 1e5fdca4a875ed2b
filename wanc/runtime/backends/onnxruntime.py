"""The engine `onnxruntime`, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ..cores import available_cores
from ..output_shapes import Shape, output_shapes
from ..pool import Empty, copied
from .allocator import give_back_what_is_large
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
    give_back_what_is_large()


def open_session(
    path: Path, options: onnxruntime.SessionOptions, providers: Sequence[str | tuple[str, dict[str, Any]]]
) -> onnxruntime.InferenceSession:
    """A `.onnx` file, opened as its graph asks for. The CPU executes what no other provider does."""
    ask(options, path)
    return onnxruntime.InferenceSession(path, options, providers=providers, disabled_optimizers=SLOWER)


def ask(options: onnxruntime.SessionOptions, path: Path) -> None:
    """Set what the graph in a `.onnx` file asks for."""
    if properties(path).get(QUANTIZED) != ELSEWHERE:
        # Integer kernels are the graph's own. Of Q/DQ the optimiser would make others: for fp8 one that there is
        # not, and for single Linears one that is not what was calibrated.
        options.add_session_config_entry("session.disable_quant_qdq", "1")


NAMES: Mapping[str, str] = {"float": "float32", "double": "float64"}
"""What onnxruntime calls the types of tensors otherwise than numpy."""


def numpy_dtype(kind: str) -> np.dtype[Any] | None:
    """`tensor(float)` → float32; None for what numpy does not have."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(NAMES.get(name, name))
    except TypeError:
        return None


class OnnxRuntime:
    """One `.onnx` file; its weights lie beside it. Its outputs are put into arrays that `empty` makes."""

    def __init__(
        self,
        path: Path,
        threads: int,
        lanes: int = 1,
        options: onnxruntime.SessionOptions | None = None,
        *,
        thrifty: bool = False,
        empty: Empty = np.empty,
    ) -> None:
        chosen = session_options(threads, lanes) if options is None else options
        if thrifty:
            keep_nothing(chosen)
        self._session, self._empty = open_session(path, chosen, ["CPUExecutionProvider"]), empty
        self._takes = {value.name: value.shape for value in self._session.get_inputs()}
        gives = self._session.get_outputs()
        self.outputs = [value.name for value in gives]
        self._dtypes = {value.name: dtype for value in gives if (dtype := numpy_dtype(value.type)) is not None}
        self._gives = {value.name: value.shape for value in gives if value.name in self._dtypes}

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        shapes = output_shapes(self._takes, self._gives, {name: array.shape for name, array in inputs.items()})
        try:
            return self._run(inputs, shapes)
        except RuntimeError:
            if not shapes:
                raise
            # What a file says of its outputs' sizes need not be true. Whatever else is wrong is told again.
            outputs = self._run(inputs, {})
            self._gives = {}
            return outputs

    def _run(self, inputs: Mapping[str, Array], shapes: Mapping[str, Shape]) -> list[Array]:
        """Outputs of these shapes are written to where they will lie, others are copied there."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array if array.flags.c_contiguous else np.ascontiguousarray(array))
        outputs = {name: self._empty(shape, self._dtypes[name]) for name, shape in shapes.items()}
        for name, array in outputs.items():
            binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        others = [name for name in self.outputs if name not in outputs]
        for name in others:
            binding.bind_output(name)
        self._session.run_with_iobinding(binding)
        if others:  # they were bound behind the rest, and come so
            values = binding.get_outputs()[len(outputs) :]
            outputs |= {name: copied(value.numpy(), self._empty) for name, value in zip(others, values, strict=True)}
        return [outputs[name] for name in self.outputs]

    def end_profiling(self) -> Path:
        """The file into which a session that was opened with profiling has written what it executed."""
        return Path(self._session.end_profiling())
