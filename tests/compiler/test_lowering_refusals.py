"""Why the engines' lowering leaves something alone: text in, the same text out, and the reason."""

from __future__ import annotations

import pytest

from wanc.compiler.engines.onnxruntime.frames import FRAMES_FIRST
from wanc.compiler.engines.onnxruntime.int8 import INTEGERS
from wanc.compiler.engines.onnxruntime.kernels import KERNELS
from wanc.compiler.engines.onnxruntime.packed import PACKED
from wanc.compiler.engines.openvino.attention import WRITTEN_OUT
from wanc.compiler.engines.openvino.blocks import EVEN
from wanc.compiler.engines.openvino.halves import HALVES
from wanc.compiler.engines.openvino.slices import SLICES
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.passes.rewrite import Pass, Refusal

from .passes.builder import parse, text

HEADS = "q_num_heads = 2, kv_num_heads = 2"
QKV = "float[1, n, 16] q, float[1, m, 16] k, float[1, m, 16] v"
MORE = "the attention does more, or on other axes"
NO_INT8 = "the weight's codes are not int8 with a scale for each row"


def attention(inputs: str = QKV, arguments: str = "q, k, v", attributes: str = HEADS) -> str:
    dtype = inputs.partition("[")[0]
    return f"g ({inputs}) => ({dtype}[1, n, 16] y) {{ y = Attention <{attributes}> ({arguments}) }}"


def gelu(bias: str) -> str:
    return (
        f"g (float[n, 8] x, float[{bias}] b) => (float[n, 8] y)"
        ' { a = Add (x, b) y = Gelu <approximate = "tanh"> (a) }'
    )


def linear(
    scales: str = "48", axis: str = "axis = 0", *, rounded: str = "", codes: str = "int8", x: str = "float"
) -> str:
    """x [1, n, 64] · W, where W [48, 64] are codes; `rounded` are lines that make r of x."""
    return (
        f"g ({x}[1, n, 64] x, {codes}[48, 64] c, {x}[{scales}] s) => ({x}[1, n, 48] y) {{ {rounded}"
        f" w = DequantizeLinear <{axis}> (c, s) t = Transpose <perm = [1, 0]> (w)"
        f" y = MatMul ({'r' if rounded else 'x'}, t) }}"
    )


def rounded(zero: int) -> str:
    return (
        f"step = Constant <value = float {{0.02}}> () zero = Constant <value = int8 {{{zero}}}> ()"
        " q = QuantizeLinear (x, step, zero) r = DequantizeLinear (q, step, zero)"
    )


DYNAMIC = "q, step, zero = DynamicQuantizeLinear (x) r = DequantizeLinear (q, step, zero)"
BIAS = (
    "g (uint8[1, n, 64] x, int8[64, 48] w, float a, float[48] s, uint8 z, float[1] b) => (float[1, n, 48] y)"
    " { p = com.microsoft.MatMulIntegerToFloat (x, w, a, s, z) y = Add (p, b) }"
)


def convolution(attributes: str, batch: int = 1) -> str:
    return (
        f"g (float[{batch}, 2, 4, 6, 6] x, float[3, 2, 3, 3, 3] k) => (float[{batch}, 3, a, b, c] y)"
        f" {{ y = Conv <{attributes}> (x, k) }}"
    )


def behind_frames(body: str, inputs: str = "", y: str = "float[1, 4, 3, h, w]") -> str:
    """What follows on `video`, which is made of frames."""
    return (
        f"g (float[3, 4, h, w] x{inputs}) => ({y} y) {{ two = Constant <value_ints = [2]> ()"
        f" u = Unsqueeze (x, two) video = Transpose <perm = [2, 1, 0, 3, 4]> (u) {body} }}"
    )


BATCH = "t = Transpose <perm = [0, 2, 1, 3, 4]> (video) s = Constant <value_ints = [6, 2, 5, 4]> () y = Reshape (t, s)"
VIDEO = (
    "g (float[8, 3, 5, 4] x) => (float[2, 3, 4, 5, 4] y) { s = Constant <value_ints = [2, 4, 3, 5, 4]> ()"
    " r = Reshape (x, s) y = Transpose <perm = [0, 2, 1, 3, 4]> (r) }"
)
ROTATED = (
    f"g ({QKV}, float[1, n, 4] cos, float[1, n, 4] sin) => (float[1, n, 16] y) {{"
    " r = RotaryEmbedding <interleaved = 1, num_heads = 2> (q, cos, sin)"
    f" y = Attention <{HEADS}> (r, k, v) }}"
)


def feed_forward(middle: int = 9216, *, codes: str = "int8", step: str = "", bias: str = "") -> str:
    return (
        f"g (float[1, n, 16] x, {codes}[{middle}, 16] c, float[{middle}] s, float[{bias or middle}] b,"
        f" {codes}[16, {middle}] c2, float[16] s2, float[16] b2, float[{step}] step, int8[{step}] zero)"
        " => (float[1, n, 16] y) {"
        " d = DequantizeLinear <axis = 0> (c, s) t = Transpose <perm = [1, 0]> (d) m = MatMul (x, t) a = Add (m, b)"
        " g = Gelu (a) q = QuantizeLinear (g, step, zero) f = DequantizeLinear (q, step, zero)"
        " d2 = DequantizeLinear <axis = 0> (c2, s2) t2 = Transpose <perm = [1, 0]> (d2) m2 = MatMul (f, t2)"
        " y = Add (m2, b2) }"
    ).replace("float[] step, int8[] zero", "float step, int8 zero")


