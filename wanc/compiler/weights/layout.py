"""What a weight is made of: one tensor of a checkpoint, some of one, or several.

Passes put weights together (`Concat`) and take them apart (`Gather`) in the graph alone. Here such nodes become weights
of their own, before any byte is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import constant

FLOATS: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "FLOAT16": np.dtype(np.float16),
    "BFLOAT16": np.dtype(ml_dtypes.bfloat16),
}
"""Between these, casts are carried out here: ONNX and numpy round alike."""
NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    **FLOATS,
    "INT8": np.dtype(np.int8),
    "INT4": np.dtype(ml_dtypes.int4),
    "FLOAT8E4M3FN": np.dtype(ml_dtypes.float8_e4m3fn),
}
"""Of these, the layout is changed here; codes of quantised weights are among them. All other dtypes are only copied."""


class Step(NamedTuple):
    """One change of layout, by the operator that stands for it in a graph.

    Transpose: a permutation of the axes. Reshape: a new shape. Gather: an axis and the index of one entry of it.
    Repeat: an axis, how often each of its entries is taken, and how many are taken in all. Pack: the bits of a code,
    and how many codes of a row are a block.
    """

    op_type: str
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        separator = "" if self.op_type == "Transpose" else "x"
        letter = "N" if self.op_type == "Repeat" else self.op_type[0]
        return f"{letter}{separator.join(map(str, self.sizes))}"

    def of(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The array, changed."""
        match self.op_type:
            case "Gather":
                return array.take(self.sizes[1], self.sizes[0])
            case "Repeat":
                axis, times, count = self.sizes
                return array.take(np.arange(count) // times, axis)
            case "Pack":
                return pack(array, *self.sizes)
            case "Transpose":
                return array.transpose(self.sizes)
            case _:
                return array.reshape(self.sizes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an array of this shape, changed."""
        match self.op_type:
            case "Gather":
                return shape[: self.sizes[0]] + shape[self.sizes[0] + 1 :]
            case "Repeat":
                axis, _, count = self.sizes
                return (*shape[:axis], count, *shape[axis + 1 :])
            case "Pack":
                bits, block = self.sizes
                return shape[0], -(-shape[1] // block), block * bits // 8
            case "Transpose":
                return tuple(shape[axis] for axis in self.sizes)
            case _:
                return self.sizes


def pack(codes: np.ndarray[Any, Any], bits: int, block: int) -> np.ndarray[Any, Any]:
    """Codes [rows, columns] → uint8 [rows, blocks, bytes], as MatMulNBits of com.microsoft reads them.

    They count from 0 on there, so that the middle stands for 0; with it the last block is filled. The first of two
    codes in a byte lies in its low bits.
    """
    middle = 1 << (bits - 1)
    counted = (codes.astype(np.int8).view(np.uint8) & np.uint8(2 * middle - 1)) ^ np.uint8(middle)
    filled = np.pad(counted, ((0, 0), (0, -codes.shape[1] % block)), constant_values=middle)
    blocks = filled.reshape(len(codes), -1, block)
    return blocks if bits == 8 else blocks[..., ::2] | blocks[..., 1::2] << 4


class StoredParts(NamedTuple):
    """What a weight is made of: one tensor as stored, one entry of it, or several of one dtype joined along an axis."""

    tensors: tuple[ir.ExternalTensor, ...]
    axis: int = 0
    entry: Step | None = None

    @property
    def dtype(self) -> ir.DataType:
        return self.tensors[0].dtype

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for equal bytes in equal places."""
        places = [(str(t.location), t.offset, t.length, t.dtype, tuple(t.shape)) for t in self.tensors]
        return (*places, self.axis, self.entry)

    @property
    def shape(self) -> tuple[int, ...]:
        """Before any change of layout."""
        shapes = [tuple(tensor.shape.numpy()) for tensor in self.tensors]
        whole = shapes[0]
        if len(shapes) > 1:
            whole = (*whole[: self.axis], sum(shape[self.axis] for shape in shapes), *whole[self.axis + 1 :])
        return self.entry.shape(whole) if self.entry else whole


def join(model: ir.Model) -> dict[ir.Value, StoredParts]:
    """Turn every Concat of weights alone into a weight of its own, and the casts in front of it into one behind it."""
    joined: dict[ir.Value, StoredParts] = {}
    for node in [node for node in model.graph if (node.domain, node.op_type) == ("", "Concat")]:
        weights = [_weight_behind(value) for value in node.inputs]
        stored = tuple(
            weight.const_value
            for weight in weights
            if weight is not None and isinstance(weight.const_value, ir.ExternalTensor)
        )
        casts = {_cast_of(value) for value in node.inputs}
        axis = node.attributes.get("axis")
        alike = len({tensor.dtype for tensor in stored}) == 1 and len(casts) == 1
        if len(stored) < len(weights) or not alike or axis is None or node.outputs[0].is_graph_output():
            continue
        if stored[0].dtype.name in NUMPY_DTYPES:
            parts = StoredParts(stored, axis.as_int() % len(stored[0].shape))
            joined[_replace(model.graph, node, str(node.outputs[0].name), parts, casts.pop())] = parts
    _remove_unused(model)
    return joined


def take_apart(model: ir.Model) -> dict[ir.Value, StoredParts]:
    """Turn a weight of which only single entries of one axis are used into so many weights."""
    made: dict[ir.Value, StoredParts] = {}
    for name, weight in list(model.graph.initializers.items()):
        tensor, nodes = weight.const_value, _views(model, weight)
        entries = [entry for node in nodes if (entry := _entry(node)) is not None]
        if not isinstance(tensor, ir.ExternalTensor) or tensor.dtype.name not in NUMPY_DTYPES:
            continue
        if not nodes or len(entries) < len(nodes) or len({entry.sizes[0] for entry in entries}) > 1:
            continue
        for node, entry in zip(nodes, entries, strict=True):
            parts = StoredParts((tensor,), entry=entry)
            made[_replace(model.graph, node, f"{name}.{entry}", parts, _cast_of(node.inputs[0]))] = parts
    _remove_unused(model)
    return made


def _replace(graph: ir.Graph, node: ir.Node, name: str, parts: StoredParts, cast: int | None) -> ir.Value:
    """Put a weight that is made of `parts`, behind a cast if there is one to be, in the place of a node."""
    weight = ir.Value(name=name, shape=ir.Shape(parts.shape), type=ir.TensorType(parts.dtype))
    result = weight
    if cast is not None:
        behind = ir.node("Cast", [weight], {"to": cast})
        result = behind.outputs[0]
        result.name, result.shape, result.type = f"{name}.cast", weight.shape, ir.TensorType(ir.DataType(cast))
        graph.insert_before(node, behind)
    node.outputs[0].replace_all_uses_with(result)
    node.outputs[0].name = None
    graph.initializers[name] = weight
    return weight


def _remove_unused(model: ir.Model) -> None:
    """Take out what the replaced nodes have left: they, the casts before them, and the weights before those."""
    for node in reversed(list(model.graph)):
        unused = not any(value.uses() or value.is_graph_output() for value in node.outputs)
        if unused and (node.domain, node.op_type) in (("", "Concat"), ("", "Gather"), ("", "Cast")):
            model.graph.remove(node, safe=True)
    for name, weight in list(model.graph.initializers.items()):
        if not weight.uses() and not weight.is_graph_output() and isinstance(weight.const_value, ir.ExternalTensor):
            del model.graph.initializers[name]


def _weight_behind(value: ir.Value | None) -> ir.Value | None:
    """The weight that a value is, or is a Cast of, if nothing else uses either."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    if node is None:
        return value if value.is_initializer() and not value.is_graph_input() else None
    return _weight_behind(node.inputs[0]) if (node.domain, node.op_type) == ("", "Cast") else None


def _cast_of(value: ir.Value | None) -> int | None:
    """The type, by ONNX's number, that the Cast which computes a value asks for."""
    node = value.producer() if value is not None else None
    return node.attributes["to"].as_int() if node is not None and "to" in node.attributes else None


def _views(model: ir.Model, weight: ir.Value) -> list[ir.Node]:
    """The consumers of a weight, behind its one Cast if it has one; none where one of them is in a subgraph."""
    nodes = [use.node for use in weight.uses()]
    if len(nodes) == 1 and (nodes[0].domain, nodes[0].op_type) == ("", "Cast"):
        nodes = [use.node for use in nodes[0].outputs[0].uses()]
    kept = weight.is_graph_output() or any(node.graph is not model.graph for node in nodes)
    return [] if kept else nodes


def _entry(node: ir.Node) -> Step | None:
    """Which entry of which axis a Gather takes; None for every other node."""
    index = constant(node.inputs[1]) if (node.domain, node.op_type) == ("", "Gather") else None
    axis = node.attributes.get("axis")
    if index is None or index.ndim or int(index) < 0 or node.outputs[0].is_graph_output():
        return None
    return Step("Gather", (axis.as_int() if axis else 0, int(index)))
