"""Quantised Linears of a canonical graph, what they compute, and what an engine has to show for them."""

from __future__ import annotations

import pytest

from wanc.compiler.engines.products import Products
from wanc.compiler.engines.quantization_check import check_products
from wanc.compiler.graphs.quantized_linears import flops_of_linears, quantized_linears
from wanc.errors import EXIT_REFUSED, UserError

from .passes.builder import parse
from .quantised import linear

INTO, OUT, ROWS = 64, 48, 5
FLOPS = 2 * ROWS * INTO * OUT
SIZES = {"n": ROWS}
FLOAT = parse(
    f"g (float[1, n, {INTO}] x, float[{OUT}, {INTO}] a.weight) => (float[1, n, n] y)"
    "{ t = Transpose <perm = [1, 0]> (a.weight) p = MatMul (x, t)"
    "  u = Transpose <perm = [0, 2, 1]> (p) y = MatMul (p, u) }",
    "a.weight",
)


@pytest.mark.parametrize(
    ("scheme", "is_integer", "rounds_input"),
    [
        ("int8", True, True),
        ("int8-dynamic", True, True),
        ("int8-weight", False, False),
        ("int4-weight", False, False),
        ("fp8", False, True),
    ],
)
def test_a_quantised_linear_is_found(scheme: str, is_integer: bool, rounds_input: bool) -> None:
    model = linear(scheme, INTO, OUT)
    (found,) = quantized_linears(model)
    assert (found.name, found.product.op_type, found.input.name) == ("a", "MatMul", "x")
    assert (found.is_integer, found.rounds_input) == (is_integer, rounds_input)
    assert found.flops(SIZES) == flops_of_linears(model, SIZES) == FLOPS


def test_a_linear_in_float_counts_and_is_not_among_them() -> None:
    """And a product of activations is no Linear."""
    assert quantized_linears(FLOAT) == []
    assert flops_of_linears(FLOAT, SIZES) == FLOPS


RIGHT = {
    "int8": Products(FLOPS, FLOPS, 2 * FLOPS),
    "int8-dynamic": Products(FLOPS, FLOPS, FLOPS),
    "int8-weight": Products(0, FLOPS, FLOPS, coded_linear=FLOPS),
    "int4-weight": Products(0, FLOPS, FLOPS, coded_linear=FLOPS),
    "fp8": Products(0, FLOPS, FLOPS),
}
"""What an engine has to show; of fp8 it shows nothing."""


@pytest.mark.parametrize("scheme", RIGHT)
def test_an_engine_that_multiplies_what_was_asked_for(scheme: str) -> None:
    check_products("part/main", linear(scheme, INTO, OUT), SIZES, RIGHT[scheme])


@pytest.mark.parametrize(
    ("scheme", "built", "message"),
    [
        ("int8", Products(FLOPS - 1, FLOPS, FLOPS), "INT8 in 100.00% of what its Linears compute, .* has 100.00%"),
        ("int8", Products(0, FLOPS, FLOPS, coded_linear=FLOPS), "INT8 in 100.00% .* has 0.00%"),
        ("int8-dynamic", Products(FLOPS // 2, FLOPS, FLOPS), "INT8 in 100.00% .* has 50.00%"),
        ("int8-weight", Products(0, FLOPS, FLOPS), "weights that are codes in 100.00% .* has 0.00%"),
        ("int4-weight", Products(0, FLOPS, FLOPS), "weights that are codes in 100.00% .* has 0.00%"),
    ],
)
def test_an_engine_that_multiplies_less(scheme: str, built: Products, message: str) -> None:
    with pytest.raises(UserError, match=f"part/main asks for {message}") as caught:
        check_products("part/main", linear(scheme, INTO, OUT), SIZES, built)
    assert caught.value.exit_code == EXIT_REFUSED