CASES: list[tuple[Pass, str, str]] = [
    (KERNELS, attention(f"{QKV}, float[n, m] mask", "q, k, v, mask"), MORE),
    (KERNELS, attention(QKV.replace("float", "double")), "the tiled kernel takes float32 and float16"),
    (KERNELS, gelu("n, 8"), "what is added is not one row as wide as the input"),
    (KERNELS, gelu("1"), "what is added is not one row as wide as the input"),
    (INTEGERS, linear(rounded=rounded(3)), "the input is not rounded to int8 with one scale and no zero point"),
    (INTEGERS, linear("48, 4", "axis = 1, block_size = 16", rounded=rounded(0)), NO_INT8),
    (INTEGERS, linear("48, 4", "axis = 1, block_size = 16", rounded=DYNAMIC), NO_INT8),
    (INTEGERS, BIAS, "what is added to the product is not one row as wide"),
    (PACKED, linear(x="float16"), "the kernel takes a float32 input and a matrix of known size"),
    (PACKED, linear(codes="float8e4m3fn"), "the kernel's codes are int8 or int4"),
    (PACKED, linear("64", "axis = 1"), "the kernel has no such blocks of codes with one scale"),
    (PACKED, linear("48, 8", "axis = 1, block_size = 8"), "the kernel has no such blocks of codes with one scale"),
    (FRAMES_FIRST, convolution("pads = [0, 1, 1, 0, 1, 1]", 2), "it is not known to be one video of so many frames"),
    (FRAMES_FIRST, convolution("pads = [1, 1, 1, 0, 1, 1]"), "it pads in time"),
    (FRAMES_FIRST, convolution('auto_pad = "SAME_UPPER"'), "it pads in time"),
    (FRAMES_FIRST, convolution("strides = [2, 1, 1]"), "it strides or dilates in time"),
    (FRAMES_FIRST, behind_frames(
        "t = Transpose <perm = [0, 2, 3, 4, 1]> (video) n = RMSNormalization <axis = 1> (t, s)"
        " y = Transpose <perm = [0, 4, 1, 2, 3]> (n)", ", float[1] s"), "the norm is not over channels alone"),
    (FRAMES_FIRST, behind_frames(
        "y = Concat <axis = 2> (c, video)", ", float[1, 4, 2, h, w] c", "float[1, 4, 5, h, w]"),
        "the graph gives the joined video"),
    (FRAMES_FIRST, behind_frames(
        "b = Constant <value_ints = [0]> () e = Constant <value_ints = [2]> () d = Constant <value_ints = [1]> ()"
        " y = Slice (video, b, e, d)", y="float[1, 2, 3, h, w]"), "it cuts along other axes than that of frames"),
    (FRAMES_FIRST, behind_frames(BATCH, y="float[6, 2, 5, 4]"), "the result is not known to be the video's frames"),
    (FRAMES_FIRST, VIDEO, "the result is not known to be a video of these frames"),
    (HALVES, ROTATED, "not Linear, norm and rotation on both sides"),
    (WRITTEN_OUT, attention(attributes=f"{HEADS}, is_causal = 1"), MORE),
    (WRITTEN_OUT, attention(), "the queries come from no norm of their own"),
    (SLICES, feed_forward(9217), "9217 columns have no even slices"),
    (SLICES, feed_forward(codes="uint8"), "the weights' codes are not int8 with a scale for each row"),
    (SLICES, feed_forward(step="9216"), "what is between is not rounded with one scale"),
    (SLICES, feed_forward(bias="1, 9216"), "what is added to the products are not two rows"),
    (EVEN, linear("3, 64", "axis = 0, block_size = 16"), "the blocks do not lie along the rows of a matrix"),
    (EVEN, linear("48, 2", "axis = 1, block_size = 33"), "rows of 64 have no even blocks"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "before", "reason"), CASES, ids=[f"{e.name}: {r}" for e, _, r in CASES])
def test_what_is_left_alone_is_told_with_its_reason(entry: Pass, before: str, reason: str) -> None:
    model = parse(before)
    (applied,) = apply_passes(model, [entry], where="part/graph")
    (refusal,) = applied.refusals
    assert refusal.reason == reason
    assert refusal.value in {value.name for node in model.graph for value in node.outputs}
    assert (applied.fired, text(model)) == (0, text(parse(before)))


def test_graphs_of_an_old_opset_keep_their_videos() -> None:
    """Axes were attributes until then."""
    model = parse(convolution("pads = [0, 1, 1, 0, 1, 1]"), opset=12)
    (applied,) = apply_passes(model, [FRAMES_FIRST], where="part/graph")
    assert applied.refusals == [Refusal("part/graph", "it takes graphs of opset 13, and this one has opset 12")]
    assert text(model) == text(parse(convolution("pads = [0, 1, 1, 0, 1, 1]"), opset=12))


@pytest.mark.parametrize(
    ("entry", "before"),
    [
        (FRAMES_FIRST, "g (float[1, 2, 6, 6] x, float[3, 2, 3, 3] k) => (float[1, 3, 4, 4] y) { y = Conv (x, k) }"),
        (HALVES, ROTATED.replace("interleaved = 1", "interleaved = 0")),
        (HALVES, attention()),
        (SLICES, feed_forward(4608)),
        (EVEN, linear("48, 4", "axis = 1, block_size = 16")),
        (EVEN, linear()),
    ],
    ids=["a picture", "halves already", "not rotated", "narrow", "even already", "no blocks"],
)
def test_what_needs_nothing_is_no_news(entry: Pass, before: str) -> None:
    model = parse(before)
    (applied,) = apply_passes(model, [entry], where="part/graph")
    assert (applied.fired, applied.refusals, text(model)) == (0, [], text(parse(before)))
