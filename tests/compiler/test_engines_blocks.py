"""Codes of weights alone, as each engine wants them: text out. What they compute is in test_engines_schemes.py."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.engines.onnxruntime.int8 import INTEGERS
from wanc.compiler.engines.onnxruntime.packed import PACKED
from wanc.compiler.engines.openvino.blocks import EVEN, EvenBlocks
from wanc.compiler.passes.apply import apply_passes

from .passes.builder import assert_same, parse, refused, text
from .quantised import linear

PER_ROW = "axis = 0"
BLOCKS = "axis = 1, block_size = 32"


def product(attributes: str, codes: str = "int8[48, 64] c", scales: str = "float[48] s", *, zero: str = "") -> ir.Model:
    """x · W, with W as codes behind a DequantizeLinear."""
    inputs = f"float[1, n, 64] x, {codes}, {scales}{zero and f', int8[48] {zero}'}"
    body = f"w = DequantizeLinear <{attributes}> (c, s{zero and f', {zero}'}) t = Transpose <perm = [1, 0]> (w)"
    weights = [name for name in ("c", "s", zero) if name]
    return parse(f"g ({inputs}) => (float[1, n, 48] y) {{ {body} y = MatMul (x, t) }}", *weights)


def packed(model: ir.Model) -> list[str]:
    apply_passes(model, [INTEGERS, PACKED], where="test")
    return text(model)


# ONNX Runtime


@pytest.mark.parametrize(("codes", "bits"), [("int8[48, 64] c", 8), ("int4[48, 64] c", 4)])
def test_a_row_with_one_scale_is_divided_into_blocks(codes: str, bits: int) -> None:
    assert packed(product(PER_ROW, codes)) == [
        f"v0 = wanc.Pack(c, bits={bits}, block_size=64)",
        "v1 = Reshape(s, [48,1])",
        "v2 = Gather(v1, [0], axis=1)",
        f"y = com.microsoft.MatMulNBits(x, v0, v2, K=64, N=48, accuracy_level=1, bits={bits}, block_size=64)",
    ]


@pytest.mark.parametrize(("codes", "bits"), [("int8[48, 64] c", 8), ("int4[48, 64] c", 4)])
def test_blocks_stay_what_they_are(codes: str, bits: int) -> None:
    assert packed(product(BLOCKS, codes, "float[48, 2] s")) == [
        f"v0 = wanc.Pack(c, bits={bits}, block_size=32)",
        f"y = com.microsoft.MatMulNBits(x, v0, s, K=64, N=48, accuracy_level=1, bits={bits}, block_size=32)",
    ]


@pytest.mark.parametrize(
    ("columns", "block", "count"), [(512, 256, 2), (1536, 256, 6), (160, 32, 5), (96, 32, 3), (40, 16, 3), (7, 16, 1)]
)
def test_the_largest_block_that_fits_is_taken(columns: int, block: int, count: int) -> None:
    """Below 16 columns there is none, and the last block is filled."""
    lines = packed(linear("int8-weight", columns, 4))
    assert f"block_size={block})" in lines[0]
    assert f"[{','.join('0' * count)}]" in lines[2]


@pytest.mark.parametrize(
    "model",
    [
        product(PER_ROW, zero="z"),
        product(PER_ROW, "float8e4m3fn[48, 64] c"),
        product("axis = 1", scales="float[64] s"),
        product("axis = 1, block_size = 8", scales="float[48, 8] s"),
        product("axis = 1, block_size = 24", scales="float[48, 3] s"),
        product("axis = 0, block_size = 16", scales="float[3, 64] s"),
    ],
    ids=["a zero point", "floats", "of columns", "small blocks", "of an odd size", "of rows"],
)
def test_what_has_no_packed_kernel_stays(model: ir.Model) -> None:
    assert [line for line in packed(model) if "Pack" in line or "NBits" in line] == []


# OpenVINO


@pytest.mark.parametrize(("columns", "finer", "order"), [(160, 32, "[0,0,0,0,1]"), (132, 4, "int64[33]")])
def test_blocks_are_divided_until_all_are_of_one_size(columns: int, finer: int, order: str) -> None:
    model = linear("int4-weight", columns, 16)
    before = model.clone()
    apply_passes(model, [EVEN], where="test")
    assert text(model)[:2] == [
        f"v0 = Gather(float[16, 2], {order}, axis=1)",
        f"v1 = DequantizeLinear(int4[16, {columns}], v0, axis=1, block_size={finer})",
    ]
    assert_same(before, model, {"n": 3})


@pytest.mark.parametrize("columns", [128, 256])
def test_blocks_of_one_size_stay(columns: int) -> None:
    model = linear("int4-weight", columns, 8)
    assert refused(model, EvenBlocks) == []


def test_rows_that_cannot_be_divided_are_told() -> None:
    assert refused(linear("int4-weight", 130, 8), EvenBlocks) == ["rows of 130 have no even blocks"]
