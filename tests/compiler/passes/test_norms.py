"""Norms as models write them out, and what only looks like them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.passes import norms
from wanc.compiler.passes.norms import ChannelNorm, MeanAndVariance, RootMeanSquare

from .builder import apply, assert_close, assert_same, parse, refused, run, text

SIZES = ({"s": 1}, {"s": 5})
CONSTANTS = """
    two = Constant <value = float {2.0}> ()  epsilon = Constant <value = float {0.001}> ()
    last = Constant <value_ints = [-1]> ()  first = Constant <value_ints = [1]> ()
"""
ROOT = """
    square = Pow (x, two)  mean = ReduceMean (square, last)  shifted = Add (mean, epsilon)  root = Sqrt (shifted)
    inverse = Reciprocal (root)  normalized = Mul (x, inverse)  y = Mul (w, normalized)
"""
LAYER = """
    mean = ReduceMean (x, last)  centred = Sub (x, mean)  square = Pow (centred, two)
    variance = ReduceMean (square, last)  shifted = Add (variance, epsilon)  root = Sqrt (shifted)
    normalized = Div (centred, root)  scaled = Mul (normalized, w)  y = Add (scaled, b)
"""


def written(body: str, *, x: str = "float[2, s, 8]", weights: str = "float[8] w", y: str = "") -> ir.Model:
    names = [part.split()[-1] for part in weights.split(", ") if part.split()[-1].isalpha()]
    return parse(f"g ({x} x, {weights}) => ({y or x} y) {{ {CONSTANTS} {body} }}", *names)


# Root mean square


def test_a_root_mean_square_norm() -> None:
    model = written(ROOT)
    before = model.clone()
    assert apply(model, norms.PASS.apply).fired == 1
    assert text(model) == ["y = RMSNormalization(x, w, axis=-1, epsilon=0.001, stash_type=1)"]
    assert_same(before, model, *SIZES)


def test_a_norm_whose_parts_stand_in_another_order() -> None:
    body = ROOT.replace("(x, inverse)", "(inverse, x)").replace("(w, normalized)", "(normalized, w)")
    body = body.replace("(mean, epsilon)", "(epsilon, mean)").replace("(square, last)", "(square, two_)")
    model = written(f"two_ = Constant <value_ints = [2]> () {body}")
    before = model.clone()
    assert apply(model, norms.PASS.apply).fired == 1
    assert text(model) == ["y = RMSNormalization(x, w, axis=-1, epsilon=0.001, stash_type=1)"]
    assert_same(before, model, *SIZES)


NOT_LAST = "the mean is not over the last axis alone"
NOT_CONSTANT = "epsilon is not a constant"
NOT_ONE_ROW = "the scale is not one row of the width of x"


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        (ROOT.replace("(square, last)", "(square, first)"), {"x": "float[2, 8, 8]"}, NOT_LAST),
        (
            f"both = Constant <value_ints = [1, 2]> () {ROOT.replace('(square, last)', '(square, both)')}",
            {"x": "float[2, 8, 8]"},
            NOT_LAST,
        ),
        (ROOT.replace("ReduceMean (", "ReduceMean <keepdims = 0> ("), {"x": "float[8, 8]"}, NOT_LAST),
        (ROOT.replace("(square, last)", "(square, axes)"), {"weights": "float[8] w, int64[1] axes"}, NOT_LAST),
        (ROOT.replace("(mean, epsilon)", "(mean, e)"), {"weights": "float[8] w, float e"}, NOT_CONSTANT),
        (ROOT, {"weights": "float[5, 8] w", "x": "float[2, 5, 8]"}, NOT_ONE_ROW),
        (ROOT, {"weights": "float[1] w"}, NOT_ONE_ROW),
        (ROOT, {"x": "float[2, s, 1]", "y": "float[2, s, 8]"}, NOT_ONE_ROW),
    ],
)
def test_other_means(body: str, inputs: dict[str, str], reason: str) -> None:
    # One letter names a weight: the others are inputs.
    model = written(body, **inputs)
    assert set(refused(model, RootMeanSquare)) == {reason}


def test_a_mean_of_something_else_is_no_norm() -> None:
    for body in (ROOT.replace("Pow (x, two)", "Pow (x, three)"), ROOT.replace("Pow (x, two)", "Pow (other, two)")):
        model = written(
            f"three = Constant <value = float {{3.0}}> () {body}",
            weights="float[8] w, float[2, 5, 8] other",
            x="float[2, 5, 8]",
        )
        assert apply(model, norms.PASS.apply).fired == 0


# Channels


CHANNELS = """
    factor = Constant <value = float {2.828427}> ()  least = Constant <value = float {1e-12}> ()
    norm = ReduceL2 (x, first)  clipped = Clip (norm, least)  unit = Div (x, clipped)
    long = Mul (unit, factor)  y = Mul (long, w)
