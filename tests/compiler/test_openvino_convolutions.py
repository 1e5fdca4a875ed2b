"""What OpenVINO would convolve in floats, or lose the sizes of, beside quantised convolutions, is written otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.openvino.added_axes import unsqueeze
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.whole_codes import make_whole
from wanc.compiler.graphs.values import producer, scalar
from wanc.compiler.program.graph_file import save
from wanc.runtime.backends.openvino import OpenVino

Array = np.ndarray[Any, Any]
SCALES = np.array([0.01, 0.002, 0.05, 0.001], np.float32)
CODES = np.random.default_rng(0).integers(-127, 128, (4, 2, 2, 3, 3)).astype(np.int8)


def model(step: float, behind: str = "y = Identity (c)", out: str = "float[1, 4, t, h, w] y") -> ir.Model:
    """A convolution of frames of different origin, joined; `c` is what it gives, float32 [1, 4, 2, h, w]."""
    text = f"""<ir_version: 10, opset_import: ["" : 23]>
    g (float[1, 2, 1, h, w] cache, float[1, 2, 2, h, w] x) => ({out})
    <float step = {{{step}}}, int8 zero = {{0}}> {{
        joined = Concat <axis = 2> (cache, x)
        q = QuantizeLinear (joined, step, zero)
        d = DequantizeLinear (q, step, zero)
        dw = DequantizeLinear <axis = 0> (codes, scales)
        c = Conv <pads = [0, 1, 1, 0, 1, 1], kernel_shape = [2, 3, 3]> (d, dw)
        {behind}
    }}"""
    found = ir.from_proto(onnx.parser.parse_model(text))
    for name, values in {"layer.weight.codes": CODES, "layer.weight.scales": SCALES}.items():
        stored = ir.Value(
            name=name,
            shape=ir.Shape(values.shape),
            type=ir.TensorType(ir.DataType.from_numpy(values.dtype)),
            const_value=ir.tensor(values),
        )
        found.graph.register_initializer(stored)
        (node,) = [node for node in found.graph if node.outputs[0].name == "dw"]
        node.replace_input_with(0 if name.endswith("codes") else 1, stored)
    for node in found.graph:
        if node.op_type == "Conv":
            node.outputs[0].shape = ir.Shape([1, 4, 2, "h", "w"])
    return found


def given(step: float = 0.003) -> dict[str, Array]:
    random = np.random.default_rng(1)
    shapes = {"cache": (1, 2, 1, 6, 5), "x": (1, 2, 2, 6, 5)}
    return {name: random.uniform(-140 * step, 140 * step, shape).astype(np.float32) for name, shape in shapes.items()}


def executed(found: ir.Model, step: float = 0.003) -> Array:
    session = onnxruntime.InferenceSession(ir.to_proto(found).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, given(step))[0])


def steps(found: ir.Model) -> tuple[float | None, Array]:
    """What a code of the input and of each output channel's weight stands for."""
    (node,) = [node for node in found.graph if node.op_type == "Conv"]
    values: list[Array] = []
    for dequantize in (producer(node.inputs[index], "DequantizeLinear") for index in range(2)):
        assert dequantize is not None
        times = producer(dequantize.inputs[1], "Mul")
        tensor = ir.convenience.get_const_tensor(times.inputs[0] if times else dequantize.inputs[1])
        factor = scalar(times.inputs[1]) if times else 1.0
        assert tensor is not None and factor is not None
        values.append(tensor.numpy() * np.float32(factor))
    return float(values[0]), values[1]


@pytest.mark.parametrize("step", [3e-9, 0.002, 0.25, 7.5])
def test_codes_of_the_input_stand_for_themselves_and_the_step_goes_into_the_weight(step: float) -> None:
    before, found = model(step), model(step)
    assert make_whole(found).fired == 1
    of_input, of_weight = steps(found)
    assert of_input == 1
    np.testing.assert_array_equal(of_weight, SCALES * np.float32(step))
    np.testing.assert_allclose(executed(found, step), executed(before, step), rtol=1e-5, atol=1e-5 * step)
    assert make_whole(found).fired == 0


def test_what_something_else_takes_stays_and_is_said() -> None:
    found = model(0.002, "e = Abs (d) m = ReduceMax <keepdims = 0> (e) y = Add (c, m)")
    outcome = make_whole(found)
    assert outcome.fired == 0 and [refusal.reason for refusal in outcome.refusals] == ["something else takes it"]


@pytest.mark.parametrize(
    ("taken", "given_shape", "axis"),
    [
        ([2, 32, "h", "w"], [1, 2, 32, "h", "w"], 0),
        ([2, "h"], [2, 1, "h"], 1),
        ([2, "h"], [2, "h", 1], 2),
        ([1, "h"], [1, 1, "h"], 0),
        ([2, "h"], [1, "h", 2], None),
        ([2, "h"], [2, "h"], None),
        (["h"], [1, "2*h"], None),
        ([2, None], [1, 2, None], None),
    ],
)
def test_only_an_added_axis_becomes_one(taken: list[Any], given_shape: list[Any], axis: int | None) -> None:
    found = model(0.002, "n = Shape (c) r = Abs (c) o = Reshape (r, n) y = Identity (o)")
    (reshape,) = [node for node in found.graph if node.op_type == "Reshape"]
    assert reshape.inputs[0] is not None
    reshape.inputs[0].shape, reshape.outputs[0].shape = ir.Shape(taken), ir.Shape(given_shape)
    assert unsqueeze(found).fired == (axis is not None)
    added = [node for node in found.graph if node.op_type == "Unsqueeze"]
    assert len(added) == (axis is not None)
    if added:
        axes = ir.convenience.get_const_tensor(added[0].inputs[1])
        assert axes is not None and axes.numpy().tolist() == [axis]


def test_graphs_without_quantised_convolutions_are_left_alone() -> None:
    text = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[2, h] x, int64[3] n) => (float[1, 2, h] y) { y = Reshape (x, n) }"""
    assert unsqueeze(ir.from_proto(onnx.parser.parse_model(text))).fired == 0


@pytest.mark.parametrize("step", [1e-4, 0.002, 0.01, 0.5, 8.0])
def test_the_engine_convolves_the_right_integers_whatever_the_step(step: float, tmp_path: Path) -> None:
    """By itself it gives zeros for some steps, and convolves floats for others."""
    compiler, found = OpenVinoCompiler("fp32", ()), model(step)
    expected = executed(found, step)
    for one in compiler.lowering("part", "main"):
        one.apply(found)
    save(found, tmp_path / "main.onnx")
    lowered = LoweredGraph(tmp_path / "main.onnx", {"h": 6, "w": 5, "t": 2})
    (path,) = compiler.compile("part", {"main": lowered}, frozenset()).values()
    backend = OpenVino(path, threads=1)
    (gave,) = backend.run(given(step))
    np.testing.assert_allclose(gave, expected, rtol=1e-4, atol=1e-3 * step)
    products = compiler.report(path, backend).products
    assert products.int8_convolution_share == 1
    assert products.convolution == 2 * CODES.size * 2 * 6 * 5
