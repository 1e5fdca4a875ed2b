"""Q/DQ in the canonical graph: text out, and what it computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes import common

from wanc.calibration.weights import Codes, round_to_nearest
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers

from .passes.builder import parse, text

STEP = 0.05


def noise(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


WEIGHTS = {"a.to_q": noise(6, 8, seed=0), "a.to_k": noise(5, 8, seed=1)}
MODEL = """g (float[n, 8] x, float[6, 8] a.to_q.weight, float[5, 8] a.to_k.weight, float[6] b)
 => (float[n, 6] q, float[n, 5] k) {
 t = Transpose <perm = [1, 0]> (a.to_q.weight) p = MatMul (x, t) q = Add (p, b)
 u = Transpose <perm = [1, 0]> (a.to_k.weight) k = MatMul (x, u) }"""


def model() -> ir.Model:
    return parse(MODEL, "a.to_q.weight", "a.to_k.weight")


def decision(codes: Codes, dtype: ir.DataType = ir.DataType.INT8, *, step: float | None = STEP) -> StoredDecision:
    blocks = codes.scales.shape[1] > 1
    values = ir.tensor(codes.values) if dtype == ir.DataType.INT8 else ir.Tensor(codes.values.astype("int4"), dtype)
    scales = codes.scales if blocks else codes.scales[:, 0]
    return StoredDecision(values, ir.tensor(scales), codes.group if blocks else None, "int8" if step else None, step)


def evaluated(changed: ir.Model, x: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    common.RemoveUnusedNodesPass()(changed)
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto, full_check=True)
    return ReferenceEvaluator(proto).run(None, {"x": x, "b": b})


def rounded(values: np.ndarray) -> np.ndarray:
    return (np.clip(np.rint(values / np.float32(STEP)), -128, 127) * np.float32(STEP)).astype(np.float32)


def test_linears_of_one_input_share_its_pair() -> None:
    changed = model()
    codes = {name: round_to_nearest(weight, levels=127) for name, weight in WEIGHTS.items()}
    assert insert_quantizers(changed, {name: decision(entry) for name, entry in codes.items()}) == 2
    x, b = noise(7, 8, seed=2), noise(6, seed=3)
    q, k = evaluated(changed, x, b)
    np.testing.assert_allclose(q, rounded(x) @ codes["a.to_q"].weights().T + b, atol=1e-5)
    np.testing.assert_allclose(k, rounded(x) @ codes["a.to_k"].weights().T, atol=1e-5)
    operators = [node.op_type for node in changed.graph]
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") == 3
    assert [name for name in changed.graph.initializers if name.endswith(".weight")] == []


def test_the_pair_stands_before_the_first_product() -> None:
    changed = model()
    insert_quantizers(changed, {"a.to_q": decision(round_to_nearest(WEIGHTS["a.to_q"], levels=127))})
    common.RemoveUnusedNodesPass()(changed)
    names = [line.split(" = ")[1].split("(")[0] for line in text(changed)]
    assert names == [
        "DequantizeLinear", "Transpose", "QuantizeLinear", "DequantizeLinear", "MatMul", "Add", "Transpose", "MatMul",
    ]  # fmt: skip


def test_other_scales_have_pairs_of_their_own() -> None:
    changed = model()
    codes = {name: round_to_nearest(weight, levels=127) for name, weight in WEIGHTS.items()}
    insert_quantizers(changed, {"a.to_q": decision(codes["a.to_q"]), "a.to_k": decision(codes["a.to_k"], step=0.5)})
    assert [node.op_type for node in changed.graph].count("QuantizeLinear") == 2


@pytest.mark.parametrize("levels", [127, 7])
def test_weights_alone_in_blocks(levels: int) -> None:
    changed = model()
    codes = round_to_nearest(WEIGHTS["a.to_k"], levels=levels, group=4)
    dtype = ir.DataType.INT8 if levels == 127 else ir.DataType.INT4
    insert_quantizers(changed, {"a.to_k": decision(codes, dtype, step=None)})
    for name in ("a.to_q.weight",):
        changed.graph.initializers[name].const_value = ir.tensor(WEIGHTS["a.to_q"], name=name)
    x, b = noise(7, 8, seed=2), noise(6, seed=3)
    q, k = evaluated(changed, x, b)
    np.testing.assert_allclose(q, x @ WEIGHTS["a.to_q"].T + b, atol=1e-5)
    np.testing.assert_allclose(k, x @ codes.weights().T, atol=1e-5)
    assert "QuantizeLinear" not in [node.op_type for node in changed.graph]


def test_a_weight_that_lies_the_other_way_round() -> None:
    """[in, out], as foreign graphs have it: its results are along axis 1."""
    changed = parse("g (float[n, 8] x, float[8, 6] w) => (float[n, 6] y) { y = MatMul (x, w) }", "w")
    codes = round_to_nearest(WEIGHTS["a.to_q"], levels=127)
    turned = StoredDecision(ir.tensor(np.ascontiguousarray(codes.values.T)), ir.tensor(codes.scales[:, 0]))
    insert_quantizers(changed, {"w": turned})
    common.RemoveUnusedNodesPass()(changed)
    x = noise(7, 8, seed=2)
    (y,) = ReferenceEvaluator(ir.to_proto(changed)).run(None, {"x": x})
    np.testing.assert_allclose(y, x @ codes.weights().T, atol=1e-5)


def test_a_decision_about_no_linear_is_noticed() -> None:
    with pytest.raises(KeyError, match=r"a\.to_v"):
        insert_quantizers(model(), {"a.to_v": decision(round_to_nearest(WEIGHTS["a.to_q"], levels=127))})
