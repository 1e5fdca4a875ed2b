"""Videos as batches of frames, for ONNX Runtime: text in and out, and what it computes."""

from __future__ import annotations

import pytest
import torch

from wanc.compiler.engines.onnxruntime.frames import FRAMES_FIRST
from wanc.compiler.engines.onnxruntime.kernels import KERNELS
from wanc.compiler.passes.apply import apply_passes

from .passes.builder import apply, assert_close, assert_same, parse, run, text

# Convolutions


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3, 3), {"padding": (0, 1, 1)}),
        ((3, 1, 1), {}),
        ((1, 1, 1), {}),
        ((2, 3, 2), {"stride": (1, 2, 3)}),
        ((3, 3, 3), {"padding": (0, 2, 2), "dilation": (1, 2, 2)}),
        ((3, 3, 3), {"padding": (0, 1, 0), "groups": 2}),
    ],
    ids=["3x3x3", "3x1x1", "1x1x1", "strides", "dilations", "groups"],
)
def test_a_convolution_over_time_is_a_sum_over_frames(kernel: tuple[int, ...], options: dict, bias: bool) -> None:
    torch.manual_seed(0)
    module = torch.nn.Conv3d(4, 6, kernel, bias=bias, **options)
    frames = 5
    x = torch.randn(1, 4, frames, 8, 7)
    expected = module(x).detach().numpy()
    pads = [*module.padding, *module.padding]
    attributes = f"pads = {pads}, strides = {list(module.stride)}, dilations = {list(module.dilation)}"
    sizes = list(expected.shape)
    model = parse(
        f"g (float[1, 4, {frames}, 8, 7] x, float{list(module.weight.shape)} w{', float[6] b' if bias else ''})"
        f" => (float{sizes} y) {{ y = Conv <{attributes}, group = {module.groups}> (x, w{', b' if bias else ''}) }}"
    )
    apply(model, FRAMES_FIRST.apply)
    assert sum(" = Conv(" in line for line in text(model)) == kernel[0]
    feeds = {"x": x.numpy(), "w": module.weight.detach().numpy()}
    actual = run(model, feeds | ({"b": module.bias.detach().numpy()} if bias else {}))["y"]
    assert_close(actual, expected, 1e-5)  # other sums of up to 108 products


def test_each_tap_is_a_convolution_of_its_own_frames() -> None:
    """Frames become the batch; a tap sees those that it falls on, and the first one adds the bias."""
    model = parse(
        "g (float[1, 2, 4, h, w] x, float[3, 2, 3, 3, 3] k, float[3] b) => (float[1, 3, 2, h, w] y)"
        " { y = Conv <pads = [0, 1, 1, 0, 1, 1]> (x, k, b) }"
    )
    before = model.clone()
    apply(model, FRAMES_FIRST.apply)
    own = "dilations=[1, 1], group=1, pads=[1, 1, 1, 1], strides=[1, 1]"
    assert text(model) == [
        "v0 = Transpose(x, perm=[2, 1, 0, 3, 4])",
        "v1 = Squeeze(v0, [2])",
        "v2 = Gather(k, 0, axis=2)",
        "v3 = Slice(v1, [0], [2], [0])",
        f"v4 = Conv(v3, v2, b, {own})",
        "v5 = Gather(k, 1, axis=2)",
        "v6 = Slice(v1, [1], [3], [0])",
        f"v7 = Conv(v6, v5, {own})",
        "v8 = Add(v7, v4)",
        "v9 = Gather(k, 2, axis=2)",
        "v10 = Slice(v1, [2], [4], [0])",
        f"v11 = Conv(v10, v9, {own})",
        "v12 = Add(v11, v8)",
        "v13 = Unsqueeze(v12, [2])",
        "y = Transpose(v13, perm=[2, 1, 0, 3, 4])",
    ]
    assert_same(before, model, {"h": 5, "w": 4}, tolerance=1e-5)


