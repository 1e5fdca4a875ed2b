"""Streaming weights into an engine's own file, in the dtype and layout that the engine wants.

The canonical graph keeps a weight as the checkpoint stores it, behind Cast, Concat, Reshape and Transpose nodes, and a
lowering adds others. Here those nodes are carried out once, tensor by tensor, and removed. One tensor is in memory at a
time. Graphs from elsewhere may hold any dtype, have subgraphs that use weights by name, and weights that are outputs:
what cannot be folded is copied as it is.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import COMPUTED, OWN_DOMAIN, Place, attribute, constant, place_of
from wanc.compiler.program.program import OWN
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.layout import FLOATS, NUMPY_DTYPES, Step, StoredParts, join, pack, take_apart
from wanc.models.weights import Weight

# Large tensors begin on a page, so that the engine can map them instead of copying.
PAGE = 4096
CACHE_LINE = 64
LAYOUT = (("", "Transpose"), ("", "Reshape"), ("", "Gather"), (OWN_DOMAIN, "Pack"))
"""The operators, each with its domain, that are carried out as changes of layout."""
TURNED = Step("Transpose", (1, 0))


class Form(NamedTuple):
    """What a weight becomes: the dtype that it is cast to, and the changes of its layout, in order."""

    cast: ir.DataType
    steps: tuple[Step, ...] = ()

    @property
    def dtype(self) -> ir.DataType:
        """The dtype that is stored: what is packed is bytes."""
        return ir.DataType.UINT8 if any(step.op_type == "Pack" for step in self.steps) else self.cast


@dataclass
class WeightFile:
    """The weight file of one segment, shared by its graphs: a tensor that two of them use is written once.

    `sources` locates the files that external tensors name. Values that are not finite are refused by `finite`. A tensor
    whose place in those files is in `shared` is one that other segments use as well: it gets a file of its own, named
    by what is in it, which the segments of one device have in common. A matrix that is only multiplied by, transposed,
    is turned where `turns` says so; else it is stored as it is, and its Transpose stays in the graph.
    """

    path: Path
    sources: Mapping[str, Path]
    finite: FiniteCheck
    shared: frozenset[Place] = frozenset()
    turns: bool = True
    entries: dict[str, Weight] = field(default_factory=dict[str, Weight])
    _keys: dict[tuple[object, ...], str] = field(default_factory=dict[tuple[object, ...], str])

    def __enter__(self) -> WeightFile:
        self._stream: BinaryIO = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def absorb(self, model: ir.Model) -> None:
        """Move a graph's external weights here: fold what can be folded, write, and point the graph at the result.

        Raises CheckpointError where a weight, wherever it stands, holds values that are not finite.
        """
        _pack_constants(model)
        made = {**join(model), **take_apart(model)}
        names = _value_names(model)
        for name, initializer in list(model.graph.initializers.items()):
            tensor = initializer.const_value
            parts = made.get(initializer) or (StoredParts((tensor,)) if isinstance(tensor, ir.ExternalTensor) else None)
            if parts is not None:
                value, form = _fold_views(model, initializer, turns=self.turns)
                key = self._store(parts, name, form)
                del model.graph.initializers[name]
                value.name = key if _may_be_called(value, key, name, names) else value.name
                _refer(value, self.entries[key])
                model.graph.register_initializer(value)
        for graph in model.graph.subgraphs():
            for name, initializer in graph.initializers.items():
                tensor = initializer.const_value
                if isinstance(tensor, ir.ExternalTensor):
                    _refer(initializer, self.entries[self._store(StoredParts((tensor,)), name, Form(tensor.dtype))])
        for name, tensor in _embedded(model):
            if COMPUTED in tensor.metadata_props:
                continue  # of what was looked at itself
            self.finite.add(name, _bytes_of(tensor), tensor.dtype.name, where=self._shown(""))

    def _store(self, parts: StoredParts, name: str, form: Form) -> str:
        """The name of the entry that holds a weight in a form; it is written unless it is there already."""
        source = (parts.identity, form)
        if source not in self._keys:
            key = self._keys[source] = self._free_key(name, form)
            self.entries[key] = self._write(parts, name, form)
        return self._keys[source]

    def _free_key(self, name: str, form: Form) -> str:
        key = ".".join([name, *map(str, form.steps)])
        if key in self.entries and self.entries[key].dtype != form.dtype.name:
            key = f"{key}.{form.dtype.name.lower()}"
        stem, count = key, 1
        while key in self.entries:  # another tensor of this name, in another subgraph
            count += 1
            key = f"{stem}.{count}"
        return key

    def _write(self, parts: StoredParts, name: str, form: Form) -> Weight:
        read = [self._read(tensor, name) for tensor in parts.tensors]
        data, shape = read[0], parts.shape
        if len(read) > 1 or parts.entry or form != Form(parts.dtype):
            wanted = NUMPY_DTYPES[form.cast.name]
            arrays = [_array(piece, tensor) for piece, tensor in zip(read, parts.tensors, strict=True)]
            array = np.concatenate(arrays, parts.axis) if len(arrays) > 1 else arrays[0]
            array = parts.entry.of(array) if parts.entry else array
            with np.errstate(over="ignore"):  # beyond the narrower type's range lies infinity, as in ONNX's Cast
                array = array.astype(wanted, copy=False)
            for step in form.steps:
                array = step.of(array)
            array = np.ascontiguousarray(array).reshape(array.shape)  # which makes a scalar a row
            data, shape = _bytes(array), array.shape
        if not self.shared.isdisjoint(map(place_of, parts.tensors)):
            return self._write_alone(data, (parts.identity, form), Weight("", 0, data.nbytes, form.dtype.name, shape))
        self._stream.write(b"\0" * (-self._stream.tell() % (PAGE if data.nbytes >= PAGE else CACHE_LINE)))
        offset = self._stream.tell()
        self._stream.write(data.data)
        return Weight(self.path.name, offset, data.nbytes, form.dtype.name, shape)

    def _write_alone(self, data: np.ndarray[Any, Any], content: object, weight: Weight) -> Weight:
        digest = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
        path = self.path.with_name(f"weights.{digest}.bin")
        path.write_bytes(data.data)
        return replace(weight, file=path.name)

    @property
    def files(self) -> frozenset[Path]:
        """All files that were written."""
        return frozenset(self.path.with_name(weight.file) for weight in self.entries.values())

    def _read(self, tensor: ir.ExternalTensor, name: str) -> np.ndarray[Any, Any]:
        data = stored_bytes(tensor, self.sources)
        self.finite.add(tensor.name or name, data, tensor.dtype.name, where=self._shown(str(tensor.location)))
        return data

    def _shown(self, location: str) -> str | None:
        """The file of the user's that a weight came from, where there is one."""
        if location and not location.startswith(OWN):
            return str(self.sources[location])
        model = self.sources.get("model.onnx")
        return str(model) if model else None


