"""What the host computes in 16 bits is what float64 gives, rounded once to the type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from wanc.compiler.host.lowered import HostGraph

from ..passes.builder import parse

Array = np.ndarray[Any, Any]
TYPES = {"float": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
EACH_TYPE = pytest.mark.parametrize("kind", TYPES)
SUMS = 2e-6
"""How far sums in float32 are from those in float64, of values around 1; 16 bits round a thousand times as coarsely."""


def model(node: str, kind: str, shapes: Mapping[str, Sequence[int | str]], result: str = "") -> ir.Model:
    """A graph of one node, whose inputs are of one type."""
    header = ", ".join(f"{kind}[{', '.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    return parse(f"g ({header}) => ({result or kind} y) {{ y = {node} }}", shapes=False)


def feeds(shapes: Mapping[str, Sequence[int]], kind: str) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(TYPES[kind]) for name, shape in shapes.items()}


def run(graph: ir.Model, given: Mapping[str, Array]) -> Array:
    return HostGraph(graph, Path()).run(given)["y"]


def onnxruntimes(graph: ir.Model, given: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(given))[0]


def assert_rounded_once(actual: Array, exact: Array, kind: str) -> None:
    """Each number is one of those that the type has around the exact one, and nearly always the nearest."""
    dtype = TYPES[kind]
    assert actual.dtype == dtype
    wide, slack = actual.astype(np.float64), SUMS * max(1.0, float(np.abs(exact).max()))
    if kind == "float":
        assert np.abs(wide - exact).max() <= slack
        return
    nearest = exact.astype(np.float32).astype(dtype)
    half = np.spacing(nearest).astype(np.float64) / 2
    assert (np.abs(wide - exact) <= np.abs(half) + slack).all()
    assert (actual == nearest).mean() > 0.99


def wide(given: Mapping[str, Array]) -> list[Array]:
    return [array.astype(np.float64) for array in given.values()]


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    middle = x - x.mean(axis=-1, keepdims=True)
    return middle / np.sqrt((middle**2).mean(axis=-1, keepdims=True) + 1e-5) * scale + bias


def rms_norm(x: Array, scale: Array) -> Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * scale


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def rotated(x: Array, cos: Array, sin: Array) -> Array:
    pairs = x.reshape(1, -1, 2, 3, 2)
    one, two, cos, sin = pairs[..., 0], pairs[..., 1], cos[:, :, None], sin[:, :, None]
    return np.stack([one * cos - two * sin, one * sin + two * cos], -1).reshape(x.shape)


PRODUCT = {"x": (1, 9, 48), "w": (48, 20)}
ROW = {"x": (1, 9, 64), "scale": (64,), "bias": (64,)}
CASES: Mapping[str, tuple[str, Mapping[str, Sequence[int]], Any]] = {
    "product": ("MatMul (x, w)", PRODUCT, np.matmul),
    "products": ("MatMul (x, w)", {"x": (2, 3, 5, 16), "w": (2, 3, 16, 4)}, np.matmul),
    "one row": ("MatMul (x, w)", {"x": (1, 1, 48), "w": (48, 20)}, np.matmul),
    "layer norm": ("LayerNormalization <axis = -1> (x, scale, bias)", ROW, layer_norm),
    "rms norm": ("RMSNormalization <axis = -1> (x, scale)", {key: ROW[key] for key in ("x", "scale")}, rms_norm),
    "gelu": ('Gelu <approximate = "tanh"> (x)', {"x": (3, 50)}, gelu_tanh),
    "exact gelu": ("Gelu (x)", {"x": (3, 50)}, lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))),
    "sigmoid": ("Sigmoid (x)", {"x": (3, 50)}, lambda x: 1 / (1 + np.exp(-x))),
    "softmax": ("Softmax <axis = -1> (x)", {"x": (3, 50)}, softmax),
    "rotation": (
        "RotaryEmbedding <interleaved = 1, num_heads = 2> (x, cos, sin)",
        {"x": (1, 5, 12), "cos": (1, 5, 3), "sin": (1, 5, 3)},
        rotated,
    ),
}


@EACH_TYPE
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_exact_result_rounded_once(case: str, kind: str) -> None:
    node, shapes, exact = CASES[case]
    graph, given = model(node, kind, shapes), feeds(shapes, kind)
    actual = run(graph, given)
    assert_rounded_once(actual, exact(*wide(given)), kind)
    if kind == "float":
        np.testing.assert_allclose(actual, onnxruntimes(graph, given), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["layer norm", "rms norm", "softmax"])
def test_sums_in_16_bits_would_be_seen(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As onnx's own operators make them, whatever stash_type says."""
    node, shapes, exact = CASES[case]
    monkeypatch.setattr("wanc.compiler.host.lowered.operators", lambda opset: ())
    given = feeds(shapes, "float16")
    actual = run(model(node, "float16", shapes), given)
    with pytest.raises(AssertionError):
        assert_rounded_once(actual, exact(*wide(given)), "float16")