def test_unequal_padding_stays_on_its_side() -> None:
    model = parse(
        "g (float[1, 2, 4, h, w] x, float[3, 2, 3, 3, 3] k) => (float[1, 3, 2, a, b] y)"
        " { y = Conv <pads = [0, 2, 0, 0, 1, 3]> (x, k) }"
    )
    before = model.clone()
    assert apply(model, FRAMES_FIRST.apply).fired == 1
    assert_same(before, model, {"h": 5, "w": 4}, {"h": 2, "w": 9}, tolerance=1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "attributes"),
    [
        ("1, 2, 4, 6, 6", "3, 2, 3, 3, 3", "pads = [1, 1, 1, 1, 1, 1]"),
        ("1, 2, 4, 6, 6", "3, 2, 3, 3, 3", "pads = [0, 1, 1, 1, 1, 1]"),
        ("1, 2, n, 6, 6", "3, 2, 3, 3, 3", "pads = [0, 1, 1, 0, 1, 1]"),
        ("2, 2, 4, 6, 6", "3, 2, 3, 3, 3", "pads = [0, 1, 1, 0, 1, 1]"),
        ("m, 2, 4, 6, 6", "3, 2, 3, 3, 3", "pads = [0, 1, 1, 0, 1, 1]"),
        ("1, 2, 5, 6, 6", "3, 2, 3, 3, 3", "strides = [2, 1, 1]"),
        ("1, 2, 5, 6, 6", "3, 2, 2, 3, 3", "dilations = [2, 1, 1]"),
        ("1, 2, 4, 6, 6", "3, 2, 3, 3, 3", 'auto_pad = "SAME_UPPER"'),
        ("1, 2, 6, 6", "3, 2, 3, 3", "pads = [1, 1, 1, 1]"),
    ],
    ids=[
        "padded in time",
        "padded in time at the end",
        "frames unknown",
        "a batch",
        "a batch of unknown size",
        "strides in time",
        "dilations in time",
        "padding computed",
        "no time",
    ],
)
def test_other_convolutions_are_left_alone(x: str, kernel: str, attributes: str) -> None:
    rank = len(x.split(","))
    result = ", ".join("abcde"[:rank])
    model = parse(f"g (float[{x}] x, float[{kernel}] k) => (float[{result}] y) {{ y = Conv <{attributes}> (x, k) }}")
    before = text(model)
    assert apply(model, FRAMES_FIRST.apply).fired == 0
    assert text(model) == before


# What stands between convolutions

SIZES = ({"h": 5, "w": 4}, {"h": 1, "w": 3})
CONV = "Conv <pads = [0, 1, 1, 0, 1, 1]>"


def lowered(body: str, inputs: str = "", frames: int = 2, outputs: str = "") -> list[str]:
    """Two convolutions with `body` between a and z; the lowering is shown to compute the same."""
    model = parse(
        f"g (float[1, 4, {frames + 2}, h, w] x, float[4, 4, 3, 3, 3] k, float[4, 4, 1, 3, 3] l{inputs})"
        f" => (float[1, 4, m, h2, w2] y{outputs}) {{ a = {CONV} (x, k) {body} y = {CONV} (z, l) }}"
    )
    before = model.clone()
    # Shapes are found first, as `fuse` leaves them.
    apply_passes(model, [KERNELS, FRAMES_FIRST], where="test")
    # Sums of up to 108 products, twice.
    assert_same(before, model, *SIZES, tolerance=1e-5)
    return text(model)


def swaps(lines: list[str]) -> int:
    """How often frames and channels change places."""
    return sum("Transpose" in line and "perm=[2, 1, 0, 3, 4]" in line for line in lines)


NORM = (
    "t = Transpose <perm = [0, 2, 3, 4, 1]> (a) n = RMSNormalization <axis = -1, epsilon = 1.0e-6> (t, s)"
    " z = Transpose <perm = [0, 4, 1, 2, 3]> (n)"
)


