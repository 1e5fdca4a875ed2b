"""Single Linears of a graph that was lowered for ONNX Runtime, executed by the kernel that it has there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.quantized_linears import CODES
from wanc.compiler.program.graph_file import load, save
from wanc.runtime.backends.onnxruntime import OnnxRuntime

Array = np.ndarray[Any, Any]

VIEWS = ("DequantizeLinear", "Transpose", "Cast", "Reshape")
ROUNDING = ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear")


class OnnxRuntimeProber:
    """The quantised Linears of a lowered graph; each is taken out of it and lies beside its weights while it runs."""

    def __init__(self, path: Path) -> None:
        self._path, self._model = path, load(path)
        self._codes = {
            str(value.name).split(CODES)[0]: value
            for value in self._model.graph.initializers.values()
            if CODES in str(value.name)
        }

    def run(self, linear: str, inputs: Array) -> Array | None:
        """What the Linear gives for rows of its input, float32 [rows, in] → [rows, out], without its bias."""
        if linear not in self._codes:
            return None
        part = self._path.with_suffix(".probe.onnx")
        save(self._extract(linear), part)
        try:
            session = OnnxRuntime(part, threads=1)
        finally:
            part.unlink()
        rows = np.ascontiguousarray(inputs)[None]
        (outputs,) = session.run({"rows": rows})
        return outputs[0]

    def _extract(self, linear: str) -> ir.Model:
        """The Linear's kernel, with what rounds its input in front of it."""
        kernel = _kernel(self._codes[linear])
        bias = [
            index for index, value in enumerate(kernel.inputs) if str(value and value.name).startswith(f"{linear}.bias")
        ]
        taken = kernel.inputs[0]
        while taken is not None and (node := taken.producer()) is not None and node.op_type in ROUNDING:
            taken = node.inputs[0]
        assert taken is not None
        part = ir.Model(ir.convenience.extract(self._model.graph, [taken], [kernel.outputs[0]]), ir_version=10)
        (rows,), (result,) = part.graph.inputs, part.graph.outputs
        assert rows.shape is not None
        rows.name, rows.shape = "rows", ir.Shape([1, None, rows.shape[-1]])
        result.shape = None
        last = result.producer()
        for index in bias:
            assert last is not None
            last.replace_input_with(index, None)
        return part


def _kernel(codes: ir.Value) -> ir.Node:
    """What multiplies by a weight's codes, behind views of them."""
    (use,) = codes.uses()
    while use.node.op_type in VIEWS:
        (use,) = use.node.outputs[0].uses()
    return use.node
