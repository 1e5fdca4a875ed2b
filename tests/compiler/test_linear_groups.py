"""Which Linears are quantised, which share an input, and why the others stay in float."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.graphs.folds import Fold
from wanc.compiler.quantize.linear_groups import choose

from .passes.builder import parse

ATTENTION = """g (float[1, n, 8] x, {weights}) => (float[1, n, 8] y) {{
    a = RMSNormalization <axis = -1> (x, blocks.0.norm.weight)
    tq = Transpose <perm = [1, 0]> (blocks.0.attn.to_q.weight)  q = MatMul (a, tq)
    tk = Transpose <perm = [1, 0]> (blocks.0.attn.to_k.weight)  k = MatMul (a, tk)
    tv = Transpose <perm = [1, 0]> (blocks.0.attn.to_v.weight)  v = MatMul (a, tv)
    o = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)
    to = Transpose <perm = [1, 0]> (blocks.0.attn.to_out.weight)  p = MatMul (o, to)  h = Add (x, p)
    tf = Transpose <perm = [1, 0]> (proj_out.weight)  y = MatMul (h, tf) }}"""
LINEARS = [*(f"blocks.0.attn.to_{name}" for name in ("q", "k", "v", "out")), "proj_out"]
Q, K, V, OUT, LAST = LINEARS


def attention() -> ir.Model:
    names = ["blocks.0.norm.weight", *(f"{name}.weight" for name in LINEARS)]
    header = ", ".join(f"float[{'8' if 'norm' in name else '8, 8'}] {name}" for name in names)
    return parse(ATTENTION.format(weights=header), *names)


def two_products(body: str) -> ir.Model:
    return parse(
        f"g (float[n, 8] x, float[n, 8] z, float[8] norm, float[8, 8] a.weight, float[8, 8] b.weight)"
        f" => (float[n, 8] y) {{ n = RMSNormalization <axis = -1> (x, norm)"
        f" ta = Transpose (a.weight) tb = Transpose (b.weight) {body} }}",
        "norm",
        "a.weight",
        "b.weight",
    )


def groups_of(model: ir.Model, *patterns: str) -> dict[str, tuple[list[str], set[str], Fold | None]]:
    """By the name of the input: Linears, those that are quantised, and the fold."""
    found = choose(model, "denoiser_high", patterns).groups
    return {
        group.name: ([linear.name for linear in group.linears], set(group.quantized), group.fold) for group in found
    }


def test_linears_of_one_input_are_a_group() -> None:
    assert groups_of(attention()) == {
        "a": ([Q, K, V], {Q, K, V}, Fold(("blocks.0.norm.weight",))),
        "o": ([OUT], {OUT}, Fold((f"{V}.weight",))),
        "h": ([LAST], {LAST}, None),
    }
    choice = choose(attention(), "denoiser_high", [])
    assert choice.kept == {}
    assert [group.channels for group in choice.groups] == [8, 8, 8]


def test_one_that_stays_in_float_is_still_of_the_group() -> None:
    """Its input may be divided all the same."""
    model = attention()
    assert groups_of(model, "*.to_k", "proj_out") == {
        "a": ([Q, K, V], {Q, V}, Fold(("blocks.0.norm.weight",))),
        "o": ([OUT], {OUT}, Fold((f"{V}.weight",))),
        "h": ([LAST], set(), None),
    }
    assert choose(model, "denoiser_high", ["*.to_k", "proj_out"]).kept == {
        K: "keep pattern *.to_k",
        LAST: "keep pattern proj_out",
    }


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("proj_out", [LAST]),
        ("denoiser_high/proj_out", [LAST]),
        ("denoiser_low/proj_out", []),
        ("blocks.0.attn", [Q, K, V, OUT]),
        ("blocks.0", [Q, K, V, OUT]),
        ("denoiser_*/blocks.?.attn.to_[qk]", [Q, K]),
        ("*", LINEARS),
        ("*/*", LINEARS),
        ("to_q", []),
        ("*.to_q", [Q]),
        ("Blocks.0", []),
        ("proj", []),
        ("blocks.0.attn.to_q.weight", []),
    ],
)
def test_patterns_name_modules_in_and_out_of_a_component(pattern: str, kept: list[str]) -> None:
    choice = choose(attention(), "denoiser_high", [pattern])
    assert choice.kept == dict.fromkeys(kept, f"keep pattern {pattern}")
    assert {name for group in choice.groups for name in group.quantized} == set(LINEARS) - set(kept)


def test_the_first_pattern_that_fits_is_the_reason() -> None:
    assert choose(attention(), "denoiser_high", ["blocks.1", "*_out", "proj_out"]).kept == {
        OUT: "keep pattern *_out",
        LAST: "keep pattern *_out",
    }


@pytest.mark.parametrize(
    "body",
    [
        "p = MatMul (n, ta)  q = MatMul (z, ta)  r = MatMul (n, tb)  s = Add (p, q)  y = Add (s, r)",
        "p = MatMul (n, ta)  q = MatMul (n, ta)  r = MatMul (n, tb)  s = Add (p, q)  y = Add (s, r)",
    ],
    ids=["of two inputs", "of one input"],
)
def test_a_weight_that_serves_several_products_stays_as_it_is(body: str) -> None:
    """In float; and its input is not divided, because it could not make up for that."""
    model = two_products(body)
    assert choose(model, "denoiser_high", []).kept == {"a": "its weight serves several products"}
    groups = groups_of(model)
    assert groups["n"][1:] == ({"b"}, None)


@pytest.mark.parametrize(
    "body",
    [
        "p = MatMul (n, ta)  r = MatMul (n, tb)  s = Add (p, r)  y = Add (s, n)",
        "p = MatMul (n, ta)  r = MatMul (n, tb)  s = MatMul (z, n)  y = Add (p, r)",
    ],
    ids=["a residual", "a product with no weight"],
)
def test_an_input_that_others_use_is_not_divided(body: str) -> None:
    assert groups_of(two_products(body))["n"] == (["a", "b"], {"a", "b"}, None)


def test_an_input_that_the_graph_gives_is_not_divided() -> None:
    model = two_products("p = MatMul (n, ta)  r = MatMul (n, tb)  y = Add (p, r)")
    assert groups_of(model)["n"][2] == Fold(("norm",))
    model.graph.outputs.extend(value for node in model.graph for value in node.outputs if value.name == "n")
    assert groups_of(model)["n"][2] is None
