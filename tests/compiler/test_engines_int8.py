"""Integer kernels of ONNX Runtime in place of Q/DQ: text out, what is executed, and that the numbers are the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from wanc.calibration.schemes import InputFormat
from wanc.calibration.weights import round_to_nearest
from wanc.compiler.engines.onnxruntime.int8 import INTEGERS
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.passes.apply import apply_passes

from .passes.builder import assert_same, parse, text

SIZES = ({"n": 1}, {"n": 33})
# Both sides add the same integers and scale them once; float32 rounds the products of the plain side one by one.
TOLERANCE = 1e-5
BIAS = "t = Transpose <perm = [1, 0]> (a.to_q.weight) p = MatMul (x, t) y = Add (p, b)"
ALONE = "t = Transpose <perm = [1, 0]> (a.to_q.weight) y = MatMul (x, t)"


def quantised(
    body: str, *, rounded: InputFormat | None = "int8", group: int | None = None, inputs: str = ""
) -> ir.Model:
    """A model whose Linears are quantised, with inputs that are `rounded`; `inputs` are those that it has besides."""
    weights = "float[48, 64] a.to_q.weight, float[48, 64] a.to_k.weight"
    model = parse(
        f"g (float[1, n, 64] x, {weights}{inputs}) => (float[1, n, 48] y) {{ {body} }}",
        "a.to_q.weight",
        "a.to_k.weight",
    )
    decisions: dict[str, StoredDecision] = {}
    for seed, name in enumerate(("a.to_q", "a.to_k")):
        if f"{name}.weight".replace(".", "__") in body.replace(".", "__"):
            weight = np.random.default_rng(seed).normal(size=(48, 64)).astype(np.float32)
            codes = round_to_nearest(weight, levels=127, group=group)
            scales = codes.scales if group else codes.scales[:, 0]
            step = 0.02 if rounded == "int8" else None
            decisions[name] = StoredDecision(ir.tensor(codes.values), ir.tensor(scales), group, rounded, step)
    insert_quantizers(model, decisions)
    return model


def lowered(model: ir.Model) -> list[str]:
    before = model.clone()
    apply_passes(model, [INTEGERS], where="test")
    assert_same(before, model, *SIZES, tolerance=TOLERANCE)
    return text(model)


@pytest.mark.parametrize(
    ("body", "inputs", "arguments"),
    [(ALONE, "", ""), (BIAS, ", float[48] b", ", , b")],
    ids=["alone", "with a bias"],
)
def test_a_product_of_two_rounded_matrices_is_one_kernel(body: str, inputs: str, arguments: str) -> None:
    """Inputs of up to 4 are clipped at 2.54; the middle of uint8 stands for 0."""
    assert lowered(quantised(body, inputs=inputs)) == [
        "v0 = QuantizeLinear(x, 0.02, 128)",
        "v1 = Transpose(int8[48, 64], perm=[1, 0])",
        f"y = com.microsoft.MatMulIntegerToFloat(v0, v1, 0.02, float[48], 128{arguments})",
    ]


@pytest.mark.parametrize(
    ("body", "inputs", "arguments"),
    [(ALONE, "", ""), (BIAS, ", float[48] b", ", , b")],
    ids=["alone", "with a bias"],
)
def test_an_input_whose_range_is_found_anew_is_as_good(body: str, inputs: str, arguments: str) -> None:
    assert lowered(quantised(body, rounded="uint8", inputs=inputs)) == [
        "v0, v1, v2 = DynamicQuantizeLinear(x)",
        "v3 = Transpose(int8[48, 64], perm=[1, 0])",
        f"y = com.microsoft.MatMulIntegerToFloat(v0, v3, v1, float[48], v2{arguments})",
    ]


@pytest.mark.parametrize("rounded", ["int8", "uint8"])
def test_linears_of_one_input_are_all_integer(rounded: InputFormat) -> None:
    body = (
        f"{ALONE.replace('y =', 'q =')} u = Transpose <perm = [1, 0]> (a.to_k.weight) k = MatMul (x, u) y = Add (q, k)"
    )
    lines = lowered(quantised(body, rounded=rounded))
    assert sum("MatMulIntegerToFloat" in line for line in lines) == 2
    assert sum("DynamicQuantizeLinear" in line for line in lines) == (rounded == "uint8")
    assert [line for line in lines if "DequantizeLinear" in line or " = MatMul(" in line] == []


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        (lambda: quantised(ALONE, rounded=None), 1),
        (lambda: quantised(ALONE, group=16), 2),
        (lambda: quantised(ALONE, rounded="uint8", group=16), 2),
        (lambda: quantised(ALONE, rounded=None, group=16), 1),
    ],
    ids=["of the weight alone", "in blocks", "dynamic, in blocks", "the weight alone in blocks"],
)
def test_what_has_no_such_kernel_stays(model, kept: int) -> None:
    lines = lowered(model())
    assert sum("DequantizeLinear" in line for line in lines) == kept
    assert any(" = MatMul(" in line for line in lines)


def test_what_is_added_in_another_shape_is_no_bias() -> None:
    model = quantised(BIAS, inputs=", float[1] b")
    assert any(line.startswith("y = Add(") for line in lowered(model))


def test_a_zero_point_is_no_case_for_it() -> None:
    model = quantised(ALONE)
    zero = model.graph.initializers["a.to_q.input.zero"]
    zero.const_value = ir.tensor(np.array(3, np.int8), name=zero.name)
    assert [line for line in lowered(model) if "MatMulIntegerToFloat" in line] == []
