"""Lowering of number formats: products in 16 bits, what the islands name in float32, and the casts between them.

TensorRT computes each operation in the type that the graph gives it. A graph's inputs and outputs stay as they are; a
weight is stored in the type in which it is used. What depends on sizes alone, such as the indices of an upsampling,
stays in float32, where all whole numbers are exact. The scales of codes are rounded to the type of the products, for
those would otherwise give float32: both that which rounds and that which goes back take the rounded number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from wanc.compiler.engines.tensorrt.islands import is_island
from wanc.compiler.engines.tensorrt.typed_constants import TypedConstants
from wanc.compiler.graphs.collectives import RANKS_DOMAIN
from wanc.compiler.graphs.pieces import constants
from wanc.compiler.graphs.values import attribute
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal
from wanc.words import Compute, Island

FLOAT = ir.DataType.FLOAT
TYPES: Mapping[Compute, ir.DataType] = {"fp32": FLOAT, "bf16": ir.DataType.BFLOAT16, "fp16": ir.DataType.FLOAT16}
CARRIED = (
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad", "Reshape",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What moves numbers and computes none: it has the type of what it is given."""
FIRST_ALONE = ("Resize", "QuantizeLinear")
"""Operators of whose inputs the first alone is what is computed with."""


@dataclass(frozen=True)
class Precision:
    """The format of products, and which kinds of operations stay in float32 where that has 16 bits."""

    compute: Compute
    islands: tuple[Island, ...] = ("residual", "modulation", "norm", "rope")


def typing_pass(precision: Precision) -> Pass:
    """The pass that gives every operation its type."""
    return Pass(
        "types",
        "products → in 16 bits; islands, and what depends on sizes alone → in float32",
        partial(give_types, precision=precision),
        after=("attention-written-out", "names"),
        opset=OPSET,
    )


def give_types(model: ir.Model, precision: Precision) -> PassOutcome:
    """Give every operation its type, with casts where two meet. A graph with others inside of it is left alone."""
    if any(True for _ in model.graph.subgraphs()) or model.functions:
        return PassOutcome(0, [Refusal(str(model.graph.name), "it has subgraphs or functions, which stay in float32")])
    return PassOutcome(_Typing(model, precision).apply())


class _Typing:
    """One walk through a graph; `_typed` are values in another type than that in which they are computed."""

    def __init__(self, model: ir.Model, precision: Precision) -> None:
        self._graph, self._islands, self._compute = model.graph, precision.islands, TYPES[precision.compute]
        self._constant = constants(model.graph)
        self._constants = TypedConstants(model.graph, self._constant)
        self._of_data = _values_of_data(model.graph)
        self._typed: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._fired = 0

    def apply(self) -> int:
        """How many values got another type."""
        for node in list(self._graph):
            if node not in self._constant and node.op_type not in ("Cast", "Constant"):
                self._give(node)
        for index, value in enumerate(self._graph.outputs):
            if value.dtype == self._compute and self._compute != FLOAT:
                self._give_back(index, value)
        return self._fired

    def _give(self, node: ir.Node) -> None:
        if node.op_type == "DequantizeLinear":
            self._round_scale(node, self._compute)
            self._set(node, self._compute)
            return
        if node.op_type == "QuantizeLinear":
            self._round_scale(node, self._dtype(node.inputs[0]))
            return
        wanted = self._wanted(node)
        for index, value in enumerate(node.inputs[:1] if node.op_type in FIRST_ALONE else node.inputs):
            if value is not None and value.dtype in (FLOAT, self._compute) and value.dtype != wanted:
                node.replace_input_with(index, self._as(value, wanted, node))
                self._fired += 1
        self._set(node, wanted)

    def _wanted(self, node: ir.Node) -> ir.DataType:
        """The type that a node computes in."""
        is_of_data = self._of_data.intersection(filter(None, node.inputs))
        if attribute(node, "collective_operation") == "all_to_all":
            return self._compute  # as the attention behind it has it: half of the bytes between ranks
        is_carried = node.op_type in CARRIED or node.domain == RANKS_DOMAIN
        if not is_of_data or (node.domain and not is_carried) or is_island(node, self._islands):
            return FLOAT
        if is_carried:
            given = [value.dtype for value in node.inputs if value in is_of_data]
            return self._compute if self._compute in given else FLOAT
        return self._compute if any(value.dtype in (FLOAT, self._compute) for value in node.outputs) else FLOAT

    def _set(self, node: ir.Node, dtype: ir.DataType) -> None:
        for value in node.outputs:
            if value.dtype in (FLOAT, self._compute) and value.dtype != dtype:
                value.type = ir.TensorType(dtype)
                self._fired += 1

    def _as(self, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
        """A value in another type, computed in front of its first user."""
        if (value, dtype) not in self._typed:
            if value.is_initializer() or value.producer() in self._constant:
                self._typed[value, dtype] = self._constants.typed(value, dtype, user)
            else:
                cast = _cast(value, dtype)
                self._graph.insert_before(user, cast)
                self._typed[value, dtype] = cast.outputs[0]
        return self._typed[value, dtype]

    def _round_scale(self, node: ir.Node, dtype: ir.DataType) -> None:
        """Take a scale, rounded to the type of products, in this one."""
        scale = node.inputs[1]
        assert scale is not None
        rounded = self._constants.rounded(scale, self._compute, dtype, node)
        if rounded is not scale:
            node.replace_input_with(1, rounded)
            self._fired += 1

    def _dtype(self, value: ir.Value | None) -> ir.DataType:
        assert value is not None and value.dtype is not None
        return value.dtype

    def _give_back(self, index: int, value: ir.Value) -> None:
        """A graph's output in the type that it had.

        What is cut out of a larger value, as a decoder's caches are, is cut out in that type: a cast behind the cut is
        left to the end of all kernels, and until then the library holds all of the larger value.
        """
        node = value.producer()
        if node is not None and node.op_type == "Slice" and not value.uses():
            whole = node.inputs[0]
            assert whole is not None
            cast = _cast(whole, FLOAT)
            self._graph.insert_before(node, cast)
            node.replace_input_with(0, cast.outputs[0])
            self._set(node, FLOAT)
            return
        name = value.name
        value.name = f"{name}.{self._compute.short_name()}"
        cast = _cast(value, FLOAT)
        (result,) = cast.outputs
        result.name = name
        self._graph.append(cast)
        self._graph.outputs[index] = result
        self._fired += 1


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": dtype})
    cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(dtype)
    return cast


def _values_of_data(graph: ir.Graph) -> set[ir.Value]:
    """What depends on the numbers of an input that are floats; sizes, and what is made of them, do not."""
    found = {value for value in graph.inputs if value.dtype is not None and value.dtype.is_floating_point()}
    for node in graph:
        if node.op_type not in ("Shape", "Size") and found.intersection(filter(None, node.inputs)):
            found.update(node.outputs)
    return found