def stored_bytes(tensor: ir.ExternalTensor, sources: Mapping[str, Path]) -> np.ndarray[Any, Any]:
    """A weight's bytes as stored (uint8), memory-mapped: nothing is read before it is used."""
    if not tensor.nbytes:
        return np.empty(0, np.uint8)
    path, offset = sources[str(tensor.location)], tensor.offset or 0
    return np.memmap(path, np.uint8, mode="r", offset=offset, shape=(tensor.nbytes,))


def float_values(tensor: ir.TensorProtocol, sources: Mapping[str, Path]) -> np.ndarray[Any, Any]:
    """A weight's values in float32, in its own shape, wherever they lie. It must be of a type of `FLOATS`."""
    data = stored_bytes(tensor, sources) if isinstance(tensor, ir.ExternalTensor) else _bytes_of(tensor)
    return data.view(FLOATS[tensor.dtype.name]).reshape(tensor.shape.numpy()).astype(np.float32)


def code_values(tensor: ir.ExternalTensor, sources: Mapping[str, Path]) -> np.ndarray[Any, Any]:
    """The codes of a weight, int8 in its own shape, of a tensor of INT8 or INT4."""
    return _array(stored_bytes(tensor, sources), tensor).astype(np.int8)


def _array(data: np.ndarray[Any, Any], tensor: ir.ExternalTensor) -> np.ndarray[Any, Any]:
    """The values of a tensor of a dtype of `NUMPY_DTYPES`, from its bytes as stored."""
    if tensor.dtype == ir.DataType.INT4:  # two in a byte
        return ir.PackedTensor(data, tensor.dtype, shape=ir.Shape(tensor.shape.numpy())).numpy()
    return data.view(NUMPY_DTYPES[tensor.dtype.name]).reshape(tensor.shape.numpy())


