"""GELU and SiLU in every grouping, and functions that are nearly those."""

from __future__ import annotations

import re
from itertools import product

import onnx_ir as ir
import pytest

from wanc.compiler.passes import activations
from wanc.compiler.passes.activations import GROUPINGS, ErfGelu, Silu, TanhGelu

from .builder import apply, assert_same, parse, text

SIZES = ({"s": 1}, {"s": 50})
NUMBERS = """
    half = Constant <value = float {0.5}> ()  one = Constant <value = float {1.0}> ()
    three = Constant <value = float {3.0}> ()  cubic = Constant <value = float {0.044715}> ()
    root = Constant <value = float {0.7978846}> ()  inverse = Constant <value = float {0.70710677}> ()
"""
TANH = """
    cube = Pow (x, three)  small = Mul (cube, cubic)  sum = Add (x, small)  inner = Mul (sum, root)  t = Tanh (inner)
"""
ERF = "inner = Mul (x, inverse)  t = Erf (inner)"
FACTOR = "factor = Add (t, one)"
ENDS = {
    "(x·½)·t": "a = Mul (x, half)  y = Mul (a, factor)",
    "(x·t)·½": "a = Mul (x, factor)  y = Mul (a, half)",
    "x·(½·t)": "a = Mul (half, factor)  y = Mul (x, a)",
}
SILU = "n = Neg (x)  e = Exp (n)  d = Add (e, one)  y = Div (x, d)"
GELU_CONSTANTS = "the constants are not those of the GELU"


def written(body: str, *, more: str = "") -> ir.Model:
    return parse(f"g (float[s, 7] x{more}) => (float[s, 7] y) {{ {NUMBERS} {body} }}")


def swapped(body: str) -> str:
    """With the operands of every sum and product in the other order."""
    return re.sub(r"(Mul|Add) \((\w+), (\w+)\)", r"\1 (\3, \2)", body)


@pytest.mark.parametrize(("grouping", "inner"), [*product(ENDS, ("tanh", "none"))])
@pytest.mark.parametrize("order", ["written", "swapped"])
def test_a_gelu(grouping: str, inner: str, order: str) -> None:
    body = " ".join((TANH if inner == "tanh" else ERF, FACTOR, ENDS[grouping]))
    model = written(swapped(body) if order == "swapped" else body)
    before = model.clone()
    assert apply(model, activations.PASS.apply).fired == 1
    assert text(model) == [f"y = Gelu(x, approximate={inner})"]
    # Where a GELU is near zero it is the difference of near ones: 1e-6 of the largest value is its rounding.
    assert_same(before, model, *SIZES)


def test_every_grouping_has_a_case() -> None:
    assert tuple(ENDS) == GROUPINGS


@pytest.mark.parametrize(
    ("constant", "nearly"),
    [
        ("{0.5}", "{0.505}"),
        ("{1.0}", "{1.01}"),
        ("{0.044715}", "{0.0443}"),
        ("{0.7978846}", "{0.79}"),
        ("{3.0}", "{3.03}"),
    ],
)
@pytest.mark.parametrize("end", [*ENDS.values()], ids=[*ENDS])
def test_constants_that_are_a_hundredth_off(constant: str, nearly: str, end: str) -> None:
    body = f"{NUMBERS} {TANH} {FACTOR} {end}".replace(constant, nearly)
    model = parse(f"g (float[s, 7] x) => (float[s, 7] y) {{ {body} }}")
    before = text(model)
    outcome = activations.PASS.apply(model)
    assert (outcome.fired, text(model)) == (0, before)
    assert GELU_CONSTANTS in {refusal.reason for refusal in outcome.refusals}


@pytest.mark.parametrize(("constant", "nearly"), [("{0.5}", "{0.505}"), ("{1.0}", "{1.01}"), ("{0.70710677}", "{0.7}")])
def test_an_error_function_that_is_a_hundredth_off(constant: str, nearly: str) -> None:
    body = f"{NUMBERS} {ERF} {FACTOR} {ENDS['(x·½)·t']}".replace(constant, nearly)
    model = parse(f"g (float[s, 7] x) => (float[s, 7] y) {{ {body} }}")
    outcome = activations.PASS.apply(model)
    assert outcome.fired == 0
    assert GELU_CONSTANTS in {refusal.reason for refusal in outcome.refusals}


def test_a_constant_that_is_an_input() -> None:
    for kind, inner in ((TanhGelu, TANH), (ErfGelu, ERF)):
        assert kind.__doc__
        body = f"{inner} {FACTOR} {ENDS['x·(½·t)']}".replace("(half,", "(h,")
        outcome = activations.PASS.apply(written(body, more=", float h"))
        assert outcome.fired == 0
        assert {refusal.reason for refusal in outcome.refusals} == {GELU_CONSTANTS}


def test_two_different_tensors_are_no_gelu() -> None:
    body = f"{TANH} {FACTOR} {ENDS['(x·½)·t']}".replace("Mul (x, half)", "Mul (z, half)")
    assert activations.PASS.apply(written(body, more=", float[s, 7] z")).fired == 0


@pytest.mark.parametrize("body", [SILU, SILU.replace("(e, one)", "(one, e)")])
def test_a_silu(body: str) -> None:
    model = written(body)
    before = model.clone()
    assert apply(model, activations.PASS.apply).fired == 1
    assert text(model) == ["v0 = Sigmoid(x)", "y = Mul(x, v0)"]
    assert_same(before, model, *SIZES)


def test_nearly_a_silu() -> None:
    outcome = activations.PASS.apply(written(SILU.replace("(e, one)", "(e, half)")))
    assert outcome.fired == 0
    assert {refusal.reason for refusal in outcome.refusals} == {"the constant is not 1"}
    assert Silu.commutes
    for body in (SILU.replace("Neg (x)", "Neg (z)"), SILU.replace("Div (x, d)", "Div (z, d)")):
        assert activations.PASS.apply(written(body, more=", float[s, 7] z")).fired == 0