"""
PICTURE = {"x": "float[2, 8, s, 3]", "weights": "float[8, 1, 1] w"}


@pytest.mark.parametrize(
    ("x", "weights", "there", "back"),
    [
        ("float[2, 8, s]", "float[8, 1] w", [0, 2, 1], [0, 2, 1]),
        ("float[2, 8, s, 3]", "float[1, 8, 1, 1] w", [0, 2, 3, 1], [0, 3, 1, 2]),
        ("float[1, 8, 2, s, 3]", "float[8, 1, 1, 1] w", [0, 2, 3, 4, 1], [0, 4, 1, 2, 3]),
    ],
)
def test_a_norm_of_channels(x: str, weights: str, there: list[int], back: list[int]) -> None:
    model = written(CHANNELS, x=x, weights=weights)
    before = model.clone()
    assert apply(model, norms.PASS.apply).fired == 1
    assert text(model) == [
        "v0 = Reshape(w, [-1])",
        f"v1 = Transpose(x, perm={there})",
        "v2 = RMSNormalization(v1, v0, axis=-1, epsilon=1.25e-25, stash_type=1)",
        f"y = Transpose(v2, perm={back})",
    ]
    assert_same(before, model, *SIZES)


def test_channels_of_zeros_stay_zeros_and_small_ones_are_normalized() -> None:
    model = written(CHANNELS, **PICTURE)
    before = model.clone()
    apply(model, norms.PASS.apply)
    for x in (np.zeros((2, 8, 4, 3), np.float32), np.full((2, 8, 4, 3), 1e-6, np.float32)):
        assert_close(run(model, {"x": x})["y"], run(before, {"x": x})["y"])


AXIS = "the norm is not over axis 1 alone"
FACTOR = "the factor is not the square root of the number of channels"
BOUND = "the norm is not bounded from below alone, by next to nothing"
ENTRIES = "the scale has not one entry per channel"
MORE_ENTRIES = "the scale has more than one entry per channel"


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        (CHANNELS.replace("(x, first)", "(x, last)"), {"x": "float[2, 8, s, 8]"}, AXIS),
        (CHANNELS.replace("(x, first)", "(x, both)"), {"x": "float[2, 8, 5, 3]"}, AXIS),
        (CHANNELS.replace("ReduceL2", "ReduceL2 <keepdims = 0>"), {"x": "float[8, 8]", "weights": "float[8] w"}, AXIS),
        (CHANNELS.replace("2.828427", "2.8"), PICTURE, FACTOR),
        (CHANNELS, {"x": "float[2, c, s, 3]", "weights": "float[1, 1, 1] w"}, FACTOR),
        (
            CHANNELS.replace("(unit, factor)", "(unit, f)"),
            {"x": PICTURE["x"], "weights": "float[8, 1, 1] w, float f"},
            FACTOR,
        ),
        (CHANNELS.replace("(norm, least)", "(norm, least, two)"), PICTURE, BOUND),
        (CHANNELS.replace("(norm, least)", "(norm)"), PICTURE, BOUND),
        (
            CHANNELS.replace("(norm, least)", "(norm, f)"),
            {"x": PICTURE["x"], "weights": "float[8, 1, 1] w, float f"},
            BOUND,
        ),
        (CHANNELS.replace("1e-12", "0.5"), PICTURE, BOUND),
        (CHANNELS, {**PICTURE, "weights": "float[1, 1] w"}, ENTRIES),
        (CHANNELS, {**PICTURE, "weights": "float[3] w"}, ENTRIES),
        (CHANNELS, {**PICTURE, "weights": "float[1, 1, 8, 1, 1] w", "y": "float[1, 2, 8, s, 3]"}, MORE_ENTRIES),
        (CHANNELS, {**PICTURE, "weights": "float[8, 1, 3] w"}, MORE_ENTRIES),
        (CHANNELS, {**PICTURE, "weights": "float[2, 8, 1, 1] w"}, MORE_ENTRIES),
    ],
)
def test_other_norms_of_channels(body: str, inputs: dict[str, str], reason: str) -> None:
    model = written(f"both = Constant <value_ints = [1, 2]> () {body}", **inputs)
    assert set(refused(model, ChannelNorm)) == {reason}


# Mean and variance


def test_a_layer_norm() -> None:
    model = written(LAYER, weights="float[8] w, float[8] b")
    before = model.clone()
    assert apply(model, norms.PASS.apply).fired == 1
    assert text(model) == ["y = LayerNormalization(x, w, b, axis=-1, epsilon=0.001, stash_type=1)"]
    assert_same(before, model, *SIZES)


NOT_BOTH_LAST = "mean and variance are not over the last axis alone"
NOT_ROWS = "scale or bias is not one row of the width of x"


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        (LAYER.replace("last", "first"), {"x": "float[2, 8, 8]"}, NOT_BOTH_LAST),
        (LAYER.replace("ReduceMean (x", "ReduceMean <keepdims = 0> (x"), {"x": "float[8, 8]"}, NOT_BOTH_LAST),
        (
            LAYER.replace("(variance, epsilon)", "(variance, e1)"),
            {"weights": "float[8] w, float[8] b, float e1"},
            NOT_CONSTANT,
        ),
        (LAYER, {"weights": "float[5, 8] w, float[8] b", "x": "float[2, 5, 8]"}, NOT_ROWS),
        (LAYER, {"weights": "float[8] w, float[1, 8] b"}, NOT_ROWS),
        (LAYER, {"weights": "float[1] w, float[8] b"}, NOT_ROWS),
        (LAYER, {"weights": "float[8] w, float[1] b"}, NOT_ROWS),
        (LAYER, {"x": "float[2, s, 1]", "y": "float[2, s, 8]"}, NOT_ROWS),
    ],
)
def test_other_layer_norms(body: str, inputs: dict[str, str], reason: str) -> None:
    model = written(body, **{"weights": "float[8] w, float[8] b", **inputs})
    assert set(refused(model, MeanAndVariance)) == {reason}


def test_mean_and_variance_over_different_axes() -> None:
    model = written(LAYER.replace("ReduceMean (x, last)", "ReduceMean (x, first)"), weights="float[8] w, float[8] b")
    before = model.clone()
    assert apply(model, norms.PASS.apply).fired == 0
    assert_same(before, model, *SIZES)
