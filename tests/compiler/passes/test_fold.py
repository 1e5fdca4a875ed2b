"""Small constants are computed, weights never; what is computed twice is computed once; what nobody uses goes."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.passes import fold
from wanc.compiler.passes.fold import INPUT_LIMIT, StaticSize

from .builder import Apply, apply, assert_same, parse, refused, text

SIZES = ({"s": 1}, {"s": 5})


def folded(body: str, *, x: str = "float[s, 4] x", y: str = "float[a, b] y") -> list[str]:
    model = parse(f"g ({x}) => ({y}) {{ {body} }}")
    before = model.clone()
    assert apply(model, fold.fold).fired
    assert_same(before, model, *SIZES)
    return text(model)


def test_constants_are_computed() -> None:
    body = """a = Constant <value = float[2] {1, 2}> ()  b = Constant <value = float {3}> ()  c = Add (a, b)
        d = Concat <axis = 0> (c, c)  y = Mul (x, d)"""
    assert folded(body) == ["y = Mul(x, [4.,5.,4.,5.])"]


def test_copies_and_casts_that_change_nothing_go() -> None:
    body = "a = Identity (x)  b = Cast <to = 1> (a)  y = Neg (b)"
    assert folded(body) == ["y = Neg(x)"]


@pytest.mark.parametrize(("start", "index"), [(0, 1), (0, -1), (1, 0), (-1, 0)])
def test_sizes_that_are_numbers_are_computed(start: int, index: int) -> None:
    body = f"""s = Shape <start = {start}> (x)  i = Constant <value_int = {index}> ()  n = Gather <axis = 0> (s, i)
        f = Cast <to = 1> (n)  y = Mul (x, f)"""
    assert folded(body) == ["y = Mul(x, 4.)"]


@pytest.mark.parametrize("index", [0, -2, 7])
def test_sizes_of_a_request_are_not(index: int) -> None:
    model = parse(
        f"""g (float[s, 4] x) => (int64 y) {{
            s = Shape (x)  i = Constant <value_int = {index}> ()  y = Gather <axis = 0> (s, i) }}"""
    )
    assert refused(model, StaticSize) == ["the size changes from request to request"]


def test_a_size_by_a_computed_index_is_not() -> None:
    model = parse("g (float[s, 4] x, int64 i) => (int64 y) { s = Shape (x)  y = Gather <axis = 0> (s, i) }")
    assert refused(model, StaticSize) == ["the size changes from request to request"]


# Weights


@pytest.mark.parametrize("apply_pass", [fold.fold, fold.share, fold.remove_unused])
def test_weights_are_never_read(apply_pass: Apply) -> None:
    """Their file does not exist; and what is made of them alone stays as it is."""
    model = parse(
        """g (float[s, 4] x, float16[4, 4] w.weight, float[4] w.bias) => (float[s, 4] y) {
            two = Constant <value = float {2}> ()
            wide = Cast <to = 1> (w.weight)  turned = Transpose <perm = [1, 0]> (wide)
            b = Mul (w.bias, two)  p = MatMul (x, turned)  y = Add (p, b) }""",
        "w.weight",
        "w.bias",
    )
    before, weights = text(model), {name: model.graph.initializers[name].const_value for name in ("w.weight", "w.bias")}
    apply_pass(model)
    assert text(model) == before
    for name, tensor in weights.items():
        assert isinstance(tensor, ir.ExternalTensor)
        assert model.graph.initializers[name].const_value is tensor


def test_two_weights_in_one_place_stay_two() -> None:
    """Equal bytes are the engine's business; here nobody looks."""
    model = parse(
        "g (float[s, 4] x, float[4] u, float[4] v) => (float[s, 4] y) { a = Add (x, u)  y = Add (a, v) }", "u", "v"
    )
    apply(model, fold.share)
    assert set(model.graph.initializers) == {"u", "v"}


def test_constants_above_the_limit_stay() -> None:
    def ones(count: int) -> list[str]:
        model = parse(
            f"""g (float[s] x) => (float[t] y) {{
                shape = Constant <value_ints = [{count}]> ()  one = Constant <value = float {{1}}> ()
                e = Expand (one, shape)  n = Neg (e)  m = ReduceMax (x)  y = Mul (n, m) }}"""
        )
        apply(model, fold.fold)
        return [line.split(" = ")[1].split("(")[0] for line in text(model)]

    assert ones(INPUT_LIMIT) == ["ReduceMax", "Mul"]
    assert ones(INPUT_LIMIT + 1) == ["Expand", "Neg", "ReduceMax", "Mul"]


def test_random_numbers_are_no_constants() -> None:
    body = "a = RandomNormal <shape = [2]> ()  b = RandomNormal <shape = [2]> ()  c = Sub (a, b)  y = Add (x, c)"
    model = parse(f"g (float[s, 2] x) => (float[s, 2] y) {{ {body} }}")
    apply(model, fold.fold, fold.share)
    assert [line.split(" = ")[1].split("(")[0] for line in text(model)] == ["RandomNormal"] * 2 + ["Sub", "Add"]


# Sharing


def test_what_is_computed_twice_is_computed_once() -> None:
    model = parse(
        """g (float[s, 4] x) => (float[s, 4] y) {
            one = Constant <value = float {1}> ()  a = Add (x, one)  b = Tanh (a)
            uno = Constant <value = float {1}> ()  c = Add (x, uno)  d = Tanh (c)  y = Mul (b, d) }"""
    )
    before = model.clone()
    assert apply(model, fold.share).fired == 2
    assert text(model) == ["v0 = Add(x, 1.)", "v1 = Tanh(v0)", "y = Mul(v1, v1)"]
    assert_same(before, model, *SIZES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Transpose <perm = [0, 1]> (x)", "Transpose <perm = [1, 0]> (x)"),
        ("Sub (x, z)", "Sub (z, x)"),
        ("custom.Tanh (x)", "Tanh (x)"),
        ("Cast <to = 10> (x)", "Cast <to = 1> (x)"),
    ],
)
def test_what_differs_stays_twice(one: str, other: str) -> None:
    model = parse(f"g (float[4, 4] x, float[4, 4] z) => (float[a, b] u, float[c, d] v) {{ u = {one}  v = {other} }}")
    assert fold.share(model).fired == 0
    assert len(model.graph) == 2


def test_two_outputs_of_one_value_keep_their_names() -> None:
    model = parse("g (float[s] x) => (float[s] u, float[s] v) { u = Tanh (x)  v = Tanh (x) }")
    before = model.clone()
    apply(model, fold.fold, fold.share)
    assert [value.name for value in model.graph.outputs] == ["u", "v"]
    assert_same(before, model, *SIZES)


# Dead code


def test_what_no_output_depends_on_goes() -> None:
    model = parse(
        """g (float[s, 4] x, float[4] used, float[4] unused) => (float[s, 4] y) {
            a = Add (x, unused)  b = Tanh (a)  y = Add (x, used) }""",
        "used",
        "unused",
    )
    assert fold.DEAD.apply(model).fired == 2
    assert text(model) == ["y = Add(x, used)"]
    assert set(model.graph.initializers) == {"used"}
