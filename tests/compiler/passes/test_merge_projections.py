"""Projections of one input that meet in one attention become one product."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.compiler.passes import merge_projections
from wanc.compiler.passes.merge_projections import merge, merged_name

from .builder import apply, assert_same, parse, text

SIZES = ({"s": 1, "t": 3}, {"s": 5, "t": 2})
ATTENTION = "y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)"
NAMES = {"q": "b.to_q", "k": "b.to_k", "v": "b.to_v"}


def projection(name: str, x: str, *, bias: bool = True, transposed: bool = True) -> str:
    weight = f"{NAMES[name]}.weight"
    matrix = f"{name}w = Transpose <perm = [1, 0]> ({weight})" if transposed else f"{name}w = Identity ({weight})"
    product = f"{name}p = MatMul ({x}, {name}w)  {name} = Add ({name}p, {NAMES[name]}.bias)"
    return f"{matrix}  {product if bias else f'{name} = MatMul ({x}, {name}w)'}"


def written(body: str, *, x: str = "float[1, s, 6] x", shape: str = "[8, 6]", more: str = "", y: str = "") -> ir.Model:
    weights = [f"{name}.weight" for name in NAMES.values()] + [f"{name}.bias" for name in NAMES.values()]
    weights = [name for name in weights if name in body]
    shapes = {name: shape if name.endswith("weight") else "[8]" for name in weights}
    header = ", ".join([x, *filter(None, [more]), *(f"float{shapes[name]} {name}" for name in weights)])
    model = parse(f"g ({header}) => (float[1, s, 8] y{y}) {{ {body} }}", *weights)
    for node in list(model.graph):  # the text form has no other way to use a weight as it is
        if node.op_type == "Identity":
            weight = node.inputs[0]
            assert weight is not None
            node.outputs[0].replace_all_uses_with(weight)
            model.graph.remove(node)
    return model


def test_query_key_and_value_of_one_input() -> None:
    model = written("  ".join([*(projection(name, "x") for name in "qkv"), ATTENTION]))
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert text(model) == [
        "v0 = Concat(b.to_q.weight, b.to_k.weight, b.to_v.weight, axis=0)",
        "v1 = Transpose(v0, perm=[1, 0])",
        "v2 = MatMul(x, v1)",
        "v3 = Concat(b.to_q.bias, b.to_k.bias, b.to_v.bias, axis=0)",
        "v4 = Add(v2, v3)",
        "v5, v6, v7 = Split(v4, [8,8,8], axis=-1)",
        "y = Attention(v5, v6, v7, kv_num_heads=2, q_num_heads=2)",
    ]
    assert [node.outputs[0].name for node in model.graph if node.op_type == "Concat"] == [
        "b.to_qkv.weight",
        "b.to_qkv.bias",
    ]
    assert_same(before, model, *SIZES)
    assert merge(model).fired == 0


def test_key_and_value_of_another_input() -> None:
    body = "  ".join([projection("q", "x"), projection("k", "c"), projection("v", "c"), ATTENTION])
    model = written(body, more="float[1, t, 6] c")
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert [node.outputs[0].name for node in model.graph if node.op_type == "Concat"] == [
        "b.to_kv.weight",
        "b.to_kv.bias",
    ]
    assert_same(before, model, *SIZES)


def test_projections_without_biases() -> None:
    model = written("  ".join([*(projection(name, "x", bias=False) for name in "qkv"), ATTENTION]))
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert [line.split(" = ")[1].split("(")[0] for line in text(model)] == [
        "Concat",
        "Transpose",
        "MatMul",
        "Split",
        "Attention",
    ]
    assert_same(before, model, *SIZES)


def test_weights_that_lie_transposed() -> None:
    body = "  ".join([*(projection(name, "x", transposed=False) for name in "qkv"), ATTENTION])
    model = written(body, shape="[6, 8]")
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert text(model)[0] == "v0 = Concat(b.to_q.weight, b.to_k.weight, b.to_v.weight, axis=1)"
    assert model.graph[0].outputs[0].name == "b.to_qkv.weight"
    assert_same(before, model, *SIZES)


def test_some_weights_transposed_and_some_not() -> None:
    body = [projection("q", "x"), projection("k", "x", transposed=False), projection("v", "x"), ATTENTION]
    model = written("  ".join(body), x="float[1, s, 8] x", shape="[8, 8]")
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert_same(before, model, *SIZES)


def test_norms_and_rotations_may_stand_between() -> None:
    between = """n = RMSNormalization (q, b.to_q.bias)
        r = RotaryEmbedding <num_heads = 2, interleaved = 1> (n, cos, sin)
        y = Attention <q_num_heads = 2, kv_num_heads = 2> (r, k, v)"""
    body = "  ".join([*(projection(name, "x", bias=False) for name in "qkv"), between])
    model = written(body, more="float[1, s, 2] cos, float[1, s, 2] sin")
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert [line.split(" = ")[1].split("(")[0] for line in text(model)][-3:] == [
        "RMSNormalization",
        "RotaryEmbedding",
        "Attention",
    ]
    assert_same(before, model, *SIZES)


def test_widths_may_differ() -> None:
    model = parse(
        """g (float[1, s, 6] x, float[8, 6] b.q, float[8, 6] b.k, float[4, 6] b.v) => (float[1, s, 4] y) {
            qw = Transpose <perm = [1, 0]> (b.q)  q = MatMul (x, qw)
            kw = Transpose <perm = [1, 0]> (b.k)  k = MatMul (x, kw)
            vw = Transpose <perm = [1, 0]> (b.v)  v = MatMul (x, vw)
            y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v) }""",
        "b.q",
        "b.k",
        "b.v",
    )
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert "Split(v2, [8,8,4], axis=-1)" in "".join(text(model))
    assert_same(before, model, *SIZES)


def test_a_projection_that_is_used_elsewhere_or_is_an_output_keeps_its_name() -> None:
    model = written(
        "  ".join([*(projection(name, "x", bias=False) for name in "qkv"), ATTENTION, "z = Tanh (k)"]),
        y=", float[1, s, 8] q, float[1, s, 8] z",
    )
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert [value.name for value in model.graph.outputs] == ["y", "q", "z"]
    assert_same(before, model, *SIZES)


def test_a_merged_name_that_is_taken_gets_a_number() -> None:
    model = written("  ".join([*(projection(name, "x", bias=False) for name in "qkv"), ATTENTION]))
    model.graph.inputs[0].name = "b.to_qkv.weight"
    before = model.clone()
    assert apply(model, merge_projections.PASS.apply).fired == 1
    assert model.graph[0].outputs[0].name == "b.to_qkv.weight.2"
    assert_same(before, model, *SIZES)


# What has to be left alone


def reasons(model: ir.Model) -> list[str]:
    before = text(model)
    outcome = merge(model)
    assert (outcome.fired, text(model)) == (0, before)
    return [refusal.reason for refusal in outcome.refusals]


def test_only_some_biases() -> None:
    body = [projection("q", "x"), projection("k", "x", bias=False), projection("v", "x"), ATTENTION]
    assert reasons(written("  ".join(body))) == ["only some of the projections have a bias"]


def test_an_input_that_is_no_projection() -> None:
    model = parse(f"g (float[1, s, 8] q, float[1, s, 8] k, float[1, s, 8] v) => (float[1, s, 8] y){{ {ATTENTION} }}")
    assert reasons(model) == ["an input does not come from a Linear"] * 3


def test_matrices_that_are_no_weights() -> None:
    body = "q = MatMul (x, m)  k = MatMul (x, n)  v = MatMul (x, n)"
    model = parse(f"g (float[1, s, 6] x, float[6, 8] m, float[6, 8] n) => (float[1, s, 8] y) {{ {body}  {ATTENTION} }}")
    assert reasons(model) == ["the weight is not a matrix of the checkpoint"] * 3


def test_weights_of_three_dimensions() -> None:
    body = "q = MatMul (x, m)  k = MatMul (x, m)  v = MatMul (x, n)"
    model = parse(
        f"g (float[1, s, 6] x, float[1, 6, 8] m, float[1, 6, 8] n) => (float[1, s, 8] y) {{ {body}  {ATTENTION} }}",
        "m",
        "n",
    )
    assert reasons(model) == ["the weight is not a matrix of the checkpoint"] * 3


def test_what_is_added_for_each_token() -> None:
    body = projection("q", "x").replace("b.to_q.bias", "r") + projection("k", "x").replace("b.to_k.bias", "r")
    model = written(f"{body}  {projection('v', 'x').replace('b.to_v.bias', 'r')}  {ATTENTION}", more="float[s, 8] r")
    assert reasons(model) == ["what is added is not a bias of the checkpoint"] * 3


def test_a_product_that_is_used_without_its_bias() -> None:
    body = "  ".join(projection(name, "x") for name in "qkv")
    model = written(
        f"{body}  a = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)  b = Add (a, qp)"
        "  c = Add (b, kp)  y = Add (c, vp)"
    )
    assert reasons(model) == ["the product is used without its bias as well"] * 3


def test_one_projection_for_two_inputs_is_one() -> None:
    body = (
        f"{projection('q', 'c')}  {projection('k', 'x')}  y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, k)"
    )
    assert reasons(written(body, more="float[1, s, 6] c")) == []


def test_projections_of_different_inputs() -> None:
    body = f"{projection('q', 'x')}  {projection('k', 'c')}  {projection('v', 'd')}  {ATTENTION}"
    assert reasons(written(body, more="float[1, t, 6] c, float[1, t, 6] d")) == []


def test_another_domains_attention() -> None:
    body = "  ".join([*(projection(name, "x") for name in "qkv"), "y = custom.Attention (q, k, v)"])
    assert reasons(written(body)) == []


# Names


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["a.to_q.weight", "a.to_k.weight", "a.to_v.weight"], "a.to_qkv.weight"),
        (["a.to_k.bias", "a.to_v.bias"], "a.to_kv.bias"),
        (["k", "v"], "kv"),
        (["a.wq", "a.wk", "a.wv"], "a.wqkv"),
        (["l.1.key.weight", "l.1.value.weight"], "l.1.keyvalue.weight"),
        (["same", "same"], "same"),
        (["x", "xx"], "xx"),
    ],
)
def test_a_merged_weight_is_called_after_its_parts(parts: list[str], expected: str) -> None:
    assert merged_name(parts) == expected


LETTERS = st.text("abq.", max_size=6)


@given(start=LETTERS, end=LETTERS, middles=st.lists(LETTERS, min_size=2, max_size=4))
def test_a_merged_name_holds_each_part_in_order(start: str, end: str, middles: list[str]) -> None:
    parts = [f"{start}{middle}{end}" for middle in middles]
    name = merged_name(parts)
    assert name.startswith(start) and name.endswith(end)
    assert len(name) == sum(map(len, parts)) - (len(parts) - 1) * shared(parts)


def shared(parts: list[str]) -> int:
    """How much every part begins with, and how much of the rest every part ends with."""
    start = next(n for n in range(99, -1, -1) if all(len(p) >= n and p[:n] == parts[0][:n] for p in parts))
    rests = [part[start:] for part in parts]
    ends = range(min(map(len, rests)), -1, -1)
    return start + next(n for n in ends if len({rest[len(rest) - n :] for rest in rests}) == 1)
