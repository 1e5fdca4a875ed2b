"""Constants of a graph in another type: weights, views of them, and numbers that stand in the graph itself."""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import COMPUTED, constant

VIEWS = ("Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
ROUNDED = ".rounded"
"""What the name of a scale ends with that was rounded to fewer bits."""


class TypedConstants:
    """Makes constants of a graph in other types; `nodes` are those that depend on no input.

    A weight of a checkpoint gets one Cast, from the type in which it is stored, which is carried out where weights are
    written; what views it is repeated behind that. Small numbers are converted here.
    """

    def __init__(self, graph: ir.Graph, nodes: Collection[ir.Node]) -> None:
        self._graph, self._nodes = graph, nodes
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def typed(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        """A constant in another type, for a node behind which nothing of it may come."""
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._made:
            self._made[value, dtype] = self._make(value, dtype, user)
        return self._made[value, dtype]

    def rounded(self, scale: ir.Value, to: ir.DataType, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        """A scale that was rounded `to` fewer bits, in a type that holds it."""
        if scale.dtype == to or str(scale.name).endswith(ROUNDED):
            return self.typed(scale, dtype, user)
        return (
            self._embed(scale, to, dtype)
            if dtype != to and constant(scale) is not None
            else self.typed(scale, dtype, user)
        )

    def _make(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        node = value.producer()
        if constant(value) is not None:
            return self._embed(value, dtype, dtype)
        if node is None:
            return self._add(ir.node("Cast", [value], {"to": dtype}), value, dtype, user)
        if node.op_type == "Cast" and node.inputs[0] is not None and _is_float(node.inputs[0]):
            return self.typed(node.inputs[0], dtype, user)
        if node.op_type in VIEWS and len(node.outputs) == 1:
            inputs = [self.typed(each, dtype, user) if each and _is_float(each) else each for each in node.inputs]
            return self._add(ir.Node("", node.op_type, inputs, node.attributes.values()), value, dtype, user)
        if node.op_type == "DequantizeLinear":
            codes, scale, *zero = node.inputs
            assert scale is not None
            inputs = [codes, self.typed(scale, dtype, user), *zero]
            return self._add(ir.Node("", node.op_type, inputs, node.attributes.values()), value, dtype, user)
        return self._add(ir.node("Cast", [value], {"to": dtype}), value, dtype, user)

    def _add(self, node: ir.Node, like: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        (result,) = node.outputs
        result.shape, result.type = like.shape, ir.TensorType(dtype)
        self._graph.insert_before(user, node)
        return result

    def _embed(self, value: ir.Value, to: ir.DataType, dtype: ir.DataType) -> ir.Value:
        """The numbers, rounded, in the graph itself. Beyond the narrower type's range lies infinity, as for a Cast."""
        numbers = constant(value)
        assert numbers is not None
        with np.errstate(over="ignore"):
            tensor = ir.tensor(numbers.astype(_numpy(to)).astype(_numpy(dtype)), name=f"{value.name}{ROUNDED}")
        tensor.metadata_props[COMPUTED] = ""
        name = f"{value.name}.{dtype.short_name()}{ROUNDED}"
        if name not in self._graph.initializers:
            made = ir.Value(name=name, shape=ir.Shape(numbers.shape), type=ir.TensorType(dtype), const_value=tensor)
            self._graph.register_initializer(made)
        return self._graph.initializers[name]


def _is_float(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _numpy(dtype: ir.DataType) -> np.dtype[np.generic]:
    return np.dtype(ml_dtypes.bfloat16) if dtype == ir.DataType.BFLOAT16 else dtype.numpy()