@pytest.mark.parametrize(
    ("body", "inputs", "changes"),
    [
        (f"z = {CONV} (a, l)", "", 2),
        ("g = Sigmoid (a) z = Mul (a, g)", "", 2),
        (NORM, ", float[4] s", 2),
        (f"b = {CONV} (a, l) z = Add (a, b)", "", 2),
        ("z = Concat <axis = 2> (c, a)", ", float[1, 4, 2, h, w] c", 3),
        ("b = Constant <value_ints = [1]> () e = Constant <value_ints = [9]> () d = Constant <value_ints = [2]> ()"
         " z = Slice (a, b, e, d)", "", 2),
    ],
    ids=["nothing", "silu", "a norm over channels", "a sum", "a cache", "a window"],
)  # fmt: skip
def test_frames_stay_frames_between_convolutions(body: str, inputs: str, changes: int) -> None:
    """What is left changes layout on the way in and on the way out, and for what comes from outside."""
    assert swaps(lowered(body, inputs)) == changes


def test_what_is_used_as_a_video_as_well_stays_one_for_that() -> None:
    lines = lowered("g = Sigmoid (a) z = Mul (a, g) s = Softmax <axis = 2> (a)", outputs=", float[1, 4, 2, h, w] s")
    assert swaps(lines) == 3


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        ("g = Softmax <axis = 2> (a) z = Add (a, g)", ""),
        ("z = Concat <axis = 1> (a, c)", ", float[1, 0, 2, h, w] c"),
        ("t = Transpose <perm = [0, 2, 4, 3, 1]> (a) n = RMSNormalization (t, s)"
         " z = Transpose <perm = [0, 4, 1, 3, 2]> (n)", ", float[4] s"),
        ("t = Transpose <perm = [0, 2, 3, 4, 1]> (a) n = RMSNormalization <axis = 1> (t, s)"
         " z = Transpose <perm = [0, 4, 1, 2, 3]> (n)", ", float[1] s"),
        ("b = Constant <value_ints = [0]> () e = Constant <value_ints = [9]> () d = Constant <value_ints = [1]> ()"
         " z = Slice (a, b, e, d)", ""),
    ],
    ids=["over frames", "joined along channels", "turned", "a norm over everything", "some channels"],
)  # fmt: skip
def test_other_nodes_get_a_video(body: str, inputs: str) -> None:
    assert swaps(lowered(body, inputs)) >= 4


def test_a_model_that_turns_frames_into_a_batch_itself_is_met() -> None:
    """As upsampling does it: per frame, and back."""
    body = (
        "t = Transpose <perm = [0, 2, 1, 3, 4]> (a) f = Reshape (t, four) r = Relu (f)"
        " u = Reshape (r, five) z = Transpose <perm = [0, 2, 1, 3, 4]> (u)"
    )
    model = parse(
        f"g (float[1, 4, 4, 5, 6] x, float[4, 4, 3, 3, 3] k, float[4, 4, 1, 3, 3] l) => (float[1, 4, 2, 5, 6] y)"
        f" {{ four = Constant <value_ints = [2, 4, 5, 6]> () five = Constant <value_ints = [1, 2, 4, 5, 6]> ()"
        f" a = {CONV} (x, k) {body} y = {CONV} (z, l) }}"
    )
    before = model.clone()
    apply_passes(model, [FRAMES_FIRST], where="test")
    assert_same(before, model, {}, tolerance=1e-5)
    assert swaps(text(model)) == 2
    assert [line for line in text(model) if "Reshape" in line or "perm=[0, 2, 1, 3, 4]" in line] == []


def test_other_reshapes_stay() -> None:
    """The same numbers, and other places: channels are no frames."""
    model = parse(
        f"g (float[1, 4, 6, 5, 6] x, float[4, 4, 3, 3, 3] k) => (float[8, 2, 5, 6] y) {{"
        f" four = Constant <value_ints = [8, 2, 5, 6]> () a = {CONV} (x, k)"
        " t = Transpose <perm = [0, 2, 1, 3, 4]> (a) y = Reshape (t, four) }"
    )
    before = model.clone()
    apply_passes(model, [FRAMES_FIRST], where="test")
    assert_same(before, model, {}, tolerance=1e-5)
    assert any("Reshape" in line for line in text(model))
