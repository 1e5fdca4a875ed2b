"""Where OpenVINO differs from ONNX: what operators are refused, what is put right, and inputs that nothing needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from scripts.node_tests.outcome import difference
from scripts.node_tests.roads import ENGINES, Road, plain
from wanc.compiler.engines.openvino.refusals import check_computed_rightly
from wanc.errors import RecipeError
from wanc.runtime.backends.offline import stay_offline

stay_offline()

IMAGE = "float[1, 2, 4, 4] x"
RECURRENT = "float[2, 1, 3] x, float[1, {n}, 3] w, float[1, {n}, 2] r"
REFUSED = {
    "Attention with a window": (
        "g (float[1, 1, 4, 8] x) => (float[1, 1, 4, 8] y) { y = Attention <right_window_size = 1> (x, x, x) }",
        "a window of keys is left out",
    ),
    "Attention, to the other side": (
        "g (float[1, 1, 4, 8] x) => (float[1, 1, 4, 8] y) { y = Attention <left_window_size = 1> (x, x, x) }",
        "a window of keys is left out",
    ),
    "Attention that goes on": (
        "g (float[1, 2, 3, 4] q, float[1, 2, 3, 4] k, float[1, 2, 5, 4] p) => (float[1, 2, 3, 4] y) "
        "{ y, n, m = Attention <is_causal = 1> (q, k, k, , p, p) }",
        "is_causal does not count the keys of the past",
    ),
    "DFT along another axis": (
        "g (float[1, 4, 8, 1] x) => (float[1, 4, 8, 2] y) { y = DFT (x) }",
        "its axis is taken for 1",
    ),
    "AveragePool": (
        f"g ({IMAGE}) => (float[1, 2, 3, 3] y) {{ y = AveragePool <ceil_mode = 1, count_include_pad = 1,"
        " kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x) }",
        "with ceil_mode and count_include_pad, the last windows are divided by another number",
    ),
    "BitShift": (
        'g (int32[3] x, int32[3] s) => (int32[3] y) { y = BitShift <direction = "RIGHT"> (x, s) }',
        "numbers with a sign are shifted as if they had none",
    ),
    "DFT": ("g (float[1, 8, 1] x) => (float[1, 5, 2] y) { y = DFT <onesided = 1> (x) }", "onesided is left out"),
    "Equal": (
        "g (float[2, 3] x) => (bool[2, 1] y) <int64[1] one = {1}> {"
        " m = ReduceMax (x, one) i = Constant <value_float = -inf> () y = Equal (m, i) }",
        "the largest of nothing but infinities is a finite number",
    ),
    "IsInf of what is cast": (
        "g (float[2, 3] x) => (bool[2, 1] y) <int64[1] one = {1}> {"
        " m = ReduceMin (x, one) c = Cast <to = 10> (m) y = IsInf (c) }",
        "the largest of nothing but infinities is a finite number",
    ),
    "the largest of what is not masked": (
        "g (bool[2, 3] m, float[2, 3] x) => (float[2] y) <float none = {-inf}, int64[1] axis = {1}>"
        " { f = Where (m, x, none) y = ReduceMax <keepdims = 0> (f, axis) }",
        "the largest of nothing but infinities is a finite number",
    ),
    "LSTM with peepholes": (
        f"g ({RECURRENT.format(n=8)}, float[1, 6] p) => (float[2, 1, 1, 2] y)"
        " { y = LSTM <hidden_size = 2> (x, w, r, , , , , p) }",
        "the peepholes P are left out",
    ),
    "LSTM with one gate for two": (
        f"g ({RECURRENT.format(n=8)}) => (float[2, 1, 1, 2] y)"
        " { y = LSTM <hidden_size = 2, input_forget = 1> (x, w, r) }",
        "input_forget is left out",
    ),
    "GRU by batches": (
        f"g ({RECURRENT.format(n=6)}) => (float[2, 1, 1, 2] y) {{ y = GRU <hidden_size = 2, layout = 1> (x, w, r) }}",
        "layout is left out",
    ),
    "Resize without aliases": (
        f'g ({IMAGE}, float[4] s) => (float[1, 2, 2, 2] y) {{ y = Resize <antialias = 1, mode = "linear"> (x, , s) }}',
        "antialias is left out",
    ),
    "Resize without what is outside": (
        f"g ({IMAGE}, float[4] s) => (float[1, 2, 2, 2] y)"
        ' { y = Resize <exclude_outside = 1, mode = "cubic"> (x, , s) }',
        "exclude_outside is left out",
    ),
    "Resize by a policy": (
        f"g ({IMAGE}, int64[2] s) => (float[1, 2, a, b] y)"
        ' { y = Resize <axes = [2, 3], keep_aspect_ratio_policy = "not_larger"> (x, , , s) }',
        "keep_aspect_ratio_policy is left out",
    ),
    "RoiAlign": (
        f'g ({IMAGE}, float[1, 4] b, int64[1] i) => (float[1, 2, 1, 1] y) {{ y = RoiAlign <mode = "max"> (x, b, i) }}',
        "the largest is taken before the weights, not after",
    ),
}


def parsed(text: str, opset: int = 23) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 12, opset_import: ["" : {opset}]> {text}')


@pytest.mark.parametrize(("text", "what"), REFUSED.values(), ids=REFUSED)
def test_what_openvino_computes_otherwise_is_refused(text: str, what: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_computed_rightly(ir.from_proto(parsed(text)), where="model/main")
    assert caught.value.message.startswith("openvino gives other values for model/main: the ")
    assert caught.value.message.endswith(f" that gives y: {what}")
    assert caught.value.hint == "engine.kind: onnxruntime runs it"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("g (double[3] x) => (float[3] y) { y = Cast <to = 1> (x) }", "x"),
        ("g (float[3] x) => (double[3] y) { c = Neg (x) y = Cast <to = 11> (c) }", "y"),
    ],
)
def test_float64_is_refused(text: str, name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_computed_rightly(ir.from_proto(parsed(text)), where="model/main")
    assert caught.value.message.endswith(f" model/main: {name} is float64, and openvino computes it in float32")


@pytest.mark.parametrize(
    ("text", "opset", "what"),
    [
        ("y = ReduceL1 <axes = [1], keepdims = 0> (x)", 17, "its axes are left out"),
        ("y = ReduceLogSumExp <axes = [-1], keepdims = 0> (x)", 13, "its axes are left out"),
        ("y = ReduceLogSum <axes = [2], keepdims = 0> (x)", 11, "its axes are left out"),
        ("y = Softmax <axis = 1> (x)", 11, "its last axes are not taken together, as before opset 13"),
        ("y = LogSoftmax (x)", 12, "its last axes are not taken together, as before opset 13"),
    ],
)
def test_what_older_operators_say_otherwise(text: str, opset: int, what: str) -> None:
    with pytest.raises(RecipeError, match=f" that gives y: {what}$"):
        check_computed_rightly(
            ir.from_proto(parsed(f"g (float[2, 3, 4] x) => (float[a, b, c] y) {{ {text} }}", opset)), "m"
        )


@pytest.mark.parametrize("text", ["y = Softmax <axis = 2> (x)", "y = Softmax <axis = -1> (x)", "y = ReduceL1 (x)"])
def test_what_they_say_as_well_is_taken(text: str) -> None:
    check_computed_rightly(ir.from_proto(parsed(f"g (float[2, 3, 4] x) => (float[a, b, c] y) {{ {text} }}", 11)), "m")


def test_functions_of_a_model_s_own(tmp_path: Path) -> None:
    model = parsed("g (float[n, 3] x) => (float[n, 3] y) { t = mine.twice (x) y = Neg (t) }", 20)
    model.opset_import.add(domain="mine", version=1)
    model.functions.add().CopyFrom(
        onnx.parser.parse_function(
            '<opset_import: ["" : 20], domain: "mine"> twice (a) => (b) { c = Add (a, a) b = Abs (c) }'
        )
    )
    inputs = {"x": counted(2, 3) - 3}
    expected = plain(model, inputs)
    assert expected is not None
    assert difference(Road(ENGINES["openvino"], tmp_path).run(model, inputs), expected, 1e-5, 0.0) is None


def counted(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


BOXES = np.array([[[0, 0, 1, 3], [0, 1, 1, 4], [0, 0, 4, 4]]], np.float32)
RIGHT = {
    "equal numbers, of which the first come first": (
        "g (float[2, 7] x) => (float[2, 4] v, int64[2, 4] i) <int64[1] k = {4}> { v, i = TopK (x, k) }",
        {"x": counted(2, 7) // 3},
    ),
    "equal whole numbers, the smallest": (
        "g (int64[2, 7] x, int64[1] k) => (int64[2, k] v, int64[2, k] i) { v, i = TopK <largest = 0> (x, k) }",
        {"x": (counted(2, 7) // 3).astype(np.int64), "k": np.array([5])},
    ),
    "a window that would begin behind the end": (
        "g (float[1, 1, h, w] x) => (float[1, 1, a, b] y)"
        " { y = MaxPool <ceil_mode = 1, kernel_shape = [1, 1], strides = [2, 2]> (x) }",
        {"x": counted(1, 1, 4, 6)},
    ),
    "the same for means": (
        "g (float[1, 1, h, w] x) => (float[1, 1, a, b] y)"
        " { y = AveragePool <ceil_mode = 1, kernel_shape = [2, 2], strides = [3, 3]> (x) }",
        {"x": counted(1, 1, 6, 7)},
    ),
    "boxes that overlap as much as the threshold": (
        "g (float[1, 3, 4] x, float[1, 1, 3] s, float[1] t) => (int64[n, 3] y) <int64[1] most = {3}>"
        " { y = NonMaxSuppression (x, s, most, t) }",
        {"x": BOXES, "s": np.array([[[0.9, 0.8, 0.7]]], np.float32), "t": np.array([0.5], np.float32)},
    ),
    "repeats of several axes that are computed": (
        "g (float[2, 3, 4, 5] x, int64[4] r) => (float[a, b, c, d] y) { y = Tile (x, r) }",
        {"x": counted(2, 3, 4, 5), "r": np.array([3, 2, 4, 2])},
    ),
    "repeats that another input's shape says": (
        "g (float[h, 1, w] x, float[a, b, c] z) => (float[d, e, f] y) { s = Shape (z) t = Tile (x, s) y = Neg (t) }",
        {"x": counted(3, 1, 4), "z": counted(2, 3, 2)},
    ),
    "an input that nothing needs": (
        "g (float[n, 3] x, int64[m] u, float[n, 3] like) => (float[n, 3] y, float[n, 3] z)"
        " { c = CastLike (x, like) y = Neg (c) z = Abs (x) }",
        {"x": counted(2, 3), "u": np.arange(4), "like": counted(2, 3)},
    ),
    "an input that nothing needs before one that something does": (
        "g (bool[2] u, float[n, 3] x) => (float[n, 3] y) { y = Neg (x) }",
        {"u": np.array([True, False]), "x": counted(2, 3)},
    ),
    "a list of one for a number": (
        "g (float[2, 3] x, int64[4] p, float[1] v) => (float[a, b] y) { y = Pad (x, p, v) }",
        {"x": counted(2, 3), "p": np.array([0, 1, 2, 0]), "v": np.array([7], np.float32)},
    ),
    "the largest alone": (
        "g (float[n, 3, 4] x) => (float[n, 3, 4] y) { y = Hardmax <axis = 1> (x) }",
        {"x": counted(2, 3, 4) % 5},
    ),
    "the largest, in no order": (
        "g (float[2, 7] x) => (float[2, 1] v, int64[2, 1] i) <int64[1] k = {1}> { v, i = TopK <sorted = 0> (x, k) }",
        {"x": counted(2, 7)},
    ),
    "a norm with a constant of more axes": (
        "g (float[n, 3] x) => (float[1, 1, n, 3] y) <int64[1] axis = {-1}, float[1, 1, 1, 1] e = {0.5}>"
        " { s = Mul (x, x) m = ReduceMean (s, axis) a = Add (m, e) r = Sqrt (a) y = Div (x, r) }",
        {"x": counted(2, 3)},
    ),
    "a GELU with constants of more axes": (
        "g (float[n, 3] x) => (float[1, n, 3] y)"
        " <float[1, 1, 1] half = {0.5}, float[1, 1, 1] root = {0.70710678}, float one = {1.0}>"
        " { s = Mul (x, root) e = Erf (s) a = Add (e, one) h = Mul (x, half) y = Mul (h, a) }",
        {"x": counted(2, 3)},
    ),
    "products of sizes that a value decides": (
        "g (float[2, 3] x, int64[1] n) => (float[a, b] y) <int64[1] two = {2}> {"
        " s = Concat <axis = 0> (two, n) e = ConstantOfShape <value = float[1] {2.}> (s) t = Neg (e)"
        " z = Transpose (x) y = MatMul (z, t) }",
        {"x": counted(2, 3), "n": np.array([4])},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "inputs"), RIGHT.values(), ids=RIGHT)
def test_what_can_be_put_right_gives_what_onnxruntime_gives(tmp_path: Path, text: str, inputs: dict[str, Any]) -> None:
    model = parsed(text, 20)
    expected = plain(model, inputs)
    assert expected is not None
    assert difference(Road(ENGINES["openvino"], tmp_path).run(model, inputs), expected, 1e-5, 0.0) is None
