"""Streaming weights into an engine's own file, in the dtype and layout that the engine wants.

The canonical graph keeps a weight as the checkpoint stores it, behind Cast and Transpose nodes. Here those nodes are
carried out once, tensor by tensor, and removed. One tensor is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import onnx_ir as ir

from wanc.models.weights import Weight

# Large tensors begin on a page, so that the engine can map them instead of copying.
PAGE = 4096
CACHE_LINE = 64

NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "FLOAT16": np.dtype(np.float16),
    "BFLOAT16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass
class WeightFile:
    """The weight file of one component, shared by its graphs: a tensor that two of them use is written once."""

    path: Path
    sources: Mapping[str, Path]
    entries: dict[str, Weight] = field(default_factory=dict[str, Weight])

    def __enter__(self) -> WeightFile:
        self._stream: BinaryIO = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def absorb(self, model: ir.Model) -> None:
        """Move a graph's external weights here: fold what can be folded, write, and point the graph at the result."""
        for name, initializer in list(model.graph.initializers.items()):
            tensor = initializer.const_value
            if isinstance(tensor, ir.ExternalTensor):
                value, dtype, permutation = _fold_views(model, initializer)
                key = _entry_name(name, permutation)
                if key in self.entries and self.entries[key].dtype != dtype.name:
                    key = f"{key}.{dtype.name.lower()}"
                if key not in self.entries:
                    self.entries[key] = self._write(tensor, dtype, permutation)
                del model.graph.initializers[name]
                _refer(value, key, self.entries[key])
                model.graph.register_initializer(value)

    def _write(self, tensor: ir.ExternalTensor, dtype: ir.DataType, permutation: tuple[int, ...] | None) -> Weight:
        array = read_weight(tensor, self.sources).astype(NUMPY_DTYPES[dtype.name], copy=False)
        if permutation is not None:
            array = np.ascontiguousarray(array.transpose(permutation))
        alignment = PAGE if array.nbytes >= PAGE else CACHE_LINE
        self._stream.write(b"\0" * (-self._stream.tell() % alignment))
        offset = self._stream.tell()
        self._stream.write(array.data.cast("B") if array.dtype.kind != "V" else array.tobytes())
        return Weight(self.path.name, offset, array.nbytes, dtype.name, array.shape)


def read_weight(tensor: ir.ExternalTensor, sources: Mapping[str, Path]) -> np.ndarray[Any, Any]:
    """A weight as stored, memory-mapped: nothing is read before it is used."""
    assert tensor.offset is not None and tensor.dtype is not None
    shape = tuple(tensor.shape.numpy())
    return np.memmap(
        sources[str(tensor.location)], NUMPY_DTYPES[tensor.dtype.name], mode="r", offset=tensor.offset, shape=shape
    )


def _fold_views(model: ir.Model, initializer: ir.Value) -> tuple[ir.Value, ir.DataType, tuple[int, ...] | None]:
    """Remove the Cast and then the Transpose that every consumer of a weight agrees on.

    Returns the value that the written tensor takes the place of, its dtype, and the permutation applied, if any.
    """
    value, dtype, permutation = initializer, initializer.dtype, None
    assert dtype is not None
    if casts := _common(value, "Cast", "to"):
        value, dtype = _merge(model, casts), ir.DataType(casts[0].attributes["to"].as_int())
    if transposes := _common(value, "Transpose", "perm"):
        perm = transposes[0].attributes.get("perm")
        permutation = tuple(perm.as_ints()) if perm else tuple(reversed(range(len(initializer.shape or ()))))
        value = _merge(model, transposes)
    return value, dtype, permutation


def _common(value: ir.Value, op_type: str, attribute: str) -> list[ir.Node] | None:
    """The consumers of a value, when they all are this operator with one and the same attribute.

    Nodes whose result leaves the graph are kept: it has to be computed where the graph's output has its name.
    """
    nodes = [use.node for use in value.uses()]
    if value.is_graph_output() or any(node.op_type != op_type or node.outputs[0].is_graph_output() for node in nodes):
        return None
    attributes = [node.attributes.get(attribute) for node in nodes]
    return nodes if len({str(entry and entry.value) for entry in attributes}) == 1 else None


def _merge(model: ir.Model, nodes: list[ir.Node]) -> ir.Value:
    """Take equal nodes out of the graph; one value stands for all of their outputs."""
    kept = nodes[0].outputs[0]
    value = ir.Value(name=kept.name, shape=kept.shape, type=kept.type)
    for node in nodes:
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(nodes, safe=True)
    return value


def _entry_name(name: str, permutation: tuple[int, ...] | None) -> str:
    return name if permutation is None else f"{name}.T{''.join(map(str, permutation))}"


def _refer(value: ir.Value, name: str, weight: Weight) -> None:
    dtype = ir.DataType[weight.dtype]
    value.name, value.shape, value.type = name, ir.Shape(weight.shape), ir.TensorType(dtype)
    value.const_value = ir.ExternalTensor(
        weight.file, weight.offset, weight.length, dtype, shape=ir.Shape(weight.shape), name=name
    )
