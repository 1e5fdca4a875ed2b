"""One ONNX graph: interface, operators, and tensors by dtype."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from wanc.artifacts.files import hash_file
from wanc.errors import EXIT_DATA, UserError
from wanc.inspection.outline import read_outline
from wanc.inspection.tensors import Tensor, dtype_name, tally

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto


def describe_graph(path: Path) -> dict[str, Any]:
    """Everything about an `.onnx` file. Raises UserError where it cannot be read or is not one."""
    return {
        "kind": "graph",
        "path": str(path),
        "size": path.stat().st_size,
        "digest": hash_file(path)[0],
        **describe_model(path),
    }


def describe_model(path: Path) -> dict[str, Any]:
    """What is inside an `.onnx` file, but for names and digests. Raises UserError as `describe_graph` does."""
    model = read_outline(path)
    try:
        return _describe(model, path.parent)
    except ValueError as error:  # a name that is no text, a dtype or a size that cannot be
        raise UserError("is a damaged ONNX model", where=str(path), exit_code=EXIT_DATA) from error


def _describe(model: ModelProto, folder: Path) -> dict[str, Any]:
    graph = model.graph
    operators = _operators(graph)
    stored = {tensor.name for tensor in graph.initializer}
    return {
        "ir_version": model.ir_version,
        "producer": f"{_text(model.producer_name)} {_text(model.producer_version)}".strip(),
        "opsets": {_text(entry.domain) or "ai.onnx": entry.version for entry in model.opset_import},
        "inputs": [_value(value) for value in graph.input if value.name not in stored],
        "outputs": [_value(value) for value in graph.output],
        "nodes": sum(operators.values()),
        "operators": operators,
        "subgraphs": sum(1 for _ in _graphs(graph)) - 1,
        "functions": sorted(f"{_text(function.domain)}.{_text(function.name)}" for function in model.functions),
        "weights": tally(map(_tensor, _weights(graph))),
        "constants": tally(map(_tensor, _constants(graph))),
        "external": _external(graph, folder),
    }


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph, and every graph inside the attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _graphs(inner)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, also of inner graphs. They are made as they are asked for: there may be hundreds of thousands."""
    for part in _graphs(graph):
        yield from part.node


def _weights(graph: GraphProto) -> Iterator[TensorProto]:
    for part in _graphs(graph):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield sparse.values
            yield sparse.indices


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    """Tensors inside nodes, as operators' attributes."""
    for node in _nodes(graph):
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _operators(graph: GraphProto) -> dict[str, int]:
    """Operators with the number of their nodes, most frequent first. ONNX's own have no domain in front."""
    names: Counter[str] = Counter()
    for node in _nodes(graph):
        domain, operator = _text(node.domain), _text(node.op_type)
        names[operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"] += 1
    return dict(sorted(names.items(), key=lambda item: (-item[1], item[0])))


def _value(value: ValueInfoProto) -> dict[str, Any]:
    """A graph input or output; its shape is None where even the rank is open, a dimension where it has no name."""
    tensor = value.type.tensor_type
    name = _text(value.name)
    if not value.type.HasField("tensor_type"):
        return {"name": name, "dtype": value.type.WhichOneof("value"), "shape": None}
    dimensions = tensor.shape.dim if tensor.HasField("shape") else None
    return {
        "name": name,
        "dtype": _dtype(tensor.elem_type),
        "shape": None if dimensions is None else [_dimension(dimension) for dimension in dimensions],
    }


def _dimension(dimension: TensorShapeProto.Dimension) -> int | str | None:
    return dimension.dim_value if dimension.HasField("dim_value") else _text(dimension.dim_param) or None


def _tensor(tensor: TensorProto) -> Tensor:
    return _dtype(tensor.data_type), tuple(tensor.dims)


def _dtype(number: int) -> str:
    from onnx import TensorProto

    if number not in TensorProto.DataType.values():
        raise ValueError(f"a tensor has the dtype {number}")
    return dtype_name(TensorProto.DataType.Name(number))


def _text(value: object) -> str:
    # protobuf hands out what is not UTF-8 as bytes.
    if isinstance(value, str):
        return value
    raise ValueError(f"the name {str(value)[:80]} is not UTF-8")


def _external(graph: GraphProto, folder: Path) -> list[dict[str, Any]]:
    """The files in which weights lie, with the bytes that this graph uses of each."""
    used: dict[str, list[Tensor]] = {}
    for tensor in _weights(graph):
        location = _location(tensor)
        if location is not None:
            used.setdefault(location, []).append(_tensor(tensor))
    return [
        {"file": name, "bytes": tally(stored)["bytes"], "found": _is_found(folder, name)}
        for name, stored in sorted(used.items())
    ]


def _location(tensor: TensorProto) -> str | None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return _text(entries.get("location", "")) if tensor.data_location == tensor.EXTERNAL else None


def _is_found(folder: Path, name: str) -> bool | None:
    """Whether the file is there; None for a name that leads out of the folder, which nothing here follows."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return None
    try:
        return (folder / name).is_file()
    except OSError:
        return False
