"""Wide feed-forward networks as sums over slices: text out, what they compute, and their Linears one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.calibration.schemes import rounded_inputs
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.slices import SLICE, WIDEST, SlicedFeedForward, slices
from wanc.compiler.passes.rewrite import rewriting
from wanc.runtime.backends.openvino import core

from .fusing import relative_error
from .passes.builder import apply, assert_same, parse, refused, text
from .quantised import STEP, compiled, quantise
from .weighted import Array

WIDTH, MIDDLE = 16, 9216
SHAPES = {"ffn.up": (MIDDLE, WIDTH), "ffn.down": (WIDTH, MIDDLE)}
# OpenVINO multiplies by the inverse of a step, so that an input in the middle between two codes may become the other.
TOLERANCE = 1e-3


def feed_forward(middle: int = MIDDLE, **other: str) -> ir.Model:
    """x [1, n, 16] → y [1, n, 16], quantised; `other` are lines in place of those that stand here."""
    lines = {
        "step": "step = Constant <value = float {0.03}> () zero = Constant <value = int8 {0}> ()",
        "d": "d = DequantizeLinear <axis = 0> (c, s) t = Transpose <perm = [1, 0]> (d)",
        "a": "m = MatMul (x, t) a = Add (m, b)",
        "g": 'g = Gelu <approximate = "tanh"> (a)',
        "f": "q = QuantizeLinear (g, step, zero) f = DequantizeLinear (q, step, zero)",
        "d2": "d2 = DequantizeLinear <axis = 0> (c2, s2) t2 = Transpose <perm = [1, 0]> (d2)",
        "y": "m2 = MatMul (f, t2) y = Add (m2, b2)",
    }
    return parse(
        f"g (float[1, n, 16] x, int8[{middle}, 16] c, float[{middle}] s, float[{middle}] b, int8[16, {middle}] c2,"
        f" float[16] s2, float[16] b2) => (float[1, n, 16] y) {{ {' '.join((lines | other).values())} }}"
    )


SLICES = """\
v0 = Mul(b2, 0.5)
v1 = Slice(c, [0], [4608], [0])
v2 = Slice(s, [0], [4608], [0])
v3 = Slice(b, [0], [4608], [0])
v4 = DequantizeLinear(v1, v2, axis=0)
v5 = Transpose(v4, perm=[1, 0])
v6 = MatMul(x, v5)
v7 = Add(v6, v3)
v8 = Gelu(v7, approximate=tanh)
v9 = QuantizeLinear(v8, 0.03, 0)
v10 = DequantizeLinear(v9, 0.03, 0)
v11 = Slice(c2, [0], [4608], [1])
v12 = DequantizeLinear(v11, s2, axis=0)
v13 = Transpose(v12, perm=[1, 0])
v14 = MatMul(v10, v13)
v15 = Add(v14, v0)
v16 = Slice(c, [4608], [9216], [0])
v17 = Slice(s, [4608], [9216], [0])
v18 = Slice(b, [4608], [9216], [0])
v19 = DequantizeLinear(v16, v17, axis=0)
v20 = Transpose(v19, perm=[1, 0])
v21 = MatMul(x, v20)
v22 = Add(v21, v18)
v23 = Gelu(v22, approximate=tanh)
v24 = QuantizeLinear(v23, 0.03, 0)
v25 = DequantizeLinear(v24, 0.03, 0)
v26 = Slice(c2, [4608], [9216], [1])
v27 = DequantizeLinear(v26, s2, axis=0)
v28 = Transpose(v27, perm=[1, 0])
v29 = MatMul(v25, v28)
v30 = Add(v29, v0)
y = Add(v15, v30)"""


def test_the_sum_over_slices() -> None:
    model = feed_forward()
    assert apply(model, rewriting(SlicedFeedForward)).fired == 1
    assert text(model) == SLICES.splitlines()
    assert_same(feed_forward(), model, {"n": 1}, {"n": 5})


@pytest.mark.parametrize(
    ("columns", "count"),
    [(WIDEST, 1), (8960, 2), (9216, 2), (13824, 3), (WIDEST + 64, 73), (WIDEST + 1, 1)],
)
def test_the_fewest_slices_of_whole_blocks(columns: int, count: int) -> None:
    assert slices(columns) == count
    assert count == 1 or (columns // count <= WIDEST and columns % (64 * count) == 0)


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        (feed_forward(WIDEST), []),
        (feed_forward(9217), ["9217 columns have no even slices"]),
        (feed_forward(g="g = Relu (a)"), []),
        (feed_forward(f="f = Identity (g)"), []),
        (feed_forward(y="m2 = MatMul (f, t2) y0 = Add (m2, b2) g0 = ReduceMean (g) y = Add (y0, g0)"), []),
    ],
    ids=["narrow", "no even slices", "not Gelu", "in float", "what is between is used elsewhere"],
)
def test_what_is_left_alone(model: ir.Model, reasons: list[str]) -> None:
    assert refused(model, SlicedFeedForward) == reasons


def rows(count: int, width: int) -> Array:
    return np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)


def test_a_sliced_linear_gives_rows_times_all_of_its_codes(tmp_path: Path) -> None:
    """One has its rows in slices, the other its columns."""
    names = [f"{name}.{kind}" for name in SHAPES for kind in ("weight", "bias")]
    model = parse(
        f"g (float[1, n, {WIDTH}] x, float[{MIDDLE}, {WIDTH}] ffn.up.weight, float[{MIDDLE}] ffn.up.bias,"
        f" float[{WIDTH}, {MIDDLE}] ffn.down.weight, float[{WIDTH}] ffn.down.bias) => (float[1, n, {WIDTH}] y) {{"
        " t = Transpose <perm = [1, 0]> (ffn.up.weight) m = MatMul (x, t) a = Add (m, ffn.up.bias) g = Gelu (a)"
        " t2 = Transpose <perm = [1, 0]> (ffn.down.weight) m2 = MatMul (g, t2) y = Add (m2, ffn.down.bias) }",
        *names,
    )
    codes = quantise(model, SHAPES)
    compiler = OpenVinoCompiler("fp32", ())
    path = compiled(compiler, model, tmp_path)
    assert sum(SLICE in node.get_friendly_name() for node in core().read_model(path).get_ops()) >= 2 * len(SHAPES)
    for name, (_, columns) in SHAPES.items():
        outputs = compiler.prober(path).run(name, rows(33, columns))
        assert outputs is not None
        expected = rounded_inputs(rows(33, columns), "int8", STEP["int8"]) @ codes[name].weights().T
        assert relative_error(outputs, expected) <= TOLERANCE