def test_norms_square_in_float32() -> None:
    """Which stash_type says: the squares of large numbers are beyond float16."""
    graph = model("RMSNormalization <axis = -1> (x, scale)", "float16", {"x": (1, 8), "scale": (8,)})
    given = {"x": np.full((1, 8), 1000, np.float16), "scale": np.ones(8, np.float16)}
    np.testing.assert_allclose(run(graph, given).astype(np.float32), 1.0, atol=1e-3)


@pytest.mark.parametrize("operator", ["RMSNormalization", "LayerNormalization"])
def test_another_stash_type_is_refused(operator: str) -> None:
    graph = model(f"{operator} <axis = -1, stash_type = 10> (x, scale)", "float16", {"x": (1, 8), "scale": (8,)})
    with pytest.raises(NotImplementedError, match="stash_type=10"):
        run(graph, feeds({"x": (1, 8), "scale": (8,)}, "float16"))


# Attention

QKV = {"q": (2, 7, 24), "k": (2, 11, 24), "v": (2, 11, 24)}


def attended(given: Mapping[str, Array], heads: int, kind: str, mask: Array | None = None) -> Array:
    """In float64, but for the probabilities, which the operator rounds to its type."""
    q, k, v = (array.reshape(*array.shape[:2], heads, -1).transpose(0, 2, 1, 3) for array in wide(given)[:3])
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]) + (0 if mask is None else mask)
    weights = softmax(scores).astype(np.float32).astype(TYPES[kind]).astype(np.float64)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(*given["q"].shape[:2], -1)


