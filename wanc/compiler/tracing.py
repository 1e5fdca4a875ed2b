"""A torch module → an `onnx_ir` model in standard ONNX, traced on fake tensors, with weights by reference.

No initializer is folded and no weight is read: each one points at (file, offset, length) of the checkpoint in the
dtype that it has there, behind a Cast to the float32 that the graph computes in.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from wanc.errors import CheckpointError
from wanc.models.graph import Dimension, Graph, Input, concrete, split_dimension
from wanc.models.weights import Weight

OPSET = 23
# Wan's rope table has 1,024 entries per axis; no latent frame, row or column count can exceed it.
LARGEST_DIMENSION = 1024
DTYPES = {"float32": torch.float32, "int64": torch.int64}


def trace(graph: Graph, weights: Mapping[str, Weight], where: str) -> ir.Model:
    """Trace one graph. Raises CheckpointError where the weights do not fit the module; `where` names the folder."""
    with _quiet():
        program = _export(graph)
    model = program.model
    _name_interface(model, graph)
    _name_dimensions(model, graph)
    _attach_constants(model, graph)
    _attach_weights(model, weights, where)
    _make_casts_explicit(model)
    model.metadata_props.clear()
    model.producer_name, model.producer_version = "wanc", None
    for node in model.graph.all_nodes():
        # Stack traces of the machine that traced: they would make the result depend on where it was made.
        node.metadata_props.clear()
        node.doc_string = None
    return model


def _export(graph: Graph) -> torch.onnx.ONNXProgram:
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = graph.build()
        arguments = tuple(
            torch.zeros(concrete(entry.shape, graph.example), dtype=DTYPES[entry.dtype]) for entry in graph.inputs
        )
    dynamic = _dynamic_shapes(graph, module)
    exported = torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
    program = torch.onnx.export(exported, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
    assert program is not None
    return program


def _dynamic_shapes(graph: Graph, module: torch.nn.Module) -> dict[str, Any]:
    """torch.export's description: one Dim per symbolic name, multiples of it where the declaration says so."""
    names = {split_dimension(d)[1] for entry in graph.inputs for d in entry.shape if isinstance(d, str)}
    dims = {name: torch.export.Dim(name, min=1, max=LARGEST_DIMENSION) for name in sorted(names)}

    def axes(entry: Input) -> dict[int, Any]:
        symbolic = {axis: split_dimension(d) for axis, d in enumerate(entry.shape) if isinstance(d, str)}
        return {axis: factor * dims[name] if factor > 1 else dims[name] for axis, (factor, name) in symbolic.items()}

    parameters = [name for name in module.forward.__code__.co_varnames[1 : module.forward.__code__.co_argcount]]
    shapes: dict[str, Any] = {name: axes(entry) for name, entry in zip(parameters, graph.inputs, strict=False)}
    if len(graph.inputs) > len(parameters):  # the rest arrive as *args
        rest = module.forward.__code__.co_varnames[module.forward.__code__.co_argcount]
        shapes[rest] = tuple(axes(entry) for entry in graph.inputs[len(parameters) :])
    return shapes


def _name_interface(model: ir.Model, graph: Graph) -> None:
    """Give inputs and outputs their declared names."""
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
                names[symbol.group()] = split_dimension(declared)[1]

    def renamed(shape: ir.Shape) -> ir.Shape:
        text = [d if isinstance(d, int) else re.sub(r"\b[a-z]\d+\b", lambda m: names.get(m[0], m[0]), str(d)) for d in shape]
        return ir.Shape(text)

    for value in _values(model):
        if value.shape is not None:
            value.shape = renamed(value.shape)
    for value, entry in [*zip(model.graph.inputs, graph.inputs, strict=True)]:
        value.shape = _shape(entry.shape)
    for value, entry in zip(model.graph.outputs, graph.outputs, strict=True):
        value.shape = _shape(entry.shape)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph.all_nodes():
        yield from node.outputs


def _shape(dimensions: tuple[Dimension, ...]) -> ir.Shape:
    return ir.Shape(list(dimensions))


def _attach_constants(model: ir.Model, graph: Graph) -> None:
    for name, value in graph.constants.items():
        if name in model.graph.initializers:
            model.graph.initializers[name].const_value = ir.tensor(value, name=name)


def _attach_weights(model: ir.Model, weights: Mapping[str, Weight], where: str) -> None:
    """Point each parameter at its bytes in the checkpoint, with a Cast where it is not stored as float32."""
    for name, initializer in list(model.graph.initializers.items()):
        if not initializer.uses():
            del model.graph.initializers[name]
        elif initializer.const_value is None or _is_fake(initializer):
            if name not in weights:
                raise CheckpointError(f"the weights hold no tensor named {name}", where=where)
            _attach(model, initializer, weights[name], where)


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
    """CastLike → Cast: the dtype is known, and not every engine has a kernel for the former."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == "CastLike":
            source, like = node.inputs
            assert source is not None and like is not None
            constant = ir.convenience.get_const_tensor(like)
            dtype = constant.dtype if constant is not None else like.dtype
            assert dtype is not None
            cast = ir.node("Cast", [source], {"to": dtype}, name=node.name)
            ir.convenience.replace_nodes_and_values(
                model.graph, node, [node], [cast], node.outputs, cast.outputs
            )


def _is_fake(initializer: ir.Value) -> bool:
    raw = getattr(initializer.const_value, "raw", None)
    return isinstance(raw, torch._subclasses.fake_tensor.FakeTensor)  # pyright: ignore[reportPrivateUsage]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on packages that wanc has no use for are not for its users."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
