"""Where a Linear's input can be divided for nothing: found where it is exact, refused everywhere else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.graphs.folds import Fold, divide, find_fold

from .passes.builder import assert_close, noise, parse, run, text, with_noise

# A division and a product are rounded once more each, before the same sums.
TOLERANCE = 1e-5
CHANNELS = 8
WEIGHTS = {
    "norm.weight": "float[8]",
    "norm.bias": "float[8]",
    "table": "float[8]",
    "half.weight": "bfloat16[8]",
    "to_v.weight": "float[8, 8]",
    "to_v.bias": "float[8]",
    "other.weight": "float[8, 8]",
    "flat.weight": "float[8, 8]",
    "one.weight": "float[1, 8]",
    "one.bias": "float[1]",
    "out.weight": "float[6, 8]",
}
INPUTS = "float[1, n, 8] x, float[1, n, 8] z, float[8] s, float[1, n, 8] q"
OUT = "t = Transpose <perm = [1, 0]> (out.weight)  y = MatMul (a, t)"
V = "tv = Transpose <perm = [1, 0]> (to_v.weight)"
HEADS = "q_num_heads = 2, kv_num_heads = 2"


def graph(body: str, outputs: str = "float[1, n, 6] y") -> ir.Model:
    """A graph in which the Linear `out` takes the activation `a`; weights that it does not use are left out."""
    used = {name: kind for name, kind in WEIGHTS.items() if name in f"{body} {OUT}"}
    header = ", ".join([INPUTS, *(f"{kind} {name}" for name, kind in used.items())])
    return parse(f"g ({header}) => ({outputs}) {{ {body}  {OUT} }}", *used)


def value_of(model: ir.Model, name: str) -> ir.Value:
    (value,) = [value for node in model.graph for value in node.outputs if value.name == name]
    return value


def fold_of(model: ir.Model, channels: int = CHANNELS) -> Fold | None:
    return find_fold(value_of(model, "a"), channels)


NORMS = {
    "scale and shift are weights": (
        "a = LayerNormalization <axis = -1> (x, norm.weight, norm.bias)",
        Fold(("norm.weight", "norm.bias")),
    ),
    "no shift": ("a = RMSNormalization <axis = -1> (x, norm.weight)", Fold(("norm.weight",))),
    "behind a cast": (
        "c = Cast <to = 1> (half.weight)  a = LayerNormalization <axis = -1> (x, c)",
        Fold(("half.weight",)),
    ),
    "scale and shift are computed": (
        "scale = Mul (s, table)  shift = Add (s, table)  a = LayerNormalization <axis = -1> (x, scale, shift)",
        Fold(values=("scale", "shift")),
    ),
    "one of each": (
        "scale = Mul (s, table)  a = LayerNormalization <axis = -1> (x, scale, norm.bias)",
        Fold(("norm.bias",), ("scale",)),
    ),
    "one value is both": (
        "scale = Mul (s, table)  a = LayerNormalization <axis = -1> (x, scale, scale)",
        Fold(values=("scale", "scale")),
    ),
}
LINEARS = {
    "a Linear": (f"{V}  a = MatMul (x, tv)", Fold(("to_v.weight",))),
    "with a bias": (f"{V}  p = MatMul (x, tv)  a = Add (p, to_v.bias)", Fold(("to_v.weight", "to_v.bias"))),
    "through attention": (f"{V}  v = MatMul (x, tv)  a = Attention <{HEADS}> (q, z, v)", Fold(("to_v.weight",))),
    "through attention, with a bias": (
        f"{V}  p = MatMul (x, tv)  v = Add (p, to_v.bias)  a = Attention <{HEADS}> (q, z, v)",
        Fold(("to_v.weight", "to_v.bias")),
    ),
    "gated": (f"{V}  p = MatMul (x, tv)  g = Gelu (z)  a = Mul (g, p)", Fold(("to_v.weight",))),
    "gated, on the other side, with a bias": (
        f"{V}  p = MatMul (x, tv)  b = Add (p, to_v.bias)  g = Gelu (z)  a = Mul (b, g)",
        Fold(("to_v.weight", "to_v.bias")),
    ),
    "gated by another Linear": (
        f"{V}  to = Transpose <perm = [1, 0]> (other.weight)  p = MatMul (x, tv)  g = MatMul (z, to)  a = Mul (g, p)",
        Fold(("other.weight",)),
    ),
    "gated by a row": (f"{V}  p = MatMul (x, tv)  a = Mul (p, s)", Fold(("to_v.weight",))),
}


@pytest.mark.parametrize(("body", "expected"), [*NORMS.values(), *LINEARS.values()], ids=[*NORMS, *LINEARS])
def test_what_computes_the_input_is_found(body: str, expected: Fold) -> None:
    assert fold_of(graph(body)) == expected


def divided(model: ir.Model, fold: Fold, divisors: np.ndarray) -> ir.Model:
    """The model with a fold carried out, and `out` making up for it."""
    changed = with_noise(model)
    weights = dict.fromkeys(fold.weights, 1 / divisors)
    for name, factors in {**weights, "out.weight": divisors}.items():
        value = changed.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy().astype(np.float32)
        across = factors if name == "out.weight" else factors.reshape(-1, *[1] * (array.ndim - 1))
        value.const_value, value.type = ir.tensor(array * across.astype(np.float32)), ir.TensorType(ir.DataType.FLOAT)
    assert divide(changed, dict.fromkeys(fold.values, divisors)) == len(set(fold.values))
    return changed


@pytest.mark.parametrize(("body", "expected"), [*NORMS.values(), *LINEARS.values()], ids=[*NORMS, *LINEARS])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_dividing_changes_nothing(body: str, expected: Fold, seed: int) -> None:
    """And what is divided is the input: channels of it shrink as they should."""
    model = graph(body)
    model.graph.outputs.append(value_of(model, "a"))
    divisors = np.exp(np.random.default_rng(seed).normal(0, 2, CHANNELS))
    feeds = noise(model, {"n": 3}, seed)
    before, after = run(model, feeds), run(divided(model, expected, divisors), feeds)
    assert_close(after["y"], before["y"], TOLERANCE)
    np.testing.assert_allclose(after["a"] * divisors, before["a"], rtol=1e-4, atol=1e-4 * np.abs(before["a"]).max())


REFUSED = {
    "the scale serves another norm": (
        "a = LayerNormalization <axis = -1> (x, norm.weight)  b = LayerNormalization <axis = -1> (z, norm.weight)"
    ),
    "the computed scale serves another norm": (
        "scale = Mul (s, table)  a = LayerNormalization <axis = -1> (x, scale)"
        "  b = LayerNormalization <axis = -1> (z, scale)"
    ),
    "the shift serves something else": (
        "a = LayerNormalization <axis = -1> (x, norm.weight, norm.bias)  b = Add (z, norm.bias)"
    ),
    "the scale is an input": "a = LayerNormalization <axis = -1> (x, s)",
    "the shift is an input": "a = LayerNormalization <axis = -1> (x, norm.weight, s)",
    "an activation function": f"{V}  p = MatMul (x, tv)  a = Gelu (p)",
    "an activation function behind the norm": "b = LayerNormalization <axis = -1> (x, norm.weight)  a = Tanh (b)",
    "a sum": f"{V}  p = MatMul (x, tv)  a = Add (p, z)",
    "a sum with a computed vector": f"{V}  p = MatMul (x, tv)  b = Neg (to_v.bias)  a = Add (p, b)",
    "a bias of one number": f"{V}  p = MatMul (x, tv)  a = Add (p, one.bias)",
    "a bias that serves something else": f"{V}  p = MatMul (x, tv)  a = Add (p, to_v.bias)  b = Mul (z, to_v.bias)",
    "a weight that is used twice": f"{V}  a = MatMul (x, tv)  b = MatMul (z, tv)",
    "a weight that is used twice, turned anew": (
        f"{V}  a = MatMul (x, tv)  u = Transpose <perm = [1, 0]> (to_v.weight)  b = MatMul (z, u)"
    ),
    "a product that is used elsewhere": f"{V}  p = MatMul (x, tv)  a = Add (p, to_v.bias)  b = Neg (p)",
    "a weight that lies the other way round": "a = MatMul (x, flat.weight)",
    "a product of activations": "u = Transpose <perm = [0, 2, 1]> (z)  p = MatMul (x, u)  a = MatMul (p, x)",
    "values that are used elsewhere": f"{V}  v = MatMul (x, tv)  a = Attention <{HEADS}> (q, z, v)  b = Neg (v)",
    "values that are keys as well": f"{V}  v = MatMul (x, tv)  a = Attention <{HEADS}> (q, v, v)",
    "values that are queries as well": f"{V}  v = MatMul (x, tv)  a = Attention <{HEADS}> (v, z, v)",
    "attention of which more is known": (
        f"{V}  v = MatMul (x, tv)  a, , , w = Attention <{HEADS}> (q, z, v)  b = Neg (w)"
    ),
    "a square": f"{V}  p = MatMul (x, tv)  a = Mul (p, p)",
    "gated, with an activation function on both sides": (
        f"{V}  p = MatMul (x, tv)  g = Gelu (p)  h = Tanh (z)  a = Mul (g, h)"
    ),
    "gated by what it is made of": f"{V}  p = MatMul (x, tv)  g = Sigmoid (p)  a = Mul (p, g)",
    "a gate that is used elsewhere": f"{V}  p = MatMul (x, tv)  g = Gelu (z)  a = Mul (g, p)  b = Neg (p)",
    "a gate of one number for each token": (
        "to = Transpose <perm = [1, 0]> (one.weight)  p = MatMul (x, to)  a = Mul (z, p)"
    ),
    "a product of inputs": "a = Mul (x, z)",
    "an input": "a = Identity (x)",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_not_free_is_refused(body: str) -> None:
    assert fold_of(graph(body)) is None


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("scale = Mul (s, table)  a = LayerNormalization <axis = -1> (x, scale)", "scale"),
        (f"{V}  p = MatMul (x, tv)  a = Add (p, to_v.bias)", "p"),
        (f"{V}  a = MatMul (x, tv)", "tv"),
        (f"{V}  v = MatMul (x, tv)  a = Attention <{HEADS}> (q, z, v)", "v"),
        (f"{V}  p = MatMul (x, tv)  g = Gelu (z)  a = Mul (g, p)", "p"),
        ("a = LayerNormalization <axis = -1> (x, norm.weight)", "norm.weight"),
    ],
)
def test_what_the_graph_gives_is_not_divided(body: str, output: str) -> None:
    model = graph(body)
    assert fold_of(model) is not None
    given = model.graph.initializers.get(output) or value_of(model, output)
    model.graph.outputs.append(given)
    assert fold_of(model) is None


def test_fewer_values_than_channels() -> None:
    """Heads that share values: what divides them is not what divides the result."""
    body = f"{V}  v = MatMul (x, tv)  a = Attention <q_num_heads = 2, kv_num_heads = 1> (q2, z, v)"
    model = parse(
        f"""g (float[1, n, 16] q2, float[1, n, 8] x, float[1, n, 8] z, float[8, 8] to_v.weight,
            float[6, 16] out.weight) => (float[1, n, 6] y) {{ {body}  {OUT} }}""",
        "to_v.weight",
        "out.weight",
    )
    assert fold_of(model, 16) is None
    assert fold_of(graph("a = LayerNormalization <axis = -1> (x, norm.weight)"), 16) is None


def test_a_divided_value_keeps_its_name() -> None:
    """Another graph that takes it finds it, divided; users and outputs of this one see it as well."""
    model = parse("g (float[8] s) => (float[8] a, float[8] c) { a = Tanh (s)  b = Sin (a)  c = Add (a, b) }")
    feeds = noise(model, {}, 0)
    before, divisors = run(model, feeds), np.arange(1.0, 9.0)
    assert divide(model, {"a": divisors, "elsewhere": divisors}) == 1
    assert text(model) == ["v0 = Tanh(s)", "a = Div(v0, [1.,2.,3.,4.,5.,6.,7.,8.])", "v1 = Sin(a)", "c = Add(a, v1)"]
    after = run(model, feeds)
    assert_close(after["a"], (before["a"] / divisors).astype(np.float32))
    assert_close(after["c"], after["a"] + np.sin(after["a"]))
