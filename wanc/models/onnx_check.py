"""Whether an ONNX graph is one that may be handed to an engine: limits, operators, and every name defined once.

Nothing of it is evaluated, and no tensor's values are looked at but the few that state a shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx

from wanc.errors import CheckpointError
from wanc.models.onnx_limits import MAX_DEPTH, MAX_DIMENSION, MAX_NODES, MAX_RANK, MAX_TENSOR_BYTES, OPSETS
from wanc.models.onnx_tensors import BITS, ExternalRange, Tensors, quoted

OLDEST_IR = 3
FunctionKey = tuple[str, str, str]
SHAPE_INPUTS = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators whose result is at least as large as the product of this input's values."""


class Extent(NamedTuple):
    """Nodes that executing something may visit, and how deep subgraphs and calls are nested in it."""

    nodes: int
    depth: int


@dataclass(frozen=True)
class Scope:
    """What one graph defines, the values of its small constants, and the graph around it."""

    outer: Scope | None = None
    names: set[str] = field(default_factory=set[str])
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    def sees(self, name: str) -> bool:
        return name in self.names or (self.outer is not None and self.outer.sees(name))

    def constant(self, name: str) -> tuple[int, ...] | None:
        if name in self.names or self.outer is None:
            return self.constants.get(name)
        return self.outer.constant(name)


def is_constant(node: onnx.NodeProto) -> bool:
    """Whether a node gives one constant, in a graph that could have it as a weight."""
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.output) == 1


def check_model(model: onnx.ModelProto, *, where: str) -> list[ExternalRange]:
    """Check everything that can be told from the file alone; returns where its external tensors say they lie.

    Raises CheckpointError naming the node or tensor.
    """
    return _ModelCheck(model, where).run()


