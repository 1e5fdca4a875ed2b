"""AdaLN's modulation becomes the scale and the bias of its norm, where it is one row."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.passes import modulate
from wanc.compiler.passes.modulate import Modulate

from .builder import apply, assert_same, parse, refused, text

SIZES = ({"s": 1}, {"s": 5})
NORM = "normalized = LayerNormalization <epsilon = 0.001> (x, ones)"
BODY = f"{NORM}  scaled = Mul (normalized, scale)  y = Add (scaled, shift)"
ONES = "ones = Constant <value = float[8] {1, 1, 1, 1, 1, 1, 1, 1}> ()"
ROWS = "float[1, 1, 8] scale, float[1, 1, 8] shift"
MODULATED = [
    "v0 = Reshape(scale, [-1])",
    "v1 = Reshape(shift, [-1])",
    "y = LayerNormalization(x, v0, v1, axis=-1, epsilon=0.001, stash_type=1)",
]


def written(
    body: str = BODY, *, rows: str = ROWS, ones: str = ONES, x: str = "float[2, s, 8]", y: str = ""
) -> ir.Model:
    return parse(f"g ({x} x, {rows}) => ({y or x} y) {{ {ones} {body} }}")


@pytest.mark.parametrize(
    ("body", "rows", "ones"),
    [
        (BODY, ROWS, ONES),
        (
            BODY.replace("(normalized, scale)", "(scale, normalized)").replace("(scaled, shift)", "(shift, scaled)"),
            ROWS,
            ONES,
        ),
        (BODY, "float[8] scale, float[1, 8] shift", ONES),
        (
            BODY,
            ROWS,
            "one = Constant <value = float[1] {1}> ()  width = Constant <value_ints = [8]> ()"
            "  ones = Expand (one, width)",
        ),
    ],
)
def test_one_row_of_scale_and_shift(body: str, rows: str, ones: str) -> None:
    model = written(body, rows=rows, ones=ones)
    before = model.clone()
    assert apply(model, modulate.PASS.apply).fired == 1
    assert text(model) == MODULATED
    assert_same(before, model, *SIZES)


def test_the_default_epsilon_is_written_out() -> None:
    model = written(BODY.replace(" <epsilon = 0.001>", ""))
    before = model.clone()
    assert apply(model, modulate.PASS.apply).fired == 1
    assert "epsilon=1e-05" in text(model)[-1]
    assert_same(before, model, *SIZES)


OWN = "the norm has a scale of its own"
AXIS = "the norm is not over the last axis alone"


def per_token(name: str) -> str:
    return f"the {name} is not one row of the width of x: there may be one for each token"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ones": ONES.replace("{1, 1", "{1, 1.01")}, OWN),
        ({"ones": "", "rows": f"float[8] ones, {ROWS}"}, OWN),
        (
            {
                "body": BODY.replace("epsilon = 0.001", "axis = 1"),
                "ones": "one = Constant <value = float {1}> ()"
                "  shape = Constant <value_ints = [5, 8]> ()  ones = Expand (one, shape)",
                "x": "float[2, 5, 8]",
            },
            AXIS,
        ),
        ({"rows": "float[1, s, 8] scale, float[1, 1, 8] shift"}, per_token("scale")),
        ({"rows": "float[1, 1, 8] scale, float[1, s, 8] shift"}, per_token("shift")),
        ({"rows": "float[2, 1, 8] scale, float[1, 1, 8] shift"}, per_token("scale")),
        ({"rows": "float[1, 1, 1] scale, float[1, 1, 8] shift"}, per_token("scale")),
        ({"rows": "float[1, 1, 8] scale, float shift"}, per_token("shift")),
        ({"rows": "float[1, 1, 1, 8] scale, float[8] shift", "y": "float[1, 2, s, 8]"}, per_token("scale")),
    ],
)
def test_what_is_no_row_stays(changed: dict[str, str], reason: str) -> None:
    assert set(refused(written(**changed), Modulate)) == {reason}


def test_a_norm_with_a_bias_stays() -> None:
    model = written(BODY.replace("(x, ones)", "(x, ones, bias)"), rows=f"float[8] bias, {ROWS}")
    before = model.clone()
    assert apply(model, modulate.PASS.apply).fired == 0
    assert_same(before, model, *SIZES)


def test_a_norm_that_something_else_uses_stays() -> None:
    model = written(BODY.replace("y = Add", "sum = Add") + "  y = Add (sum, normalized)")
    before = model.clone()
    assert apply(model, modulate.PASS.apply).fired == 0
    assert_same(before, model, *SIZES)