def _bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array's values as they are stored."""
    if array.dtype == NUMPY_DTYPES["INT4"]:
        return _bytes_of(ir.tensor(array))
    return array.reshape(-1).view(np.uint8)


def _bytes_of(tensor: ir.TensorProtocol) -> np.ndarray[Any, Any]:
    return np.frombuffer(tensor.tobytes(), np.uint8)


def _embedded(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every tensor of numbers that stands in the graph itself, subgraphs included, by its value's name."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for name, initializer in graph.initializers.items():
            tensor = initializer.const_value
            if tensor is not None and not isinstance(tensor, ir.ExternalTensor) and tensor.dtype != ir.DataType.STRING:
                yield name, tensor
    for node in model.graph.all_nodes():
        attribute = node.attributes.get("value")
        if node.op_type == "Constant" and attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype != ir.DataType.STRING:
                yield str(node.outputs[0].name), tensor


def _pack_constants(model: ir.Model) -> None:
    """Pack the codes that stand in the graph itself, which are too small for a file."""
    for initializer in list(model.graph.initializers.values()):
        tensor = initializer.const_value
        nodes = _common(model, initializer, OWN_DOMAIN, "Pack")
        if nodes and tensor is not None and not isinstance(tensor, ir.ExternalTensor):
            packed = pack(tensor.numpy(), *(nodes[0].attributes[name].as_int() for name in ("bits", "block_size")))
            del model.graph.initializers[str(initializer.name)]
            value = _merge(model, nodes)
            tensor = ir.tensor(packed, name=value.name)
            value.const_value, value.shape, value.type = tensor, ir.Shape(packed.shape), ir.TensorType(tensor.dtype)
            model.graph.register_initializer(value)


def _fold_views(model: ir.Model, initializer: ir.Value, *, turns: bool) -> tuple[ir.Value, Form]:
    """Remove the Cast and then the changes of layout that every consumer of a weight agrees on.

    The Transpose of a product's weight is one where it `turns`. Returns the value that the written tensor takes the
    place of, and the form in which.
    """
    assert initializer.dtype is not None
    value, form = initializer, Form(initializer.dtype)
    if form.dtype.name not in NUMPY_DTYPES:
        return value, form
    is_float = form.dtype.name in FLOATS
    if is_float and (casts := _common(model, value, "", "Cast")) and (dtype := _cast_dtype(casts[0])):
        value, form = _merge(model, casts), Form(dtype)
    shape = tuple(initializer.shape.numpy()) if initializer.shape is not None else ()
    while nodes := next(filter(None, (_common(model, value, *operator) for operator in LAYOUT)), None):
        step = _step(nodes[0], shape)
        if step is None or (step == TURNED and not turns and _are_multiplied_by(nodes)):
            break
        shape = step.shape(shape)
        value, form = _merge(model, nodes), Form(form.dtype, (*form.steps, step))
    return value, form


def _are_multiplied_by(nodes: list[ir.Node]) -> bool:
    """Whether what they give are the right sides of products, and nothing else."""
    uses = [use for node in nodes for use in node.outputs[0].uses()]
    return all((use.node.domain, use.node.op_type, use.idx) == ("", "MatMul", 1) for use in uses)


def _common(model: ir.Model, value: ir.Value, domain: str, op_type: str) -> list[ir.Node] | None:
    """The consumers of a value, when they all are this operator with the same attributes and other inputs.

    Nodes whose result leaves the graph are kept: it has to be computed where the graph's output has its name. So are
    those in subgraphs, which may not be executed at all.
    """
    nodes = [use.node for use in value.uses()]
    if value.is_graph_output() or any(
        (node.domain, node.op_type) != (domain, op_type)
        or node.inputs[0] is not value
        or node.graph is not model.graph
        or node.outputs[0].is_graph_output()
        for node in nodes
    ):
        return None
    kinds = {(str({key: entry.value for key, entry in n.attributes.items()}), n.inputs[1:]) for n in nodes}
    return nodes if len(kinds) == 1 else None


def _step(node: ir.Node, shape: tuple[int, ...]) -> Step | None:
    """What a node of `LAYOUT` does to a weight of this shape; None where that is not known or makes no sense."""
    match node.op_type:
        case "Transpose":
            permutation = _permutation(node, len(shape))
            return Step("Transpose", permutation) if permutation else None
        case "Gather":
            return _repeat(node, shape)
        case "Pack":
            return Step("Pack", (node.attributes["bits"].as_int(), node.attributes["block_size"].as_int()))
        case _:
            return _reshape(node, shape)


def _repeat(node: ir.Node, shape: tuple[int, ...]) -> Step | None:
    """A Gather of several entries, in their order, as often each; the last one may be taken less often."""
    taken, axis = constant(node.inputs[1]), int(attribute(node, "axis", 0))
    times = int(np.count_nonzero(taken == 0)) if taken is not None and taken.ndim == 1 else 0
    if taken is None or not times or not 0 <= axis < len(shape) or taken[-1] >= shape[axis]:
        return None
    in_order = np.array_equal(taken, np.arange(len(taken)) // times)
    return Step("Repeat", (axis, times, len(taken))) if in_order else None


def _reshape(node: ir.Node, shape: tuple[int, ...]) -> Step | None:
    sizes = constant(node.inputs[1])
    if sizes is None or (node.attributes.get("allowzero") and node.attributes["allowzero"].as_int()):
        return None
    wanted = [shape[axis] if size == 0 and axis < len(shape) else int(size) for axis, size in enumerate(sizes)]
    known, total = math.prod(size for size in wanted if size != -1), math.prod(shape)
    if wanted.count(-1) == 1 and known and total % known == 0:
        wanted[wanted.index(-1)] = total // known
    return Step("Reshape", tuple(wanted)) if math.prod(wanted) == total and min(wanted, default=0) >= 0 else None


def _cast_dtype(node: ir.Node) -> ir.DataType | None:
    """The dtype that a Cast asks for, if it is one that is carried out here."""
    attribute = node.attributes.get("to")
    names = {ir.DataType[name].value: ir.DataType[name] for name in FLOATS}
    return names.get(attribute.as_int()) if attribute else None


def _permutation(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    attribute = node.attributes.get("perm")
    permutation = tuple(attribute.as_ints()) if attribute else tuple(reversed(range(rank)))
    return permutation if sorted(permutation) == list(range(rank)) else None


def _merge(model: ir.Model, nodes: list[ir.Node]) -> ir.Value:
    """Take equal nodes out of the graph; one value stands for all of their outputs."""
    kept = nodes[0].outputs[0]
    value = ir.Value(name=kept.name, shape=kept.shape, type=kept.type)
    for node in nodes:
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(nodes, safe=True)
    return value


def _value_names(model: ir.Model) -> Counter[str | None]:
    """How many values have each name: subgraphs see the names around them, and may use them anew."""
    graphs = (model.graph, *model.graph.subgraphs())
    names = Counter(value.name for graph in graphs for value in {*graph.inputs, *graph.initializers.values()})
    names.update(value.name for node in model.graph.all_nodes() for value in node.outputs)
    return names


def _may_be_called(value: ir.Value, key: str, name: str, names: Counter[str | None]) -> bool:
    """Whether a weight, so far `name`, can be called `key` without another value being taken for it."""
    return not value.is_graph_output() and names[key] == (1 if key == name else 0)


def _refer(value: ir.Value, weight: Weight) -> None:
    dtype, shape = ir.DataType[weight.dtype], ir.Shape(weight.shape)
    value.shape, value.type = shape, ir.TensorType(dtype)
    value.const_value = ir.ExternalTensor(
        weight.file, weight.offset, weight.length, dtype, shape=shape, name=value.name or ""
    )
