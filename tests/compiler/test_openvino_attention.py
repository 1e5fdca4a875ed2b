"""Attention written out as products: text out, the same numbers, and one kernel."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from wanc.compiler.engines.openvino.attention import write_out
from wanc.compiler.passes.rewrite import Refusal
from wanc.runtime.backends.openvino import core

from .passes.builder import apply, assert_same, parse, text, with_noise

N = {"n": 5, "m": 3}
NORM = "qn = RMSNormalization <axis = -1, epsilon = 1e-6> (q, s)"
ROTATE = """
    qr = RotaryEmbedding <interleaved = 0, num_heads = 2> (qn, cos, sin)
    kr = RotaryEmbedding <interleaved = 0, num_heads = 2> (k, cos, sin)
"""
SELF = f"{NORM} {ROTATE} y = Attention <q_num_heads = 2, kv_num_heads = 2> (qr, kr, v)"
CROSS = f"{NORM} y = Attention <q_num_heads = 2, kv_num_heads = 2, scale = 0.5> (qn, k, v)"
CODES = (
    "step = Constant <value = float {0.25}> () zero = Constant <value = int8 {0}> () c = QuantizeLinear (a, step, zero)"
)
MORE = "the attention does more, or on other axes"
NO_NORM = "the queries come from no norm of their own"
ROUNDED = f"{CROSS.replace('y =', 'a =')} {CODES} y = DequantizeLinear (c, step, zero)"


def model_of(body: str, keys: str = "m", weight: str = "float[1] weight") -> ir.Model:
    """Queries, keys and values in two heads of 8, 8 and 12."""
    return parse(
        f"g (float[1, n, 16] q, float[1, {keys}, 16] k, float[1, {keys}, 24] v, float[1, n, 4] cos,"
        f" float[1, n, 4] sin, float[16] s, float[n, {keys}] mask, {weight}) => (float[1, n, 24] y) {{ {body} }}",
        "weight",
    )


def test_rotated_with_the_heads_first_and_the_scale_in_the_norm() -> None:
    model = model_of(SELF, "n")
    assert apply(model, write_out).fired == 1
    assert text(model) == [
        "v0 = Mul(s, 0.3535534)",
        "v1 = RMSNormalization(q, v0, axis=-1, epsilon=1e-06)",
        "v2 = Reshape(k, [0,0,2,-1])",
        "v3 = Transpose(v2, perm=[0, 2, 1, 3])",
        "v4 = RotaryEmbedding(v3, cos, sin, interleaved=0)",
        "v5 = Transpose(v4, perm=[0, 1, 3, 2])",
        "v6 = Reshape(v1, [0,0,2,-1])",
        "v7 = Transpose(v6, perm=[0, 2, 1, 3])",
        "v8 = RotaryEmbedding(v7, cos, sin, interleaved=0)",
        "v9 = MatMul(v8, v5)",
        "v10 = Softmax(v9, axis=-1)",
        "v11 = Reshape(v, [0,0,2,-1])",
        "v12 = Transpose(v11, perm=[0, 2, 1, 3])",
        "v13 = MatMul(v10, v12)",
        "v14 = Transpose(v13, perm=[0, 2, 1, 3])",
        "y = Reshape(v14, [0,0,-1])",
    ]
    assert_same(model_of(SELF, "n"), model, N)


def test_rounded_before_the_heads_are_joined() -> None:
    model = model_of(ROUNDED)
    assert apply(model, write_out).fired == 1
    assert text(model)[-5:] == [
        "v11 = MatMul(v8, v10)",
        "v12 = QuantizeLinear(v11, 0.25, 0)",
        "v13 = DequantizeLinear(v12, 0.25, 0)",
        "v14 = Transpose(v13, perm=[0, 2, 1, 3])",
        "y = Reshape(v14, [0,0,-1])",
    ]
    assert_same(model_of(ROUNDED), model, N)


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (ROUNDED.replace("y =", "b =") + " y = Add (a, b)", "m"),
        (ROUNDED.replace("y =", "b =") + " d = DequantizeLinear (c, step, zero) y = Add (b, d)", "m"),
        (SELF.replace("y =", "a =") + " u = ReduceMean <keepdims = 1> (kr) y = Mul (a, u)", "n"),
    ],
    ids=["float", "codes", "a rotation"],
)
def test_what_something_else_uses_as_well_stays_where_it_is(body: str, keys: str) -> None:
    model = model_of(body, keys)
    assert apply(model, write_out).fired == 1
    assert "Attention" not in {node.op_type for node in model.graph}
    assert_same(model_of(body, keys), model, N)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("(qr, kr, v)", "(qr, kr, v, mask)", MORE),
        ("kv_num_heads = 2>", "kv_num_heads = 2, is_causal = 1>", MORE),
        ("kv_num_heads = 2>", "kv_num_heads = 2, softcap = 9.0>", MORE),
        ("RMSNormalization <axis = -1, epsilon = 1e-6> (q, s)", "Identity (q)", NO_NORM),
        ("(qr, kr, v)", "(qr, qr, v)", NO_NORM),
    ],
    ids=["mask", "causal", "softcap", "no norm", "queries that are the keys as well"],
)
def test_what_is_not_plain_is_left_alone(old: str, new: str, reason: str) -> None:
    assert old in SELF
    model = model_of(SELF.replace(old, new), "n")
    before = text(model)
    outcome = write_out(model)
    assert outcome.refusals == [Refusal("y", reason)]
    assert (outcome.fired, text(model)) == (0, before)


def test_a_scale_that_is_lost_is_noticed() -> None:
    model = model_of(CROSS)
    apply(model, write_out)
    norm = next(node for node in model.graph if node.op_type == "RMSNormalization")
    norm.replace_input_with(1, model.graph.inputs[5])
    with pytest.raises(AssertionError):
        assert_same(model_of(CROSS), model, N)


def test_one_kernel_does_it_all_and_gives_codes(tmp_path: Path) -> None:
    """The kernel that OpenVINO generates takes keys and values as they lie, and rounds at its end."""
    body = f"{ROUNDED.replace('y =', 'd =')} w = DequantizeLinear (codes, step) y = MatMul (d, w)"
    model = model_of(body.replace("codes", "weight"), weight="int8[24, 24] weight")
    write_out(model)
    path = tmp_path / "model.onnx"
    ir.save(with_noise(model), path)
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kernels = [tuple(str(info[key].astype(str)) for key in ("layerType", "outputPrecisions")) for info in infos]
    assert ("Subgraph", "i8") in kernels
    assert not {kernel for kernel, _ in kernels} & {"Softmax", "FakeQuantize", "MatMul"}
