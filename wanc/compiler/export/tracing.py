"""A torch module → an `onnx_ir` model in standard ONNX, traced on fake tensors, with weights by reference.

No initializer is folded and no weight is read: each one points at (file, offset, length) of the checkpoint in the
dtype that it has there, behind a Cast to the float32 that the graph computes in.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from wanc.errors import CheckpointError
from wanc.models.graph import Graph, Input, concrete
from wanc.models.weights import Weight
from wanc.quiet import quiet
from wanc.runtime.dimensions import Dtype, split_dimension

OPSET = 23
# Wan's rope table has 1,024 entries per axis; no latent frame, row or column count can exceed it.
LARGEST_DIMENSION = 1024
# Its notes are on packages that wanc has no use for.
EXPORTER = "torch.onnx"
RARELY = (100_000, 20, 20)
"""Thresholds of the garbage collector."""
DTYPES: Mapping[Dtype, torch.dtype] = {name: getattr(torch, name) for name in get_args(Dtype)}


def trace(graph: Graph) -> ir.Model:
    """Trace one graph. Its parameters are initializers with a name and a shape, and no value yet: see `bind`."""
    with quiet(EXPORTER):
        with FakeTensorMode(allow_non_fake_inputs=True):
            module, arguments = graph.build(), example_arguments(graph)
        model = _export(module, arguments, _dynamic_shapes(graph, module, _ranges(graph)))
    return finish(model, graph)


def trace_real(graph: Graph) -> ir.Model:
    """Trace a module that is in memory; its weights are the values of the initializers.

    torch finds out between which limits a size may change. What it returns is unfinished: see `finish`.
    """
    sizes = dict.fromkeys(_symbols(graph), torch.export.Dim.AUTO)
    with quiet(EXPORTER):
        module = graph.build()
        return _export(module, example_arguments(graph), _dynamic_shapes(graph, module, sizes))


def finish(model: ir.Model, graph: Graph) -> ir.Model:
    """Give a traced graph its declared names, in place, and take out what the tracer noted down."""
    _name_interface(model, graph)
    _name_dimensions(model, graph)
    _ask_first_inputs(model)
    _attach_constants(model, graph)
    _make_casts_explicit(model)
    model.producer_name, model.producer_version = "wanc", None
    # Notes of the tracer, stack traces among them: they would make the result depend on where it was made.
    for noted in (model, model.graph, *model.graph.all_nodes(), *_values(model)):
        noted.metadata_props.clear()
        noted.doc_string = None
    return model


def bind(model: ir.Model, weights: Mapping[str, Weight], where: str) -> ir.Model:
    """A copy of a traced graph whose parameters point at a checkpoint's weights.

    Raises CheckpointError where a weight is missing or of another shape; `where` names the checkpoint's folder.
    """
    bound = model.clone()
    for name, initializer in list(bound.graph.initializers.items()):
        if not initializer.uses():
            del bound.graph.initializers[name]
        elif _is_fake(initializer):
            if name not in weights:
                raise CheckpointError(f"the weights hold no tensor named {name}", where=where)
            _attach(bound, initializer, weights[name], where)
    return bound


def _export(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], dynamic: dict[str, Any]) -> ir.Model:
    with _collecting_rarely():
        exported = torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
        program = torch.onnx.export(exported, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    assert program is not None
    return program.model


@contextmanager
def _collecting_rarely() -> Generator[None]:
    """Tracing makes millions of objects, most of which stay: looking for cycles takes a tenth of its time."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def example_arguments(graph: Graph) -> tuple[torch.Tensor, ...]:
    """A tensor for each input, at the sizes of the example: full of its value, or of zeros where it has none."""
    return tuple(
        torch.full(concrete(entry.shape, graph.example), graph.values.get(entry.name, 0), dtype=DTYPES[entry.dtype])
        for entry in graph.inputs
    )


def _symbols(graph: Graph) -> list[str]:
    return sorted({split_dimension(d)[1] for entry in graph.inputs for d in entry.shape if isinstance(d, str)})


def _ranges(graph: Graph) -> dict[str, Any]:
    return {name: torch.export.Dim(name, min=1, max=LARGEST_DIMENSION) for name in _symbols(graph)}


def _dynamic_shapes(graph: Graph, module: torch.nn.Module, dims: Mapping[str, Any]) -> dict[str, Any]:
    """torch.export's description: one of `dims` per symbolic name, multiples of it where the declaration says so."""

    def axes(entry: Input) -> dict[int, Any]:
        symbolic = {axis: split_dimension(d) for axis, d in enumerate(entry.shape) if isinstance(d, str)}
        return {axis: _multiple(factor, dims[name]) for axis, (factor, name) in symbolic.items()}

    shapes: dict[str, Any] = {}
    remaining = list(graph.inputs)
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            shapes[parameter.name] = tuple(axes(entry) for entry in remaining)
        elif remaining:  # the others keep their defaults
            shapes[parameter.name] = axes(remaining.pop(0))
    return shapes


def _multiple(factor: int, dimension: Any) -> Any:
    # torch finds multiples by itself where it finds the limits.
    return dimension if factor == 1 or dimension is torch.export.Dim.AUTO else factor * dimension


