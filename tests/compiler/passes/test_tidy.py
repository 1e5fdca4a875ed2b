"""Data movement that cancels, and shapes that need not be computed."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.passes import tidy
from wanc.compiler.passes.fold import fold
from wanc.compiler.passes.tidy import KnownShape, ReshapeTwice, SameShape, ThereAndBack

from .builder import apply, assert_same, parse, refused, text

SIZES = ({"s": 1}, {"s": 5})


def written(body: str, *, x: str = "float[2, s, 4] x", y: str = "float[a, b, c] y", more: str = "") -> ir.Model:
    header = ", ".join(filter(None, (x, more)))
    return parse(f"g ({header}) => ({y}) {{ {body} }}")


def tidied(model: ir.Model) -> list[str]:
    """With copies taken out, which `fold` does, and the numbers looked at."""
    before = model.clone()
    assert apply(model, tidy.tidy).fired
    apply(model, fold)
    assert_same(before, model, *SIZES)
    assert apply(model, tidy.tidy).fired == 0
    return text(model)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("t = Transpose <perm = [0, 1, 2]> (x)  y = Neg (t)", "Neg(x)"),
        ("t = Transpose <perm = [1, 2, 0]> (x)  u = Transpose <perm = [2, 0, 1]> (t)  y = Neg (u)", "Neg(x)"),
        (
            "t = Transpose <perm = [1, 2, 0]> (x)  y = Transpose <perm = [0, 2, 1]> (t)",
            "Transpose(x, perm=[1, 0, 2])",
        ),
        ("shape = Constant <value_ints = [2, 1, 4]> ()  e = Expand (x, shape)  y = Neg (e)", "Neg(x)"),
        ("one = Constant <value = float {1}> ()  m = Mul (x, one)  y = Neg (m)", "Neg(x)"),
        ("one = Constant <value = float {1}> ()  m = Div (x, one)  y = Neg (m)", "Neg(x)"),
        ("zero = Constant <value = float {0}> ()  m = Add (x, zero)  y = Neg (m)", "Neg(x)"),
        ("zero = Constant <value = float {0}> ()  m = Sub (x, zero)  y = Neg (m)", "Neg(x)"),
    ],
)
def test_what_changes_nothing_goes(body: str, expected: str) -> None:
    x = "float[2, 3, 4] x" if "Expand" in body else "float[2, s, 4] x"
    body = body.replace("[2, 1, 4]", "[2, 3, 4]")
    assert tidied(written(body, x=x)) == [f"y = {expected}"]


def test_an_expansion_that_the_next_operator_does_itself() -> None:
    body = "shape = Constant <value_ints = [2, 5, 4]> ()  e = Expand (row, shape)  y = Add (x, e)"
    assert tidied(written(body, x="float[2, 5, 4] x", more="float[1, 4] row")) == ["y = Add(x, row)"]


def test_axes_that_are_added_one_by_one() -> None:
    body = "zero = Constant <value_ints = [0]> ()  a = Unsqueeze (x, zero)  y = Unsqueeze (a, zero)"
    (line,) = tidied(written(body, x="float[s, 4] x", y="float[1, 1, s, 4] y"))
    assert line in ("y = Unsqueeze(x, [0,1])", "y = Unsqueeze(x, [1,0])")


@pytest.mark.parametrize(
    "body",
    [
        "one = Constant <value = float {1}> ()  m = Mul (one, x)  y = Neg (m)",
        "zero = Constant <value = float {0}> ()  m = Add (zero, x)  y = Neg (m)",
        "t = Transpose <perm = [1, 0, 2]> (x)  y = Neg (t)",
        "t = Transpose <perm = [1, 2, 0]> (x)  u = Transpose <perm = [1, 2, 0]> (t)  y = Neg (u)",
        "one = Constant <value = float {1.001}> ()  m = Mul (x, one)  y = Neg (m)",
        "zero = Constant <value = float {0.001}> ()  m = Add (x, zero)  y = Neg (m)",
        "zero = Constant <value = float {0}> ()  m = Sub (zero, x)  y = Neg (m)",
        "one = Constant <value = float {1}> ()  m = Div (one, x)  y = Neg (m)",
        "ones = Constant <value = float[3, 1, 1, 1] {1, 1, 1}> ()  y = Mul (x, ones)",
        "zeros = Constant <value = float[3, 1, 1, 1] {0, 0, 0}> ()  y = Add (x, zeros)",
        "shape = Constant <value_ints = [3, 1, 1, 1]> ()  y = Expand (x, shape)",
    ],
)
def test_what_changes_something_keeps_its_numbers(body: str) -> None:
    model = written(body, y="float[a, b, c, d] y" if "3, 1" in body else "float[a, b, c] y")
    before = model.clone()
    apply(model, tidy.tidy)
    assert_same(before, model, *SIZES)


def test_a_one_that_adds_an_axis_keeps_the_axis() -> None:
    model = written("one = Constant <value = float[1, 1, 1, 1] {1}> ()  y = Mul (x, one)", y="float[1, 2, s, 4] y")
    before = model.clone()
    apply(model, tidy.tidy)
    assert_same(before, model, *SIZES)


# Casts

TYPES = {"bfloat16": 16, "float16": 10, "float": 1, "double": 11}
NARROW = [
    ("bfloat16", "float"),
    ("bfloat16", "double"),
    ("float16", "float"),
    ("float16", "double"),
    ("float", "double"),
]


def cast_twice(first: str, between: str, last: str) -> ir.Model:
    body = f"wide = Cast <to = {TYPES[between]}> (x)  y = Cast <to = {TYPES[last]}> (wide)"
    return written(body, x=f"{first}[5] x", y=f"{last}[5] y")


@pytest.mark.parametrize(("narrow", "wide"), NARROW)
def test_a_cast_to_a_wider_type_and_back(narrow: str, wide: str) -> None:
    model = cast_twice(narrow, wide, narrow)
    before = model.clone()
    assert apply(model, tidy.tidy).fired == 1
    assert text(model) == ["y = Identity(x)"]
    if narrow != "bfloat16":  # which numpy's arrays cannot hand to onnxruntime
        assert_same(before, model)


@pytest.mark.parametrize(("narrow", "wide"), NARROW)
def test_a_cast_to_a_narrower_type_and_back_rounds(narrow: str, wide: str) -> None:
    model = cast_twice(wide, narrow, wide)
    assert refused(model, ThereAndBack) == [
        f"the type between the casts does not hold every {'float' if wide == 'float' else 'double'}"
    ]


@pytest.mark.parametrize(("first", "between"), [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_sixteen_bits_of_the_other_kind_do_not_hold_each_other(first: str, between: str) -> None:
    assert refused(cast_twice(first, between, first), ThereAndBack) == [
        f"the type between the casts does not hold every {first}"
    ]
    dtypes = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
    value = np.array(1 + 2**-10 if first == "float16" else 2.0**100).astype(dtypes[first])
    with np.errstate(over="ignore"):
        assert value.astype(np.float32).astype(dtypes[between]).astype(np.float32) != value.astype(np.float32)


def test_two_casts_to_a_third_type() -> None:
    assert refused(cast_twice("float16", "double", "float"), ThereAndBack) == [
        "the second cast does not go back to the first one's type"
    ]


def test_a_cast_to_whole_numbers_and_back_rounds() -> None:
    model = written("wide = Cast <to = 7> (x)  y = Cast <to = 1> (wide)", x="float[5] x", y="float[5] y")
    assert refused(model, ThereAndBack) == ["the type between the casts does not hold every float"]


# Reshapes


def twice(first: str, second: str, attributes: str = "", x: str = "float[2, s, 4] x") -> ir.Model:
    return written(
        f"one = Constant <value_ints = {first}> ()  two = Constant <value_ints = {second}> ()"
        f" a = Reshape (x, one)  y = Reshape {attributes} (a, two)",
        x=x,
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("[-1]", "[4, -1, 2]", "[4,-1,2]"),
        ("[2, -1]", "[0, 2, -1]", "[0,2,-1]"),  # the size copied is that of x as well
        ("[2, 1, -1]", "[0, -1, 2]", "[0,-1,2]"),
    ],
)
def test_a_reshape_of_a_reshape(first: str, second: str, expected: str) -> None:
    assert tidied(twice(first, second)) == [f"y = Reshape(x, {expected}, allowzero=0)"]


def test_reshapes_there_and_back() -> None:
    model = written(
        """one = Constant <value_ints = [0, 0, 2, 2]> ()  two = Constant <value_ints = [0, 0, 4]> ()
        a = Reshape (x, one)  b = Reshape (a, two)  y = Neg (b)"""
    )
    assert tidied(model) == ["y = Neg(x)"]


def test_a_reshape_that_copies_what_the_first_one_made() -> None:
    for first, second in (("[4, -1]", "[0, 2, -1]"), ("[-1, 8]", "[-1, 0, 1]")):
        model = twice(first, second)
        assert refused(model, ReshapeTwice) == ["the shape copies a size of the reshape before it"]


def test_a_reshape_to_a_computed_shape_stays_behind_another() -> None:
    model = written(
        "one = Constant <value_ints = [-1]> ()  a = Reshape (x, one)  y = Reshape (a, shape)", more="int64[3] shape"
    )
    assert refused(model, ReshapeTwice) == ["the shape is computed"]


def test_a_reshape_to_nothing_keeps_its_zero() -> None:
    model = twice("[0, 8]", "[0, 3, 5]", "<allowzero = 1>", x="float[0, 2, 4] x")
    before = model.clone()
    apply(model, tidy.tidy)
    assert "allowzero=1" in text(model)[-1]
    assert_same(before, model)


def test_a_reshape_to_the_same_shape() -> None:
    for shape in ("[2, -1, 4]", "[0, 0, 4]", "[0, 0, 0]"):
        model = written(f"shape = Constant <value_ints = {shape}> ()  a = Reshape (x, shape)  y = Neg (a)")
        model.graph[1].outputs[0].shape = ir.Shape([2, "s", 4])  # as an exporter knows it, whatever is in the shape
        assert tidied(model) == ["y = Neg(x)"]


@pytest.mark.parametrize("shape", ["[4, -1, 2]", "[0, 0, 2, 2]", "[2, -1, 4]"])
def test_a_reshape_to_another_or_unknown_shape(shape: str) -> None:
    model = written(f"shape = Constant <value_ints = {shape}> ()  y = Reshape (x, shape)")
    assert refused(model, SameShape) == ["the shapes differ"]


COMPUTED = """
    sizes = Shape (x)  zero = Constant <value_ints = [0]> ()  one = Constant <value_ints = [1]> ()
    first = Gather (sizes, zero)  second = Gather (sizes, one)  eight = Constant <value_ints = [8]> ()
