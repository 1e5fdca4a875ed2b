"""Zeros around the input of a convolution become its own padding."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.passes import convolution

from .builder import apply, assert_same, parse, text

SIZES = ({"h": 3}, {"h": 6})


def written(
    pads: str, *, pad: str = "", conv: str = "", value: str = "0.0", conv_inputs: str = "padded, w, b"
) -> ir.Model:
    return parse(
        f"""g (float[1, 2, h, 5] x, float[3, 2, 3, 3] w, float[3] b) => (float[1, 3, a, c] y) {{
            pads = Constant <value_ints = {pads}> ()  value = Constant <value = float {{{value}}}> ()
            padded = Pad {pad} (x, pads, value)  y = Conv {conv} ({conv_inputs}) }}""",
        "w",
        "b",
    )


@pytest.mark.parametrize(
    ("pads", "conv", "expected"),
    [
        ("[0, 0, 1, 1, 0, 0, 1, 1]", "", "[1, 1, 1, 1]"),
        ("[0, 0, 2, 0, 0, 0, 0, 1]", "", "[2, 0, 0, 1]"),  # as a causal convolution has it
        ("[0, 0, 1, 2, 0, 0, 3, 4]", "<pads = [1, 0, 0, 1], strides = [2, 1]>", "[2, 2, 3, 5]"),
        ("[0, 0, 1, 0, 0, 0, 1, 0]", "<group = 1, dilations = [1, 2]>", "[1, 0, 1, 0]"),
    ],
)
def test_padding_is_absorbed(pads: str, conv: str, expected: str) -> None:
    model = written(pads, conv=conv)
    before = model.clone()
    assert apply(model, convolution.PASS.apply).fired
    (line,) = text(model)
    assert line.startswith("y = Conv(x, w, b") and f"pads={expected}" in line
    assert_same(before, model, *SIZES)


def test_a_convolution_that_pads_by_itself() -> None:
    model = parse(
        """g (float[1, 2, 6, 5] x, float[3, 2, 3, 3] w) => (float[1, 3, 6, 5] y) {
            y = Conv <auto_pad = "SAME_UPPER"> (x, w) }""",
        "w",
    )
    before = model.clone()
    apply(model, convolution.PASS.apply)
    assert_same(before, model)


@pytest.mark.parametrize(
    "changed",
    [
        {"pads": "[0, 0, 1, 1, 0, 0, 1, 1]", "pad": '<mode = "edge">'},
        {"pads": "[0, 0, 1, 1, 0, 0, 1, 1]", "pad": '<mode = "reflect">'},
        {"pads": "[0, 0, 1, 1, 0, 0, 1, 1]", "value": "0.5"},
        {"pads": "[0, 0, -1, 0, 0, 0, 0, 1]"},  # which cuts off
        {"pads": "[1, 0, 0, 0, 0, 0, 0, 0]"},  # another picture in front
    ],
)
def test_other_padding_stays(changed: dict[str, str]) -> None:
    model = written(**changed)
    model.graph.outputs[0].shape = None
    before = model.clone()
    apply(model, convolution.PASS.apply)
    assert text(model) == text(before)
    assert_same(before, model, {"h": 6})


def test_padding_that_is_not_zero_because_it_is_computed_stays() -> None:
    model = parse(
        """g (float[1, 2, h, 5] x, float[3, 2, 3, 3] w, int64[8] pads) => (float[1, 3, a, c] y) {
            padded = Pad (x, pads)  y = Conv (padded, w) }""",
        "w",
    )
    assert apply(model, convolution.PASS.apply).fired == 0


def test_padded_input_that_something_else_uses_keeps_its_padding() -> None:
    model = parse(
        """g (float[1, 3, h, 5] x, float[3, 3, 3, 3] w) => (float[1, 3, h, 5] y, float[1, 3, a, 7] padded) {
            pads = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> ()  padded = Pad (x, pads)
            y = Conv (padded, w) }""",
        "w",
    )
    before = model.clone()
    apply(model, convolution.PASS.apply)
    assert_same(before, model, *SIZES)
