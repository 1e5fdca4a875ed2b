"""Rotations of pairs become rotations of halves, with the projections' rows sorted to match."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from wanc.calibration.schemes import SCHEMES
from wanc.calibration.weights import round_to_nearest
from wanc.compiler.engines.openvino.halves import sort_halves
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.passes.fold import remove_unused

HEADS, WIDTH, TOKENS = 2, 12, 5
HALF = WIDTH // HEADS // 2
# The same products and sums in another order.
TOLERANCE = 1e-6

PROJECTION = """
{0}t = Transpose <perm = [1, 0]> ({0}w) {0}m = MatMul (x, {0}t) {0}a = Add ({0}m, {0}b)
{0}n = RMSNormalization <axis = -1, epsilon = 1e-6> ({0}a, {0}s)
{0}r = RotaryEmbedding <interleaved = 1, num_heads = 2> ({0}n, cos, sin)
"""
ATTEND = "v = MatMul (x, vw) y = Attention <q_num_heads = 2, kv_num_heads = 2> (qr, kr, v)"


def model_of(body: str) -> ir.Model:
    parameters = ", ".join(f"float[12, 8] {n}w, float[12] {n}b, float[12] {n}s" for n in "qk")
    text = (
        f'<ir_version: 11, opset_import: ["" : 23]> g (float[1, tokens, 8] x, float[1, tokens, 3] cos,'
        f" float[1, tokens, 3] sin, float[8, 12] vw, {parameters}) => (float[1, tokens, 12] y) {{ {body} }}"
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))


def run(model: ir.Model) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    sizes = {
        entry.name: [size if isinstance(size, int) else TOKENS for size in entry.shape]
        for entry in session.get_inputs()
    }
    return session.run(None, {name: random.normal(size=shape).astype(np.float32) for name, shape in sizes.items()})[0]


def interleaved(model: ir.Model) -> list[int]:
    return [node.attributes["interleaved"].as_int() for node in model.graph if node.op_type == "RotaryEmbedding"]


def test_queries_and_keys_are_sorted_together() -> None:
    model = model_of(PROJECTION.format("q") + PROJECTION.format("k") + ATTEND)
    before = run(model)
    outcome = sort_halves(model)
    assert (outcome.fired, outcome.refusals) == (1, [])
    assert interleaved(model) == [0, 0]
    assert np.linalg.norm(run(model) - before) <= TOLERANCE * np.linalg.norm(before)


@pytest.mark.parametrize(("scheme", "group"), [("int8-weight", None), ("int8-weight", 4), ("fp8", None)])
def test_codes_are_sorted_with_their_scales(scheme: str, group: int | None) -> None:
    model = model_of(PROJECTION.format("q") + PROJECTION.format("k") + ATTEND)
    decisions = {name: quantization(scheme, group, seed) for seed, name in enumerate(("qw", "kw"))}
    for name in decisions:
        value = next(value for value in model.graph.inputs if value.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.zeros((WIDTH, 8), np.float32), name=name)
        model.graph.register_initializer(value)
    insert_quantizers(model, decisions)
    remove_unused(model)
    before = run(model)
    assert (sort_halves(model).fired, interleaved(model)) == (1, [0, 0])
    assert np.linalg.norm(run(model) - before) <= TOLERANCE * np.linalg.norm(before)


def quantization(scheme: str, group: int | None, seed: int) -> StoredDecision:
    """Of a projection's weight, without rounding inputs."""
    weight = np.random.default_rng(seed).normal(size=(WIDTH, 8)).astype(np.float32)
    codes = round_to_nearest(weight, levels=127, group=group) if group else SCHEMES[scheme].codes(weight)
    return StoredDecision(ir.tensor(codes.values), ir.tensor(codes.scales if group else codes.scales[:, 0]), group)


@pytest.mark.parametrize("parameter", ["w", "b", "s"])
def test_the_comparison_sees_a_parameter_that_is_not_sorted(parameter: str) -> None:
    model = model_of(PROJECTION.format("q") + PROJECTION.format("k") + ATTEND)
    before = run(model)
    sort_halves(model)
    users = {"w": ("Transpose", 0), "b": ("Add", 1), "s": ("RMSNormalization", 1)}
    op_type, index = users[parameter]
    original = next(value for value in model.graph.inputs if value.name == f"q{parameter}")
    sorted_users = [n for n in model.graph if n.op_type == op_type and not n.inputs[index].is_graph_input()]
    node = sorted_users[0] if op_type != "Transpose" else next(n for n in sorted_users if n.outputs[0].name == "qt")
    node.replace_input_with(index, original)
    assert np.linalg.norm(run(model) - before) > 1e-2 * np.linalg.norm(before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "kr = RotaryEmbedding <interleaved = 1",
            "kr = RotaryEmbedding <interleaved = 0",
        ),  # halves already, on one side
        ("(kn, cos, sin)", "(ka, cos, sin)"),  # no norm
        ("(x, kt) ka = Add (km, kb)", "(x, kt) ka = Add (kb, km)"),  # the bias in front: not canonical
        ("(qr, kr, v)", "(qr, qr, v)"),  # one for both
    ],
)
def test_what_cannot_be_sorted_on_both_sides_is_left_alone(old: str, new: str) -> None:
    body = PROJECTION.format("q") + PROJECTION.format("k") + ATTEND
    assert old in body
    model = model_of(body.replace(old, new))
    text = str(ir.to_proto(model))
    outcome = sort_halves(model)
    assert outcome.fired == 0
    assert [refusal.reason for refusal in outcome.refusals] == ["not Linear, norm and rotation on both sides"]
    assert str(ir.to_proto(model)) == text
