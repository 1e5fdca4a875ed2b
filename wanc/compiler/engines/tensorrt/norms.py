"""Lowering of RMS norms of values in 16 bits: what is squared is the value's negative.

Such a norm reads what it is given twice: it sums the squares of a row, and then divides the row. TensorRT casts a value
to float32 once for both, and keeps it so in memory in between: for queries and keys that is more than all else in
attention. Of a negative the squares are the same, bit by bit, and it is cast by itself, where it is read: the value
stays in memory in 16 bits. A block of Wan2.2-T2V-A14B takes 8 tensors [tokens, width] of 16 bits where it took 10, and
five blocks with their residual stream 10 where they took 11 (version 1.7.1.116).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.engines.tensorrt.islands import STAYS_FLOAT32
from wanc.compiler.graphs.values import attribute, producer, rank
from wanc.compiler.passes.rewrite import HALVES, OPSET, Pass, PassOutcome, Refusal

FLOAT = ir.DataType.FLOAT
EPSILON = 1e-5
"""What is added to the mean where the operator does not say it."""


def write_out(model: ir.Model) -> PassOutcome:
    """Write out every RMSNormalization over the last axis that is computed in float32 of a value in 16 bits."""
    outcome = PassOutcome()
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("", "RMSNormalization"):
            continue
        cast = producer(node.inputs[0], "Cast")
        given = cast.inputs[0] if cast else None
        if given is None or given.dtype not in HALVES or node.outputs[0].dtype != FLOAT:
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "it is not of 16 bits, computed in float32"))
        elif attribute(node, "axis", -1) not in (-1, (rank(node.inputs[0]) or 0) - 1):
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "it is over more than the last axis"))
        else:
            _write(model.graph, node, given)
            outcome.fired += 1
    return outcome


def _write(graph: ir.Graph, norm: ir.Node, given: ir.Value) -> None:
    """x · 1 / √(mean(x²) + ε) · scale, x² being that of -x; x is what was `given`, in float32."""
    value, scale = norm.inputs
    (result,), nodes = norm.outputs, list[ir.Node]()

    def add(op_type: str, *inputs: ir.Value | None, dtype: ir.DataType = FLOAT, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(op_type, inputs, attributes))
        if dtype == FLOAT:
            nodes[-1].metadata_props[STAYS_FLOAT32] = ""
        (made,) = nodes[-1].outputs
        made.type = ir.TensorType(dtype)
        return made

    def number(array: np.ndarray[Any, Any]) -> ir.Value:
        return add("Constant", dtype=ir.DataType.from_numpy(array.dtype), value=ir.tensor(array))

    turned = add("Cast", add("Neg", given, dtype=given.dtype or FLOAT), to=FLOAT)
    mean = add("ReduceMean", add("Mul", turned, turned), number(np.array([-1])), keepdims=1)
    epsilon = np.array(attribute(norm, "epsilon", EPSILON), np.float32)
    factor = add("Reciprocal", add("Sqrt", add("Add", mean, number(epsilon))))
    normed = add("Mul", add("Mul", value, factor), scale)
    normed.shape = result.shape
    ir.convenience.replace_nodes_and_values(graph, norm, [norm], nodes, [result], [normed])


NORMS_WRITTEN_OUT = Pass(
    "norms-written-out",
    "RMS norms of values in 16 bits → written out, so that nothing of them lies in memory in float32",
    write_out,
    after=("types",),
    opset=OPSET,
)
