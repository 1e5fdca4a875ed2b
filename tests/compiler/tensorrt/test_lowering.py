"""The passes of the lowering for TensorRT, on models as text: what comes out of them, and what it computes."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from wanc.calibration.schemes import rounded_inputs
from wanc.compiler.check.steps import Workshop
from wanc.compiler.engines.tensorrt.attention import write_out
from wanc.compiler.engines.tensorrt.names import name_nodes
from wanc.compiler.engines.tensorrt.norms import write_out as write_norms_out
from wanc.compiler.engines.tensorrt.passes import passes_of
from wanc.compiler.engines.tensorrt.precision import Precision, give_types
from wanc.compiler.graphs.attentions import AttentionScales, round_attentions
from wanc.compiler.host.lowered import HostGraph
from wanc.compiler.passes.apply import apply_passes

from ..passes.builder import parse

BF16 = Precision("bf16")
ATTENTION = (
    "g (float[1, n, 16] q, float[1, n, 16] k, float[1, n, 16] v{more}) => (float[1, n, 16] y)"
    "{{ y = Attention <q_num_heads = {heads}, kv_num_heads = {heads}{attributes}> (q, k, v{mask}) }}"
)
BLOCK = (
    "g (float[1, n, 8] x, float[1, 1, 8] gate, float[8] scale, float[8] shift, float[8, 8] a.weight, float[8] a.bias)"
    " => (float[1, n, 8] y) {"
    " h = LayerNormalization (x, scale, shift) t = Transpose <perm = [1, 0]> (a.weight) p = MatMul (h, t)"
    " l = Add (p, a.bias) m = Mul (l, gate) y = Add (x, m) }"
)


NORM = (
    "g ({dtype}[1, n, 16] x, float[16] scale) => (float[1, n, 16] y)"
    "{{ w = Cast <to = 1> (x) y = RMSNormalization <axis = {axis}, epsilon = {epsilon}> (w, scale) }}"
)


def types(model: ir.Model) -> list[str]:
    """Each node with the type that it gives, casts and constants aside."""
    shown = (node for node in model.graph if node.op_type not in ("Cast", "Constant"))
    return [f"{node.op_type}: {node.outputs[0].dtype.name.lower()}" for node in shown if node.outputs[0].dtype]


def run(model: ir.Model, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return np.asarray(session.run(None, inputs)[0])


def test_a_product_is_called_after_its_linear() -> None:
    model = parse(BLOCK, "a.weight", "a.bias")
    assert name_nodes(model).fired == 1
    assert [node.name for node in model.graph if node.op_type == "MatMul"] == ["a"]
    assert name_nodes(model).fired == 0


def test_an_attention_is_called_after_the_module_of_its_queries() -> None:
    model = parse(
        "g (float[1, n, 16] x, float[1, n, 4] cos, float[16, 16] b.attn.to_q.weight, float[16] b.attn.norm_q.weight)"
        " => (float[1, n, 16] y) { t = Transpose <perm = [1, 0]> (b.attn.to_q.weight) p = MatMul (x, t)"
        " q = RMSNormalization (p, b.attn.norm_q.weight)"
        " y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, x, x) }",
        "b.attn.to_q.weight",
        "b.attn.norm_q.weight",
    )
    name_nodes(model)
    assert [node.name for node in model.graph if node.op_type == "Attention"] == ["b.attn"]


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("mask", ["", ", m"])
@pytest.mark.parametrize("attributes", ["", ", scale = 0.3"])
def test_attention_written_out_is_the_same(heads: int, mask: str, attributes: str) -> None:
    more = f", float[1, {heads}, n, n] m" if mask else ""
    text = ATTENTION.format(heads=heads, more=more, mask=mask, attributes=attributes)
    model, written = parse(text), parse(text)
    assert write_out(written).fired == 1
    assert "Attention" not in [node.op_type for node in written.graph]
    random = np.random.default_rng(heads)
    inputs = {name: random.normal(size=(1, 5, 16)).astype(np.float32) for name in ("q", "k", "v")}
    if mask:
        inputs["m"] = random.normal(size=(1, heads, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(run(written, inputs), run(model, inputs), atol=2e-6)


@pytest.mark.parametrize("attributes", ["", ", scale = 2.0"])
def test_attention_in_fp8_rounds_what_the_products_take_and_the_probabilities(attributes: str) -> None:
    """Queries are scaled before they are rounded: to codes of steps that are as much smaller."""
    heads, width, steps = 4, 4, AttentionScales(0.006, 0.007, 0.004)
    model = parse(
        "g (float[1, n, 16] x, float[1, n, 16] k, float[1, n, 16] v, float[16] a.norm_q.weight)"
        f" => (float[1, n, 16] y) {{ q = RMSNormalization (x, a.norm_q.weight)"
        f" y = Attention <q_num_heads = {heads}, kv_num_heads = {heads}{attributes}> (q, k, v) }}",
        "a.norm_q.weight",
    )
    model.graph.initializers["a.norm_q.weight"].const_value = ir.tensor(np.ones(16, np.float32))
    assert round_attentions(model, {"a": steps}) == 1
    assert write_out(model).fired == 1
    random = np.random.default_rng(1)
    given = {name: random.normal(size=(1, 5, 16)).astype(np.float32) for name in ("x", "k", "v")}
    x, k, v = given.values()
    q = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    rounded = [rounded_inputs(array, "fp8", step) for array, step in zip((q, k, v), steps, strict=True)]
    q, k, v = (array.reshape(5, heads, width).transpose(1, 0, 2) for array in rounded)
    scores = np.exp(q @ k.transpose(0, 2, 1) * (2 if attributes else 1 / 2))
    probabilities = rounded_inputs(scores / scores.sum(axis=-1, keepdims=True), "fp8", 1 / 448)
    expected = (probabilities @ v).transpose(1, 0, 2).reshape(1, 5, 16)
    np.testing.assert_allclose(run(model, given), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("codes", "zero", "sides"), [(onnx.TensorProto.UINT8, 128, "qkv"), (onnx.TensorProto.FLOAT8E4M3FN, 0, "q")]
)
def test_what_is_rounded_otherwise_than_all_to_fp8_stays_so(codes: int, zero: int, sides: str) -> None:
    """As in a model that came with its own rounding: of queries alone, or to whole numbers."""
    rounding = " ".join(
        f"{side}c = QuantizeLinear ({side}, s, z) {side}r = DequantizeLinear ({side}c, s, z)" for side in sides
    )
    q, k, v = (f"{side}r" if side in sides else side for side in "qkv")
    text = (
        "g (float[1, n, 16] q, float[1, n, 16] k, float[1, n, 16] v) => (float[1, n, 16] y)"
        f"{{ s = Constant <value_float = 0.02> () n = Constant <value_int = {zero}> () z = Cast <to = {codes}> (n)"
        f" {rounding} y = Attention <q_num_heads = 4, kv_num_heads = 4> ({q}, {k}, {v}) }}"
    )
    model, written = parse(text), parse(text)
    assert write_out(written).fired == 1
    random = np.random.default_rng(2)
    inputs = {name: random.normal(size=(1, 5, 16)).astype(np.float32) for name in ("q", "k", "v")}
    np.testing.assert_allclose(run(written, inputs), run(model, inputs), atol=2e-6)


def test_attention_that_does_more_is_left_alone() -> None:
    model = parse(ATTENTION.format(heads=4, more="", mask="", attributes=", is_causal = 1"))
    outcome = write_out(model)
    assert (outcome.fired, [refusal.value for refusal in outcome.refusals]) == (0, ["y"])


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize(("axis", "epsilon"), [(-1, 1e-6), (2, 0.5)])
def test_a_norm_of_16_bits_is_written_out_and_squares_what_no_other_node_takes(
    dtype: type, axis: int, epsilon: float
) -> None:
    text = NORM.format(dtype=np.dtype(dtype).name, axis=axis, epsilon=epsilon)
    model, written = parse(text), parse(text)
    assert write_norms_out(written).fired == 1
    assert write_norms_out(written).fired == 0
    squared = next(node for node in written.graph if node.op_type == "Mul" and node.inputs[0] is node.inputs[1])
    assert {use.node for use in squared.inputs[0].uses()} == {squared}
    assert sorted(use.node.op_type for use in written.graph.inputs[0].uses()) == ["Cast", "Neg"]
    random = np.random.default_rng(0)
    x, scale = random.normal(size=(1, 5, 16)).astype(dtype), random.normal(size=16).astype(np.float32)
    found, expected = (HostGraph(graph, Path()).run({"x": x, "scale": scale})["y"] for graph in (written, model))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "axis"), [("float", -1), ("bfloat16", 1)])
def test_a_norm_of_float32_or_of_more_than_rows_is_left_alone(dtype: str, axis: int) -> None:
    model = parse(NORM.format(dtype=dtype, axis=axis, epsilon=1e-6))
    outcome = write_norms_out(model)
    assert (outcome.fired, [refusal.value for refusal in outcome.refusals]) == (0, ["y"])


def test_norms_of_queries_and_keys_are_written_out_and_those_of_the_residual_stream_are_not() -> None:
    model = parse(
        "g (float[1, n, 8] x, float[8, 8] a.to_q.weight, float[8] a.norm.weight, float[8] b.norm.weight)"
        " => (float[1, n, 8] y) { r = RMSNormalization (x, b.norm.weight) p = MatMul (r, a.to_q.weight)"
        " y = RMSNormalization (p, a.norm.weight) }",
        "a.to_q.weight",
        "a.norm.weight",
        "b.norm.weight",
    )
    apply_passes(model, passes_of(BF16), where="g")
    assert [text for text in types(model) if "RMS" in text] == ["RMSNormalization: float"]
    assert "Neg: bfloat16" in types(model)
    parts = ("Mul", "Add", "Sqrt", "Reciprocal", "ReduceMean")
    computed = {text for text in types(model) if text.partition(":")[0] in parts}
    assert computed == {f"{part}: float" for part in parts}, "an island stays one when it is written out"


def test_products_are_in_16_bits_and_islands_in_32() -> None:
    model = parse(BLOCK, "a.weight", "a.bias")
    assert give_types(model, BF16).fired
    assert types(model) == [
        "LayerNormalization: float",
        "Transpose: float",
        "Transpose: bfloat16",
        "MatMul: bfloat16",
        "Add: bfloat16",
        "Mul: float",
        "Add: float",
    ]
    assert give_types(model, BF16).fired == 0, "it comes to rest"


def test_what_no_island_names_is_in_16_bits_and_the_graph_gives_what_it_gave() -> None:
    model = parse(BLOCK, "a.weight", "a.bias")
    give_types(model, Precision("fp16", ()))
    assert [text for text in types(model) if "16" not in text] == ["Transpose: float"]
    (result,) = model.graph.outputs
    assert (result.name, result.dtype) == ("y", ir.DataType.FLOAT)


def test_what_is_cut_out_for_an_output_is_cut_out_in_its_type() -> None:
    """Of a value that is in 16 bits everywhere else."""
    model = parse(
        "g (float[1, 4, n] x, float[4, 4] a.weight) => (float[1, 4, n] y, float[1, 2, n] cache) {"
        " p = MatMul (a.weight, x) zero = Constant <value_ints = [2]> () end = Constant <value_ints = [4]> ()"
        " axis = Constant <value_ints = [1]> () cache = Slice (p, zero, end, axis) y = MatMul (a.weight, p) }",
        "a.weight",
    )
    assert give_types(model, BF16).fired
    assert types(model) == ["MatMul: bfloat16", "Slice: float", "MatMul: bfloat16"]
    assert [(str(value.name), value.dtype) for value in model.graph.outputs] == [
        ("y", ir.DataType.FLOAT),
        ("cache", ir.DataType.FLOAT),
    ]
    assert give_types(model, BF16).fired == 0, "it comes to rest"


def test_a_weight_is_cast_once_from_what_is_stored() -> None:
    model = parse(
        "g (float[n, 4] x, float16[4, 4] a.weight) => (float[n, 4] y)"
        "{ w = Cast <to = 1> (a.weight) t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        "a.weight",
    )
    apply_passes(model, passes_of(BF16), where="g")
    weight = model.graph.initializers["a.weight"]
    (use,) = weight.uses()
    assert use.node.op_type == "Cast" and use.node.outputs[0].dtype == ir.DataType.BFLOAT16


def test_indices_stay_in_float32() -> None:
    """bfloat16 has no 257."""
    model = parse(
        "g (float[n, 4] x) => (float[n, 4] y) {"
        " zero = Constant <value_float = 0.0> () one = Constant <value_float = 1.0> ()"
        " shape = Shape <start = 0, end = 1> (x) axes = Constant <value_ints = [0]> () s = Squeeze (shape, axes)"
        " size = Cast <to = 1> (s) range = Range (zero, size, one) half = Mul (range, one) i = Cast <to = 7> (half)"
        " y = Gather (x, i) }"
    )
    give_types(model, BF16)
    assert {text for text in types(model) if "bfloat16" in text} == set()


def test_both_sides_of_a_rounding_take_the_same_number() -> None:
    model = parse(
        "g (float[n, 4] x, float[4, 4] a.weight) => (float[n, 4] y)"
        "{ scale = Constant <value_float = 0.123> () zero = Constant <value = int8 {0}> ()"
        " n = LpNormalization (x) c = QuantizeLinear (n, scale, zero) d = DequantizeLinear (c, scale, zero)"
        " y = MatMul (d, a.weight) }",
        "a.weight",
    )
    give_types(model, BF16)
    scales = {
        node.op_type: node.inputs[1].const_value
        for node in model.graph
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.inputs[1] is not None
    }
    assert {op_type: tensor.dtype.name for op_type, tensor in scales.items()} == {
        "QuantizeLinear": "FLOAT",
        "DequantizeLinear": "BFLOAT16",
    }
    numbers = {float(tensor.numpy()) for tensor in scales.values()}
    assert len(numbers) == 1 and numbers != {0.123}


def test_what_is_lowered_rounds_as_16_bits_do(tmp_path: Path) -> None:
    """As the check executes it."""
    model = parse("g (float[n, 16] x, float[n, 16] z) => (float[n, 16] y) { y = Add (x, z) }")
    give_types(model, Precision("bf16", ()))
    session = Workshop(tmp_path / "workshop", {}, elsewhere=True).session(model)
    random = np.random.default_rng(0)
    x, z = (random.normal(size=(3, 16)).astype(np.float32) for _ in range(2))

    expected = (
        x.astype(ml_dtypes.bfloat16).astype(np.float32) + z.astype(ml_dtypes.bfloat16).astype(np.float32)
    ).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(session.run({"x": x, "z": z})["y"], expected.astype(np.float32))
