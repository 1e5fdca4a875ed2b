"""Which kernels a graph is taken for, and what these read and write."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.planner.count import Numbers, count_component
from wanc.compiler.planner.observe import observe
from wanc.compiler.planner.survey import Survey, SurveyedGraph, SurveyedPart
from wanc.models.graph import Input

from ..passes.builder import parse

BLOCK = """
g (float[n, 8] x, float[n, 8] k, float[8, 32] up.weight, float[32, 8] down.weight, float[32] up.bias, float[8] scale)
  => (float[n, 8] y) {
    normed = RMSNormalization <axis = -1> (x, scale)
    wide = MatMul (normed, up.weight)
    biased = Add (wide, up.bias)
    active = Gelu (biased)
    narrow = MatMul (active, down.weight)
    y = Add (x, narrow)
}
"""
WEIGHTS = ("up.weight", "down.weight", "up.bias", "scale")
INPUTS = {"x": Input("x", ("n", 8), binding="step", per="request")}


def block(text: str = BLOCK, *weights: str, keeps_residual: bool = True) -> SurveyedGraph:
    return observe(parse(text, *(weights or WEIGHTS)), INPUTS, keeps_residual=keeps_residual)


def numbers(linear: str = "bf16") -> Numbers:
    size = {"bf16": 2, "int8": 1, "fp32": 4}[linear]
    return Numbers("bf16", "bf16", lambda _: linear, lambda _: size)  # pyright: ignore[reportArgumentType]


def counted(graph: SurveyedGraph, linear: str = "bf16", n: int = 100):
    survey = Survey((SurveyedPart("blocks.0", graph),), None)
    (part,) = count_component("c", survey, None, {"n": n}, numbers(linear), executions=1).parts
    return part


def test_bias_and_activation_are_computed_with_their_product_and_norms_are_not() -> None:
    kinds = [(kernel.kind, kernel.linear) for kernel in block().kernels]
    assert kinds == [("other", None), ("linear", "up"), ("linear", "down"), ("other", None)]


def test_flops_are_two_for_each_multiplication_of_a_product() -> None:
    assert [kernel.flops for kernel in counted(block()).kernels] == [0, 2 * 100 * 8 * 32, 2 * 100 * 32 * 8, 0]


def test_bytes_are_those_of_what_goes_from_kernel_to_kernel() -> None:
    norm, up, down, add = counted(block()).kernels
    stream, thin, wide = 4 * 800, 2 * 800, 2 * 3200
    assert norm.moved == stream + thin
    assert up.moved == thin + wide  # neither what is before the bias nor before the activation is written
    assert down.moved == wide + thin
    assert add.moved == thin + stream + stream


def test_the_residual_stream_is_wide_only_where_islands_keep_it() -> None:
    part = counted(block(keeps_residual=False))
    assert part.leaves == 2 * 800
    assert counted(block()).leaves == 4 * 800


def test_what_only_integer_products_take_is_written_as_integers() -> None:
    norm, up, down, _ = counted(block(), "int8").kernels
    assert (up.format, down.format) == ("int8", "int8")
    assert norm.moved == 4 * 800 + 800
    assert up.moved == 800 + 3200
    assert up.weights == 8 * 32


def test_weights_are_those_of_products_and_all_else_that_is_stored() -> None:
    assert counted(block()).weights == 2 * (2 * 8 * 32 + 32 + 8)


def test_the_peak_is_what_is_alive_at_once() -> None:
    # While the widest product is computed: the stream, what was normed, and its result.
    assert counted(block()).activation == 4 * 800 + 2 * 800 + 2 * 3200


def test_a_norm_holds_in_full_precision_what_it_sums() -> None:
    text = """
    g (float[n, 8] x, float[8, 8] q.weight, float[8] scale, float[8, 8] o.weight) => (float[n, 8] y) {
        q = MatMul (x, q.weight)
        normed = RMSNormalization <axis = -1> (q, scale)
        y = MatMul (normed, o.weight)
    }
    """
    part = counted(block(text, "q.weight", "scale", "o.weight"))
    assert part.activation == 2 * 800 + 4 * 800 + 2 * 800  # q, q in float32, and the result


@pytest.mark.parametrize("keys", ["x", "k"])
def test_only_attention_over_all_tokens_is_exchanged(keys: str) -> None:
    text = f"""
    g (float[1, n, 8] x, float[1, 16, 8] k, float[8, 8] o.weight) => (float[1, n, 8] y) {{
        a = Attention <q_num_heads = 2, kv_num_heads = 2> (x, {keys}, {keys})
        y = MatMul (a, o.weight)
    }}
    """
    inputs = {**INPUTS, "k": Input("k", (1, 16, 8), binding="request", per="branch")}
    graph = observe(parse(text, "o.weight"), inputs, keeps_residual=True)
    part = counted(graph)
    (attention, _) = part.kernels
    length = 100 if keys == "x" else 16
    assert attention.flops == 2 * 100 * length * (8 + 8)
    assert (part.exchanged > 0) == (keys == "x")
    assert part.kept == (2 * 16 * 8 if keys == "k" else 0)


def test_convolutions_count_what_each_point_of_the_result_takes() -> None:
    text = """
    g (float[1, 3, n, 8] x, float[4, 3, 3, 3] c.weight) => (float[1, 4, n, 8] y) {
        y = Conv <pads = [1, 1, 1, 1]> (x, c.weight)
    }
    """
    (kernel,) = counted(block(text, "c.weight")).kernels
    assert kernel.kind == "convolution"
    assert kernel.flops == 2 * (4 * 100 * 8) * (3 * 3 * 3)


def test_a_size_that_is_no_sum_of_products_is_refused() -> None:
    model = parse(BLOCK, *WEIGHTS)
    value = model.graph.inputs[0]
    value.shape = ir.Shape([ir.SymbolicDim("n - 1"), 8])
    with pytest.raises(ValueError, match="no sum of products"):
        observe(model, INPUTS, keeps_residual=True)
