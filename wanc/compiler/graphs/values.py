"""Looking at a graph's values: constants, shapes, and what computed them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

OWN_DOMAIN = "wanc"
"""Of the one operator that no engine has, Pack: it exists between the lowering and the writing of the weights."""
COMPUTED = "wanc.computed"
"""Marks a tensor that was computed of a graph's constants, among the notes that it has on disk."""
WRITTEN_OUT = "wanc.written_out"
"""Marks an Attention that was written out in the graph as it came, among the notes that it has on disk."""
LARGEST_CONSTANT = 2**16  # elements; what is larger is a weight, and its values are nobody's business here


Place = tuple[str, int]
"""Where a weight lies: the name of its file, and the offset in it."""


def place_of(tensor: ir.ExternalTensor) -> Place:
    """Where a weight lies."""
    return str(tensor.location), tensor.offset or 0


def constant(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The numbers of a small constant that stands in the graph itself; None for everything else."""
    if value is None:
        return None
    tensor = value.const_value or ir.convenience.get_const_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or value.is_graph_input():
        return None
    return tensor.numpy() if tensor.size <= LARGEST_CONSTANT else None


def sizes_at(value: ir.Value, sizes: Mapping[str, int]) -> list[int | None]:
    """A value's shape where names of sizes stand for these numbers; None for what is not known then."""
    assert value.shape is not None
    found = [size if isinstance(size, int) else size.evaluate(sizes) for size in value.shape]
    return [size if isinstance(size, int) else None for size in found]


def scalar(value: ir.Value | None, *beside: ir.Value) -> float | None:
    """The number that a constant holds which is a scalar to what it is computed with.

    It has no axes, or only axes of 1 and no more of them than one of `beside` is known to have: a constant of more
    gives them to the result.
    """
    array = constant(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    most = max((rank(other) or 0 for other in beside), default=0)
    return float(array.reshape(-1)[0]) if array.ndim <= most else None


def integers(value: ir.Value | None) -> list[int] | None:
    """The numbers of a constant of whole numbers, flattened."""
    array = constant(value)
    return [int(entry) for entry in array.reshape(-1)] if array is not None and array.dtype.kind in "iu" else None


def is_filled_with(value: ir.Value | None, number: float) -> bool:
    """Whether every element of a value is this number: a constant, or one expanded to a shape."""
    node = producer(value, "Expand")
    array = constant(node.inputs[0] if node else value)
    return array is not None and bool(np.all(array == number))


READ: Mapping[str, tuple[str, ...]] = {
    "Attention": (
        "is_causal",
        "kv_num_heads",
        "q_num_heads",
        "qk_matmul_output_mode",
        "scale",
        "softcap",
        "softmax_precision",
    ),
    "Cast": ("round_mode", "saturate", "to"),
    "DequantizeLinear": ("axis", "block_size"),
    "Gather": ("axis",),
    "LayerNormalization": ("axis", "epsilon", "stash_type"),
    "QuantizeLinear": ("axis", "block_size"),
    "RMSNormalization": ("axis", "epsilon", "stash_type"),
    "Reshape": ("allowzero",),
    "RotaryEmbedding": ("interleaved", "num_heads"),
    "Split": ("axis", "num_outputs"),
    "Transpose": ("perm",),
}
"""By operator, the attributes that those who walk through a graph read or leave as they are. A node with another one
does more than they know of, and is none of theirs."""


def unread_attribute(node: ir.Node, read: Collection[str] = ()) -> str | None:
    """An attribute of a node that is none of those `read`, and says something: it is not the operator's default.

    In a function, one that stands for what a caller gives is always one.
    """
    for name, entry in node.attributes.items():
        if entry.is_ref() or (name not in read and not _is_default(node, name, entry)):
            return name
    return None


def _is_default(node: ir.Node, name: str, entry: ir.Attr) -> bool:
    try:
        described = onnx.defs.get_schema(node.op_type, node.domain).attributes.get(name)
    except onnx.defs.SchemaError:
        return False
    if described is None or described.default_value.type == onnx.AttributeProto.UNDEFINED:
        return False
    return ir.from_proto(described.default_value).value == entry.value


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of the standard domain that computes a value, if its operator is one of these and `READ` wholly."""
    node = value.producer() if value is not None else None
    if node is None or node.domain or node.op_type not in op_types:
        return None
    return None if unread_attribute(node, READ.get(node.op_type, ())) else node


def exclusive_producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that computes a value, if it is of this operator and nothing else uses the value."""
    node = producer(value, op_type)
    is_alone = value is not None and len(value.uses()) == 1 and not value.is_graph_output()
    return node if is_alone else None


def scale_per_row(dequantize: ir.Node) -> bool:
    """Whether a DequantizeLinear has one scale for each row of a matrix of codes."""
    blocks = attribute(dequantize, "axis", 1) != 0 or attribute(dequantize, "block_size", 0)
    return not blocks and rank(dequantize.inputs[0]) == 2 and rank(dequantize.inputs[1]) == 1


def attention_heads(node: ir.Node) -> int:
    """How many heads an Attention on [batch, sequence, heads * size] has, in queries as in keys.

    0 where it has another form, or does more than softmax(scale · q·kᵀ) · v.
    """
    heads = attribute(node, "q_num_heads", 0)
    more = unread_attribute(node, ("q_num_heads", "kv_num_heads", "scale")) or attribute(node, "scale") == 0
    plain = len(node.inputs) == 3 and len(node.outputs) == 1 and rank(node.inputs[0]) == 3 and not more
    return heads if plain and heads == attribute(node, "kv_num_heads", 0) else 0


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    found = node.attributes.get(name)
    return found.value if found is not None else default


def rank(value: ir.Value | None) -> int | None:
    """The number of dimensions, where it is known."""
    return len(value.shape) if value is not None and value.shape is not None else None


def size(value: ir.Value | None, axis: int) -> int | None:
    """The size of a dimension, where it is a number."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    found = value.shape[axis]
    return found if isinstance(found, int) else None


def same_dimension(left: ir.Value, right: ir.Value, axis: int, other: int | None = None) -> bool:
    """Whether two dimensions are known to be equal: the same number, or the same name."""
    if left.shape is None or right.shape is None:
        return False
    other = axis if other is None else other
    if axis >= len(left.shape) or other >= len(right.shape):
        return False
    one, two = left.shape[axis], right.shape[other]
    return one == two and one != ir.SymbolicDim(None)
