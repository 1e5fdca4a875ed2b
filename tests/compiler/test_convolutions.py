"""Convolutions are Linears of the patches under their window, whatever the window is, and are quantised as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.graphs.convolutions import PatchLinear, convolutions
from wanc.compiler.graphs.linears import linears
from wanc.compiler.graphs.quantized_linears import flops_of_convolutions, flops_of_linears, quantized_linears
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers

Array = np.ndarray[Any, Any]


def graph(shape: tuple[int, ...], weight: tuple[int, ...], attributes: str) -> tuple[ir.Model, Array]:
    """`y`, the convolution of `x` by the weight `layer.weight`."""
    values = np.random.default_rng(0).standard_normal(weight).astype(np.float32)
    sizes, out = ", ".join(map(str, shape)), ", ".join("abcde"[: len(shape)])
    text = f'<ir_version: 10, opset_import: ["" : 23]> g (float[{sizes}] x) => (float[{out}] y) {{'
    text += f" y = Conv <{attributes}> (x, w) }}"
    model = ir.from_proto(onnx.parser.parse_model(text))
    (node,) = model.graph
    tensor = ir.Value(
        name="layer.weight",
        shape=ir.Shape(weight),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(values),
    )
    model.graph.register_initializer(tensor)
    node.replace_input_with(1, tensor)
    return model, values


def executed(model: ir.Model, x: Array) -> Array:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Sizes of an input of one to three axes and of a weight, and attributes with which the window fits."""
    axes = draw(st.integers(1, 3))

    def some(least: int, most: int) -> list[int]:
        return [draw(st.integers(least, most)) for _ in range(axes)]

    kernel, dilations, strides, before, behind = some(1, 3), some(1, 2), some(1, 2), some(0, 4), some(0, 4)
    reach = [step * (length - 1) + 1 for step, length in zip(dilations, kernel, strict=True)]
    least = [max(1, size - sum(pads)) for size, *pads in zip(reach, before, behind, strict=True)]
    sizes = [size + draw(st.integers(0, 3)) for size in least]
    channels, pads = draw(st.integers(1, 3)), before + behind
    attributes = f"pads = {pads}, strides = {strides}, dilations = {dilations}, kernel_shape = {kernel}"
    return (2, channels, *sizes), (2, channels, *kernel), attributes


@settings(max_examples=60, deadline=None)
@given(windows())
def test_a_patch_times_the_weight_is_what_the_convolution_gives(
    window: tuple[tuple[int, ...], tuple[int, ...], str],
) -> None:
    shape, weight, attributes = window
    model, values = graph(shape, weight, attributes)
    (found,) = convolutions(model)
    assert found.name == "layer" and found.widths == (weight[0], int(np.prod(weight[1:])))
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = executed(model, x)
    assert found.places(shape[2:]) == expected.shape[2:]
    rows = values.reshape(found.widths)
    for place in np.ndindex(*expected.shape[2:]):
        for picture in range(len(x)):
            gave = rows @ found.patch(x[picture], place)
            np.testing.assert_allclose(gave, expected[(picture, slice(None), *place)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("attributes", "weight"),
    [("group = 2", (2, 1, 3, 3)), ('auto_pad = "SAME_UPPER"', (2, 2, 3, 3))],
    ids=["channels in groups", "pads that sizes decide"],
)
def test_what_is_no_linear_of_patches_is_left_alone(attributes: str, weight: tuple[int, ...]) -> None:
    model, _ = graph((1, 2, 5, 5), weight, attributes)
    assert convolutions(model) == []


def test_a_weight_that_is_computed_is_none_of_the_checkpoint() -> None:
    text = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[1, 2, 5, 5] x, float[2, 2, 3, 3] w) => (float[1, 2, a, b] y) { y = Conv (x, w) }"""
    assert convolutions(ir.from_proto(onnx.parser.parse_model(text))) == []


def quantised(shape: tuple[int, ...], weight: tuple[int, ...], attributes: str) -> tuple[ir.Model, Array, Array]:
    """The graph with codes in place of the weight, what they stand for, and the step of the input."""
    model, values = graph(shape, weight, attributes)
    model.graph.outputs[0].shape = ir.Shape([shape[0], weight[0], *(f"s{axis}" for axis in range(len(shape) - 2))])
    scales = np.abs(values).reshape(len(values), -1).max(axis=1) / 127
    codes = np.rint(values / scales.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
    decision = StoredDecision(ir.tensor(codes), ir.tensor(scales.astype(np.float32)), None, "int8", 0.03)
    assert insert_quantizers(model, {"layer": decision}) == 1
    return model, codes * scales.reshape(-1, *[1] * (values.ndim - 1)), np.array(0.03, np.float32)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_codes_take_the_place_of_the_weight_and_of_the_input(axes: int) -> None:
    shape, weight = (2, 3, *(5,) * axes), (4, 3, *(3,) * axes)
    model, stands_for, step = quantised(shape, weight, f"pads = {[1] * 2 * axes}")
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    rounded = np.clip(np.rint(x / step), -128, 127) * step
    floats, _ = graph(shape, weight, f"pads = {[1] * 2 * axes}")
    floats.graph.initializers["layer.weight"].const_value = ir.tensor(stands_for.astype(np.float32))
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_allclose(executed(model, x), executed(floats, rounded), rtol=1e-4, atol=1e-4)


def test_a_quantised_convolution_is_known_again_with_its_work() -> None:
    shape, weight = (2, 3, 5, 5), (4, 3, 3, 3)
    floats, _ = graph(shape, weight, "pads = [1, 1, 1, 1]")
    floats.graph.outputs[0].shape = ir.Shape([2, 4, 5, 5])
    model, *_ = quantised(shape, weight, "pads = [1, 1, 1, 1]")
    (found,) = quantized_linears(model)
    assert (found.name, found.numbers, found.is_integer, found.is_convolution) == ("layer", "int8 × int8", True, True)
    flops, sizes = 2 * prod_of(4, 3, 3, 3) * 2 * 25, {"s0": 5, "s1": 5}
    assert found.flops(sizes) == flops == flops_of_convolutions(model, sizes) == flops_of_convolutions(floats, {})
    assert flops_of_linears(model, sizes) == flops_of_linears(floats, {}) == 0
    assert linears(model) == [] and convolutions(model) == []


def prod_of(*sizes: int) -> int:
    return int(np.prod(sizes))


def test_the_convolution_is_a_linear_to_all_that_takes_linears() -> None:
    model, _ = graph((1, 3, 5, 5), (4, 3, 3, 3), "pads = [1, 1, 1, 1]")
    (found,) = convolutions(model)
    assert isinstance(found, PatchLinear)
    assert found.flops_per_row == 2 * 4 * 27 and not found.is_turned and found.output_axis == 0