@EACH_TYPE
@pytest.mark.parametrize("masked", [False, True])
def test_attention(kind: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows at a time."""
    monkeypatch.setattr("wanc.compiler.host.operators.MOST_SCORES", 33)
    shapes = {**QKV, "mask": (2, 1, 7, 11)} if masked else QKV
    node = f"Attention <q_num_heads = 4, kv_num_heads = 4> ({', '.join(shapes)})"
    graph, given = model(node, kind, shapes), feeds(shapes, kind)
    actual = run(graph, given)
    expected = attended(given, 4, kind, given["mask"].astype(np.float64) if masked else None)
    assert_rounded_once(actual, expected, kind)
    if kind == "float":
        np.testing.assert_allclose(actual, onnxruntimes(graph, given), rtol=0, atol=1e-5)


def test_a_row_that_sees_nothing_is_zero() -> None:
    graph = model("Attention <q_num_heads = 4, kv_num_heads = 4> (q, k, v, mask)", "float", {**QKV, "mask": (7, 11)})
    given = {**feeds(QKV, "float"), "mask": np.zeros((7, 11), np.float32)}
    given["mask"][3] = -np.inf
    actual = run(graph, given)
    assert (actual[:, 3] == 0).all() and (actual[:, 2] != 0).all()


@pytest.mark.parametrize("attributes", ["q_num_heads = 4, kv_num_heads = 2", "q_num_heads = 2, kv_num_heads = 2"])
@pytest.mark.parametrize("causal", [0, 1])
def test_other_attentions(attributes: str, causal: int) -> None:
    """Shared keys are taken as they are; what is causal goes to onnx's own operator."""
    shapes = (
        {"q": (1, 7, 24), "k": (1, 7, 12), "v": (1, 7, 12)} if "= 4" in attributes else dict.fromkeys("qkv", (1, 7, 24))
    )
    graph = model(f"Attention <{attributes}, is_causal = {causal}> (q, k, v)", "float", shapes)
    given = feeds(shapes, "float")
    np.testing.assert_allclose(run(graph, given), onnxruntimes(graph, given), rtol=0, atol=1e-5)


# Convolutions

CONVOLUTIONS = {
    "patches": ("kernel_shape = [1, 2, 2], strides = [1, 2, 2]", (1, 4, 3, 6, 8), (6, 4, 1, 2, 2)),
    "frames": ("kernel_shape = [3, 3, 3], pads = [0, 1, 1, 0, 1, 1]", (1, 4, 5, 6, 7), (6, 4, 3, 3, 3)),
    "groups": ("group = 2, pads = [2, 1, 0, 1], dilations = [2, 1]", (2, 4, 9, 7), (6, 2, 3, 3)),
    "one axis": ("strides = [2]", (2, 4, 9), (6, 4, 3)),
    "same": ('auto_pad = "SAME_UPPER"', (1, 4, 9, 7), (6, 4, 3, 3)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str) -> None:
    """Against ONNX Runtime; in 16 bits it is that, rounded."""
    attributes, pixels, weights = CONVOLUTIONS[case]
    shapes = {"x": pixels, "w": weights, "b": weights[:1]}
    graph, given = model(f"Conv <{attributes}> (x, w, b)", "float", shapes), feeds(shapes, "bfloat16")
    exact = onnxruntimes(graph, {name: array.astype(np.float32) for name, array in given.items()})
    np.testing.assert_allclose(
        run(graph, {name: array.astype(np.float32) for name, array in given.items()}), exact, rtol=0, atol=1e-5
    )
    narrow = run(model(f"Conv <{attributes}> (x, w, b)", "bfloat16", shapes), given)
    assert_rounded_once(narrow, exact.astype(np.float64), "bfloat16")


# Codes


@pytest.mark.parametrize("kind", ["float", "bfloat16"])
def test_int8_is_rounded_from_float32(kind: str) -> None:
    """The quotient is not rounded to bfloat16 first, which would round twice."""
    x = np.linspace(-200, 200, 4001).astype(TYPES[kind])
    scale = np.array(1.07, TYPES[kind])
    graph = parse(f"g ({kind}[n] x, {kind} s, int8 z) => (int8[n] y) {{ y = QuantizeLinear (x, s, z) }}", shapes=False)
    exact = np.rint(x.astype(np.float32) / scale.astype(np.float32))
    actual = run(graph, {"x": x, "s": scale, "z": np.array(0, np.int8)})
    np.testing.assert_array_equal(actual, np.clip(exact, -128, 127).astype(np.int8))


def test_fp8_saturates() -> None:
    text = "g (float[n] x, float s) => (float8e4m3fn[n] y) { y = QuantizeLinear <output_dtype = 17> (x, s) }"
    x = np.array([0.3, -1000, 1000, 447, 17.3], np.float32)
    actual = run(parse(text, shapes=False), {"x": x, "s": np.array(1, np.float32)})
    np.testing.assert_array_equal(actual.astype(np.float32), [0.3125, -448, 448, 448, 18])


@pytest.mark.parametrize(("codes", "dtype"), [("int8", np.int8), ("float8e4m3fn", ml_dtypes.float8_e4m3fn)])
def test_codes_go_back_to_the_type_of_their_scales(codes: str, dtype: Any) -> None:
    """By row."""
    text = f"g ({codes}[3, 4] x, bfloat16[3] s) => (bfloat16[3, 4] y) {{ y = DequantizeLinear <axis = 0> (x, s) }}"
    x = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    scales = np.array([0.3, 1, 7], ml_dtypes.bfloat16)
    exact = x.astype(np.float32) * scales.astype(np.float32)[:, None]
    actual = run(parse(text, shapes=False), {"x": x, "s": scales})
    np.testing.assert_array_equal(actual, exact.astype(ml_dtypes.bfloat16))


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    """Which BLAS does not promise of small products."""
    shapes = {"x": (1, 40, 48), "w": (48, 20)}
    given = feeds(shapes, "float")
    graph = model("MatMul (x, w)", "float", {"x": (1, "n", 48), "w": (48, 20)})
    whole = run(graph, given)
    for rows in range(1, 40):
        np.testing.assert_array_equal(run(graph, {**given, "x": given["x"][:, :rows]}), whole[:, :rows])