def _name_interface(model: ir.Model, graph: Graph) -> None:
    """Give inputs and outputs their declared names, which no value between them may have then."""
    declared = {entry.name for entry in (*graph.inputs, *graph.outputs)}
    names = {value.name for value in _values(model)} | declared
    for value in list(_values(model)):
        if value.name in declared:
            fresh = (f"{value.name}.{count}" for count in itertools.count())
            value.name = next(name for name in fresh if name not in names)
            names.add(value.name)
    for value, entry in zip(model.graph.inputs, graph.inputs, strict=True):
        value.name = entry.name
    taken = {entry.name for entry in graph.inputs}
    for index, (value, entry) in enumerate(zip(list(model.graph.outputs), graph.outputs, strict=True)):
        if value.name in taken:  # an input handed through, or one value twice: an output needs a name of its own
            node = ir.node("Identity", [value])
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            model.graph.append(node)
            model.graph.outputs[index] = value = node.outputs[0]
        value.name = entry.name
        taken.add(entry.name)


def _name_dimensions(model: ir.Model, graph: Graph) -> None:
    """Rename torch's symbols (`s17`) to the declared names, everywhere in the graph."""
    names: dict[str, str] = {}
    for value, entry in zip(model.graph.inputs, graph.inputs, strict=True):
        assert value.shape is not None
        for traced, declared in zip(value.shape, entry.shape, strict=True):
            if isinstance(declared, str) and (symbol := re.search(r"[a-z]\d+", str(traced))):
                # The symbol is the whole size, or already without the factor.
                names[symbol.group()] = declared if symbol.group() == str(traced) else split_dimension(declared)[1]

    def renamed(dimension: int | ir.SymbolicDim) -> int | str:
        if isinstance(dimension, int):
            return dimension
        return re.sub(r"\b[a-z]\d+\b", lambda symbol: names.get(symbol[0], symbol[0]), str(dimension))

    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([renamed(dimension) for dimension in value.shape])
    declared = (*graph.inputs, *graph.outputs)
    for value, entry in zip((*model.graph.inputs, *model.graph.outputs), declared, strict=True):
        value.shape = ir.Shape(entry.shape)


def _ask_first_inputs(model: ir.Model) -> None:
    """A size that several inputs have is read of the first of them, whichever torch has chosen.

    So a denoiser asks its latents for sizes, and nothing else that is known at another time.
    """
    owners: dict[str, tuple[ir.Value, int]] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        for axis, size in enumerate(value.shape):
            owners.setdefault(str(size), (value, axis))
    for node in model.graph:
        value = node.inputs[0] if node.op_type == "Shape" else None
        if value is None or not value.is_graph_input() or value.shape is None:
            continue
        start, end = (node.attributes.get_int(name, default) for name, default in (("start", 0), ("end", 0)))
        if end != start + 1 or isinstance(size := value.shape[start], int):
            continue
        owner, axis = owners[str(size)]
        node.replace_input_with(0, owner)
        node.attributes["start"], node.attributes["end"] = ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + 1)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _attach_constants(model: ir.Model, graph: Graph) -> None:
    for name, value in graph.constants.items():
        if name in model.graph.initializers:
            model.graph.initializers[name].const_value = ir.tensor(value, name=name)


def _attach(model: ir.Model, initializer: ir.Value, weight: Weight, where: str) -> None:
    name = initializer.name
    assert name is not None and initializer.shape is not None
    if tuple(initializer.shape) != weight.shape:
        raise CheckpointError(
            f"{name} has shape {list(weight.shape)}; its configuration asks for {list(initializer.shape.numpy())}",
            where=where,
        )
    dtype = ir.DataType[weight.dtype]
    stored = ir.Value(name=name, shape=initializer.shape, type=ir.TensorType(dtype))
    stored.const_value = ir.ExternalTensor(
        weight.file, weight.offset, weight.length, dtype, shape=ir.Shape(weight.shape), name=name
    )
    if dtype == ir.DataType.FLOAT:
        replacement = stored
    else:
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
        replacement = cast.outputs[0]
        replacement.shape, replacement.type = initializer.shape, ir.TensorType(ir.DataType.FLOAT)
        replacement.name = f"{name}.float32"
        model.graph.insert_before(model.graph[0], cast)
    ir.convenience.replace_all_uses_with(initializer, replacement)
    del model.graph.initializers[name]
    model.graph.register_initializer(stored)


def _make_casts_explicit(model: ir.Model) -> None:
    """CastLike → Cast where the dtype is known: not every engine has a kernel for the former."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == "CastLike":
            source, like = node.inputs
            assert source is not None and like is not None
            constant = ir.convenience.get_const_tensor(like)
            dtype = constant.dtype if constant is not None else like.dtype
            if dtype is not None and node.graph is not None:
                cast = ir.node("Cast", [source], {"to": dtype}, name=node.name)
                ir.convenience.replace_nodes_and_values(node.graph, node, [node], [cast], node.outputs, cast.outputs)


def _is_fake(initializer: ir.Value) -> bool:
    return isinstance(getattr(initializer.const_value, "raw", None), FakeTensor)
