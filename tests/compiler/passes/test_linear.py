"""One form for every Linear."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.passes import linear
from wanc.compiler.passes.linear import BiasLast, FromGemm

from .builder import apply, assert_same, parse, refused, text

SIZES = ({"s": 1}, {"s": 5})


def gemm(
    attributes: str, *, weight: str = "float[6, 4] w", bias: str = "float[6] b", inputs: str = "x, w, b"
) -> ir.Model:
    names = [part.split()[-1] for part in (weight, bias) if part]
    header = ", ".join(filter(None, ("float[s, 4] x", weight, bias)))
    return parse(f"g ({header}) => (float[s, 6] y) {{ y = Gemm {attributes} ({inputs}) }}", *names)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            gemm("<transB = 1>"),
            ["v0 = Transpose(w, perm=[1, 0])", "v1 = MatMul(x, v0)", "y = Add(v1, b)"],
        ),
        (gemm("", weight="float[4, 6] w"), ["v0 = MatMul(x, w)", "y = Add(v0, b)"]),
        (gemm("<alpha = 1.0, beta = 1.0>", weight="float[4, 6] w"), ["v0 = MatMul(x, w)", "y = Add(v0, b)"]),
        (gemm("", weight="float[4, 6] w", bias="", inputs="x, w"), ["y = MatMul(x, w)"]),
        (gemm("", weight="float[4, 6] w", bias="float[1] b"), ["v0 = MatMul(x, w)", "y = Add(v0, b)"]),
    ],
)
def test_gemm(model: ir.Model, expected: list[str]) -> None:
    before = model.clone()
    assert apply(model, linear.PASS.apply).fired == 1
    assert text(model) == expected
    assert_same(before, model, *SIZES)


@pytest.mark.parametrize("attributes", ["<alpha = 0.99>", "<beta = 2.0>", "<transA = 1>"])
def test_a_gemm_that_does_more_stays(attributes: str) -> None:
    model = parse(
        f"g (float[4, 4] x, float[4, 6] w, float[6] b) => (float[4, 6] y) {{ y = Gemm {attributes} (x, w, b) }}",
        "w",
        "b",
    )
    assert refused(model, FromGemm) == ["it transposes or scales what it multiplies"]


def test_a_gemm_of_unknown_rank_stays() -> None:
    model = gemm("", weight="float[4, 6] w")
    model.graph.initializers["w"].shape = None
    assert refused(model, FromGemm) == ["the rank of the weight is unknown"]


def test_a_bias_in_front_goes_behind() -> None:
    model = parse(
        "g (float[s, 4] x, float[4, 6] w, float[6] b) => (float[s, 6] y) { p = MatMul (x, w)  y = Add (b, p) }",
        "w",
        "b",
    )
    before = model.clone()
    assert apply(model, linear.PASS.apply).fired == 1
    assert text(model) == ["v0 = MatMul(x, w)", "y = Add(v0, b)"]
    assert_same(before, model, *SIZES)
    assert apply(model, linear.PASS.apply).fired == 0


def test_a_residual_in_front_stays() -> None:
    model = parse(
        "g (float[s, 4] x, float[4, 6] w, float[s, 6] r) => (float[s, 6] y) { p = MatMul (x, w)  y = Add (r, p) }", "w"
    )
    assert refused(model, BiasLast) == []


def test_two_products_of_one_row_are_not_turned_round_and_round() -> None:
    model = parse(
        "g (float[4] x, float[4, 6] w, float[4, 6] u) => (float[6] y)"
        "{ p = MatMul (x, w)  q = MatMul (x, u)  y = Add (p, q) }",
        "w",
        "u",
    )
    assert refused(model, BiasLast) == []
