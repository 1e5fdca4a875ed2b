"""Which products of a graph are Linears, and what they are called."""

from __future__ import annotations

import pytest

from wanc.compiler.graphs.linears import linears

from .passes.builder import parse


def found(body: str, inputs: str = "float[n, 8] x", weights: tuple[str, ...] = ("to_q.weight",)) -> list[tuple]:
    model = parse(f"g ({inputs}) => (float[a, b] y) {{ {body} }}", *weights)
    return [(linear.name, linear.input.name, linear.widths, linear.flops_per_row) for linear in linears(model)]


@pytest.mark.parametrize(
    ("weight", "body"),
    [
        ("float[6, 8]", "t = Transpose <perm = [1, 0]> (to_q.weight) y = MatMul (x, t)"),
        ("float[6, 8]", "t = Transpose (to_q.weight) y = MatMul (x, t)"),
        ("float16[6, 8]", "f = Cast <to = 1> (to_q.weight) t = Transpose <perm = [1, 0]> (f) y = MatMul (x, t)"),
        ("bfloat16[6, 8]", "t = Transpose <perm = [1, 0]> (to_q.weight) f = Cast <to = 1> (t) y = MatMul (x, f)"),
        ("float[8, 6]", "y = MatMul (x, to_q.weight)"),
    ],
    ids=["transposed", "transposed by default", "float16", "bfloat16", "as it is"],
)
def test_a_linear_is_known_by_its_module(weight: str, body: str) -> None:
    """Its widths are those of the product, however the weight is stored."""
    assert found(body, f"float[n, 8] x, {weight} to_q.weight") == [("to_q", "x", (6, 8), 96)]


def test_linears_come_in_the_order_of_the_graph() -> None:
    body = "h = MatMul (x, b.weight) r = Relu (h) y = MatMul (r, a.weight)"
    weights = ("a.weight", "b.weight")
    names = [entry[0] for entry in found(body, "float[n, 8] x, float[8, 5] b.weight, float[5, 3] a.weight", weights)]
    assert names == ["b", "a"]


def test_a_weight_that_is_used_twice_makes_two() -> None:
    body = "h = MatMul (x, w) y = MatMul (h, w)"
    assert [entry[:2] for entry in found(body, "float[n, 8] x, float[8, 8] w", ("w",))] == [("w", "x"), ("w", "h")]


@pytest.mark.parametrize(
    ("body", "inputs", "weights"),
    [
        ("y = MatMul (x, z)", "float[n, 8] x, float[8, 6] z", ()),
        ("y = MatMul (w, x)", "float[8, n] x, float[6, 8] w", ("w",)),
        ("s = Mul (w, w) y = MatMul (x, s)", "float[n, 8] x, float[8, 6] w", ("w",)),
        ("y = MatMul (x, w)", "float[3, n, 8] x, float[3, 8, 6] w", ("w",)),
        ("y = Gemm <alpha = 0.5> (x, w)", "float[n, 8] x, float[8, 6] w", ("w",)),
    ],
    ids=["of two activations", "from the left", "computed", "a batch of weights", "scaled"],
)
def test_other_products_are_no_linears(body: str, inputs: str, weights: tuple[str, ...]) -> None:
    assert found(body, inputs, weights) == []