"""


@pytest.mark.parametrize(
    ("shape", "known", "expected"),
    [
        ("(first, second, one)", [2, "s", 4], "Identity(x)"),
        ("(second, eight)", ["s", 8], "Reshape(x, [-1,8])"),
        ("(first, second, one, one)", [2, "s", 2, 2], "Reshape(x, [2,0,2,2])"),
        ("(second, first, one)", ["s", 2, 4], "Reshape(x, [-1,2,4])"),
    ],
)
def test_a_shape_that_need_not_be_computed(shape: str, known: list[int | str], expected: str) -> None:
    tail = {"(first, second, one)": "[4]", "(first, second, one, one)": "[2]", "(second, first, one)": "[4]"}.get(
        shape, "[1]"
    )
    shape = shape.replace("one", "tail")
    model = written(
        f"{COMPUTED} tail = Constant <value_ints = {tail}> ()"
        f"  shape = Concat <axis = 0> {shape}  y = Reshape (x, shape)"
    )
    model.graph[-1].outputs[0].shape = ir.Shape(known)
    assert tidied(model)[-1] == f"y = {expected}"


UNKNOWN = "more than one size of the result is neither known nor the input's"


@pytest.mark.parametrize(
    ("x", "known", "reason"),
    [
        ("float[2, s, 4] x", None, "the shape of the result is unknown"),
        ("float[2, s, 4] x", ["a", "b", 8], UNKNOWN),
        ("float[2, s, 4] x", [None, "s", None], UNKNOWN),
        ("float[2, 0, 4] x", [0, 3, 8], "the result is empty"),
    ],
)
def test_a_shape_that_has_to_be_computed(x: str, known: list[int | str | None] | None, reason: str) -> None:
    model = written("y = Reshape (x, shape)", x=x, more="int64[3] shape")
    model.graph.outputs[0].shape = None if known is None else ir.Shape(known)
    assert refused(model, KnownShape) == [reason]


def test_a_constant_shape_is_known() -> None:
    model = written("shape = Constant <value_ints = [2, -1, 4]> ()  y = Reshape (x, shape)")
    assert refused(model, KnownShape) == ["the shape is a constant"]
