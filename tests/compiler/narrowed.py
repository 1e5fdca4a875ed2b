"""Graphs as an engine of 16 or 8 bits has them: lowered by the few lines that the tests of their execution need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from wanc.calibration.schemes import LARGEST, SCHEMES
from wanc.compiler.graphs.linears import linears
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.host.lowered import Array, HostGraph
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import WeightFile, float_values

PRODUCTS = ("Attention", "Conv", "MatMul")
ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def stored(model: ir.Model, weights: Mapping[str, Path], folder: Path, name: str = "graph") -> ir.Model:
    """The graph with its weights written into a file of `folder`, in the types that it casts them to."""
    model = model.clone()
    with WeightFile(folder / f"{name}.bin", weights, FiniteCheck(name)) as file:
        file.absorb(model)
    return model


def quantised(
    model: ir.Model, weights: Mapping[str, Path], folder: Path, feeds: Mapping[str, Array], scheme: str = "int8"
) -> ir.Model:
    """Every Linear but the last in 8 bits; steps are what these inputs need."""
    model, format = model.clone(), SCHEMES[scheme]
    assert format.inputs is not None
    found = linears(model)[:-1]
    taps = model.clone()
    inside = {str(value.name): value for node in taps.graph for value in node.outputs}
    names = dict.fromkeys(str(linear.input.name) for linear in found)
    taps.graph.outputs.extend(inside[name] for name in names if name in inside)
    seen = dict(feeds) | HostGraph(stored(taps, weights, folder, "taps"), folder).run(feeds)
    decisions: dict[str, StoredDecision] = {}
    for linear in found:
        assert linear.weight.const_value is not None
        stored_as = float_values(linear.weight.const_value, weights)
        codes = format.codes(stored_as if linear.output_axis == 0 else stored_as.T)
        values = codes.values if linear.output_axis == 0 else codes.values.T
        step = float(np.abs(seen[str(linear.input.name)]).max()) / LARGEST[format.inputs]
        scales = ir.tensor(codes.scales[:, 0])
        decisions[linear.name] = StoredDecision(ir.tensor(values), scales, None, format.inputs, step)
    assert insert_quantizers(model, decisions) == len(decisions)
    return model


def narrowed(model: ir.Model, dtype: ir.DataType = ir.DataType.BFLOAT16) -> ir.Model:
    """The graph with products, attentions and convolutions in 16 bits, and all else in float32."""
    model = model.clone()
    for node in list(model.graph):
        if node.op_type in ROUNDING:
            _narrow_scale(model.graph, node, dtype)
        if node.op_type == "QuantizeLinear":
            node.replace_input_with(0, _cast(model.graph, node.inputs[0], dtype, node))
        elif node.op_type == "DequantizeLinear" or (node.op_type == "Transpose" and node.inputs[0].dtype == dtype):
            node.outputs[0].type = ir.TensorType(dtype)
        elif node.op_type in PRODUCTS:
            for index, value in enumerate(node.inputs):
                node.replace_input_with(index, _cast(model.graph, value, dtype, node))
            _cast_back(model.graph, node, dtype)
    return model


def _narrow_scale(graph: ir.Graph, node: ir.Node, dtype: ir.DataType) -> None:
    scale = node.inputs[1]
    if scale.dtype != dtype:
        tensor = ir.tensor(scale.const_value.numpy().astype(dtype.numpy()), dtype=dtype, name=scale.name)
        scale.const_value, scale.type = tensor, ir.TensorType(dtype)


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, user: ir.Node) -> ir.Value:
    if value.dtype == dtype:
        return value
    cast = ir.node("Cast", [value], {"to": dtype.value})
    cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(dtype)
    graph.insert_before(user, cast)
    return cast.outputs[0]


def _cast_back(graph: ir.Graph, node: ir.Node, dtype: ir.DataType) -> None:
    (result,) = node.outputs
    wide = ir.node("Cast", [result], {"to": ir.DataType.FLOAT.value})
    ir.convenience.replace_all_uses_with(result, wide.outputs[0], replace_graph_outputs=True)
    wide.replace_input_with(0, result)
    wide.outputs[0].name, result.name = result.name, f"{result.name}.narrow"
    wide.outputs[0].shape, wide.outputs[0].type = result.shape, result.type
    result.type = ir.TensorType(dtype)
    graph.insert_after(node, wide)