class _ModelCheck:
    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        self._model = model
        self._where = where
        self._tensors = Tensors(where)
        self._functions = {_key(function): function for function in model.functions}
        self._extents: dict[FunctionKey, Extent | None] = {}
        self._visited = 0
        self._says_version = any(entry.domain in ("", "ai.onnx") for entry in model.opset_import)
        self._inside = 0  # of so many functions, which have no weights

    def run(self) -> list[ExternalRange]:
        model = self._model
        if not model.HasField("graph") or not model.graph.output:
            raise self._fault("no graph with outputs in this file", hint="is this an ONNX model?")
        if not OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
            raise self._fault(
                f"version {model.ir_version} of the ONNX format; wanc takes {OLDEST_IR} to {onnx.IR_VERSION}"
            )
        self._check_opsets(model.opset_import)
        if len(self._functions) < len(model.functions):
            raise self._fault("two functions have the same name")
        extent = self._graph(model.graph, Scope(), depth=0)
        for function in model.functions:  # also those that nobody calls: an engine may look at them
            self._check_opsets(function.opset_import)
            self._function(_key(function), depth=0)
        if extent.nodes > MAX_NODES:
            raise self._fault(f"{extent.nodes} nodes when its functions are called, more than the {MAX_NODES} allowed")
        return self._tensors.external

    def _check_opsets(self, imports: Sequence[onnx.OperatorSetIdProto]) -> None:
        versions: dict[str, int] = {}
        for entry in imports:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            if versions.setdefault(domain, entry.version) != entry.version:
                raise self._fault(f"two versions of the operator set {quoted(domain)}")
        for domain, (oldest, newest) in OPSETS.items():
            version = versions.get(domain, oldest)
            if not oldest <= version <= newest:
                raise self._fault(
                    f"version {version} of the operators of {domain or 'ONNX'}; wanc takes {oldest} to {newest}",
                    hint="convert it: onnx.version_converter.convert_version" if not domain else None,
                )

    def _graph(self, graph: onnx.GraphProto, outer: Scope, *, depth: int) -> Extent:
        self._check_depth(depth)
        scope = Scope(outer)
        for value in graph.input:
            self._check_type(value)
            self._define(scope, value.name, f"input {quoted(value.name)}")
        inputs = set(scope.names)
        for tensor in graph.initializer:
            self._tensors.check(tensor, tensor.name, may_be_external=True)
            self._define_weight(scope, tensor.name, inputs)
            if (values := _small_constant(tensor)) is not None:
                scope.constants[tensor.name] = values
        if graph.sparse_initializer:
            raise self._sparse(graph.sparse_initializer[0].values.name)
        extent = self._nodes(graph.node, scope, depth)
        for value in (*graph.value_info, *graph.output):
            self._check_type(value)
        for value in graph.output:
            if not scope.sees(value.name):
                raise self._fault(f"output {quoted(value.name)} is computed by no node")
        return extent

    def _nodes(self, nodes: Iterable[onnx.NodeProto], scope: Scope, depth: int) -> Extent:
        total = deepest = 0
        for index, node in enumerate(nodes):
            self._visited += 1
            if self._visited > MAX_NODES:
                raise self._fault(f"more than the {MAX_NODES} nodes allowed")
            extent = self._node(node, describe_node(node, index), scope, depth)
            total += extent.nodes
            deepest = max(deepest, extent.depth)
        return Extent(total, deepest)

    def _node(self, node: onnx.NodeProto, shown: str, scope: Scope, depth: int) -> Extent:
        for name in node.input:
            if name and not scope.sees(name):
                raise self._fault(
                    f"{shown} uses {quoted(name)}, which nothing before it computes",
                    hint="either the name is wrong, or the nodes are in a cycle or out of order",
                )
        extents = [self._operator(node, shown, depth)]
        names: set[str] = set()
        for attribute in node.attribute:
            if attribute.name in names:
                raise self._fault(f"{shown} has two attributes {quoted(attribute.name)}")
            names.add(attribute.name)
            is_weight = attribute.name == "value" and is_constant(node) and not self._inside
            extents += self._attribute(attribute, shown, scope, depth, may_be_external=is_weight)
        self._check_result(node, shown, scope)
        for name in node.output:
            if name:
                if scope.outer is not None and scope.outer.sees(name):
                    raise self._fault(f"{shown} computes {quoted(name)}, which the graph around it already has")
                self._define(scope, name, shown)
        if node.op_type == "Constant" and len(node.output) == 1 and (value := _constant_node(node)) is not None:
            scope.constants[node.output[0]] = value
        return Extent(sum(extent.nodes for extent in extents), max(extent.depth for extent in extents))

    def _operator(self, node: onnx.NodeProto, shown: str, depth: int) -> Extent:
        key = (node.domain, node.op_type, node.overload)
        if key in self._functions:
            return self._function(key, depth=depth + 1)
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain not in OPSETS:
            raise self._fault(
                f"{shown} is of the domain {quoted(domain)}, which onnxruntime does not have",
                hint=f"wanc takes operators of ONNX, {', '.join(filter(None, OPSETS))}, and functions in the file",
            )
        if not domain and not self._says_version:
            raise self._fault("does not say which version of ONNX's operators it uses")
        return Extent(1, 0)

    def _function(self, key: FunctionKey, *, depth: int) -> Extent:
        """What calling a function comes to; `depth` is where it is called."""
        self._check_depth(depth)
        if key in self._extents:
            extent = self._extents[key]
            if extent is None:
                raise self._fault(f"function {quoted(key[1])} calls itself")
        else:
            self._extents[key] = None
            function = self._functions[key]
            scope = Scope()
            for name in function.input:
                self._define(scope, name, f"function {quoted(function.name)}")
            for attribute in function.attribute_proto:
                self._attribute(attribute, f"function {quoted(function.name)}", scope, depth)
            self._inside += 1
            extent = self._extents[key] = self._nodes(function.node, scope, depth)
            self._inside -= 1
            for name in function.output:
                if not scope.sees(name):
                    raise self._fault(f"output {quoted(name)} of function {quoted(function.name)} is never computed")
        self._check_depth(depth + extent.depth)
        return Extent(extent.nodes, extent.depth + 1)

    def _attribute(
        self, attribute: onnx.AttributeProto, shown: str, scope: Scope, depth: int, *, may_be_external: bool = False
    ) -> list[Extent]:
        """Checks what an attribute holds; returns the extents of the graphs among it."""
        owner = f"of {shown}"
        if not attribute.ref_attr_name and attribute.type == onnx.AttributeProto.UNDEFINED:
            raise self._fault(f"attribute {quoted(attribute.name)} {owner} has no type that is known")
        for tensor in (*attribute.tensors, *_present(attribute, "t")):
            self._tensors.check(tensor, tensor.name or owner, may_be_external=may_be_external)
        if attribute.sparse_tensors or attribute.HasField("sparse_tensor"):
            raise self._sparse(owner)
        graphs = [*attribute.graphs, *_present(attribute, "g")]
        extents = [self._graph(graph, scope, depth=depth + 1) for graph in graphs]
        return [Extent(extent.nodes, extent.depth + 1) for extent in extents]

    def _sparse(self, name: str) -> CheckpointError:
        return self._fault(f"tensor {quoted(name)} is sparse", hint="wanc takes dense tensors; convert it")

    def _check_result(self, node: onnx.NodeProto, shown: str, scope: Scope) -> None:
        """A node that fills memory from a few constants does so as soon as an engine opens the graph."""
        index = SHAPE_INPUTS.get(node.op_type)
        if index is not None and len(node.input) > index:
            shape = scope.constant(node.input[index])
        else:
            shape = next((tuple(a.ints) for a in node.attribute if a.name == "shape" and a.ints), None)
        if shape is not None:
            if len(shape) > MAX_RANK:
                raise self._fault(f"{shown} makes {len(shape)} dimensions, more than the {MAX_RANK} allowed")
            value = next((a.t.data_type for a in node.attribute if a.name == "value"), None)
            default = onnx.TensorProto.FLOAT if node.op_type == "ConstantOfShape" else onnx.TensorProto.INT8
            self._check_elements([max(size, 1) for size in shape], value or default, shown)

    def _check_elements(self, shape: Sequence[int], data_type: int, shown: str) -> None:
        size = math.prod(shape) * BITS.get(data_type, 8) // 8
        if size > MAX_TENSOR_BYTES:
            raise self._fault(f"{shown} would take {size} bytes, more than the {MAX_TENSOR_BYTES} allowed")

    def _check_type(self, value: onnx.ValueInfoProto) -> None:
        if fault := size_fault(value):
            raise self._fault(f"{quoted(value.name)} {fault}")

    def _define_weight(self, scope: Scope, name: str, inputs: set[str]) -> None:
        """An initializer may carry the name of an input, whose default it then is; once."""
        if name in inputs:
            inputs.remove(name)
        else:
            self._define(scope, name, f"tensor {quoted(name)}")

    def _define(self, scope: Scope, name: str, shown: str) -> None:
        if not name:
            raise self._fault(f"{shown} has no name")
        if name in scope.names:
            raise self._fault(f"{shown}: {quoted(name)} is defined twice")
        scope.names.add(name)

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._fault(f"subgraphs or functions nested deeper than the {MAX_DEPTH} allowed")

    def _fault(self, message: str, *, hint: str | None = None) -> CheckpointError:
        return CheckpointError(message, where=self._where, hint=hint)


def size_fault(value: onnx.ValueInfoProto) -> str | None:
    """Why a value cannot have the shape that is said of it, or None. It may be partly unknown."""
    tensor_type = value.type.tensor_type
    dims = [dim.dim_value for dim in tensor_type.shape.dim if dim.HasField("dim_value")]
    if len(tensor_type.shape.dim) > MAX_RANK:
        return f"has {len(tensor_type.shape.dim)} dimensions, more than the {MAX_RANK} allowed"
    if too_large := [dim for dim in dims if dim > MAX_DIMENSION]:
        return f"has a dimension of {too_large[0]}, more than the {MAX_DIMENSION} allowed"
    size = math.prod(dim for dim in dims if dim > 0) * BITS.get(tensor_type.elem_type, 8) // 8
    return f"has {size} bytes, more than the {MAX_TENSOR_BYTES} allowed" if size > MAX_TENSOR_BYTES else None


def describe_node(node: onnx.NodeProto, index: int) -> str:
    """A node as messages name it: by its name, or by its number where it has none, and its operator."""
    return f"node {quoted(node.name) if node.name else index} ({quoted(node.op_type)[1:-1]})"


def _key(function: onnx.FunctionProto) -> FunctionKey:
    return function.domain, function.name, function.overload


def _present(attribute: onnx.AttributeProto, name: str) -> list[Any]:
    """A field's message, where there is one, whatever the attribute says that its type is."""
    return [getattr(attribute, name)] if attribute.HasField(name) else []


def _constant_node(node: onnx.NodeProto) -> tuple[int, ...] | None:
    """The values of a Constant node, when they may be a shape."""
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.HasField("t"):
            return _small_constant(attribute.t)
        if attribute.name == "value_ints":
            return tuple(attribute.ints) if len(attribute.ints) <= MAX_RANK else None
        if attribute.name == "value_int":
            return (attribute.i,)
    return None


def _small_constant(tensor: onnx.TensorProto) -> tuple[int, ...] | None:
    """The values of an int64 tensor in the file that is short enough for a shape; its sizes are checked already."""
    if tensor.data_type != onnx.TensorProto.INT64 or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    if math.prod(tensor.dims) > MAX_RANK:
        return None
    raw = tensor.raw_data
    return tuple(int.from_bytes(raw[i : i + 8], "little", signed=True) for i in range(0, len(raw), 8)) or tuple(
        tensor.int64_data
    )
