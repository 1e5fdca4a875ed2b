"""All passes on graphs that nobody had in mind when writing them: they compute the same, or are refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from wanc.compiler.export.onnx_file import make_ours
from wanc.compiler.passes.apply import Applied, apply_passes
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.program.graph_file import load
from wanc.errors import CheckpointError, UserError
from wanc.models.onnx_file import open_onnx, read_onnx
from wanc.runtime.backends.onnxruntime import FATAL_ONLY

from ...models.test_onnx_file_fuzz import fuzzing, mutate, rich

# Only the order of float32 sums changes.
TOLERANCE = 1e-5
SIZES = ({"n": 2, "m": 3}, {"n": 5, "m": 1})
WHERE = "model/main"
Feeds = dict[str, Any]


class Thrice(OpRun):
    """What onnx.reference does for an operator of somebody's own; onnxruntime refuses it."""

    op_domain = "custom"

    def _run(self, x: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any]]:
        return (x * np.float32(3),)


def parse(text: str, opset: int = 21, *imports: str) -> onnx.ModelProto:
    domains = ", ".join([f'"" : {opset}', *(f'"{name}" : 1' for name in ("custom", *imports))])
    return onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]> {text}")


def with_function() -> onnx.ModelProto:
    """A local function that calls another, and is called twice."""
    proto = parse("g (float[n, 4] x) => (float[n, 4] y) { a = local.Norm (x) b = Relu (a) y = local.Norm (b) }", 21)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    nodes = onnx.parser.parse_graph(
        "b (float[n, 4] x) => (float[n, 4] y) { h = local.Half (x) s = Softmax (h) y = Add (s, x) }"
    ).node
    half = onnx.parser.parse_graph(
        "b (float[n, 4] x) => (float[n, 4] y) { h = Constant <value = float {0.5}> () y = Mul (x, h) }"
    ).node
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    proto.functions.append(helper.make_function("local", "Norm", ["x"], ["y"], nodes, imports))
    proto.functions.append(helper.make_function("local", "Half", ["x"], ["y"], half, imports))
    return proto


def with_default() -> onnx.ModelProto:
    """An initializer that is an input as well: it can be given, or left at its value."""
    proto = parse("g (float[n, 4] x, float[4] scale) => (float[n, 4] y) { y = Mul (x, scale) }")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "scale"))
    return proto


def without_types() -> onnx.ModelProto:
    """Values in between of which nothing is known, and outputs without a shape."""
    proto = parse(
        "g (float[a, b, c] x, int64[r] shape) => (float y, float z) {"
        " h = Reshape (x, shape) s = Softmax (h) y = MatMul (s, h) z = Transpose (y) }"
    )
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto


ATTENTION = """
    kt = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul (q, kt) half = Constant <value = float {0.5}> ()
    scaled = Mul (s, half) w = Softmax (scaled) y = MatMul (w, v)
"""
HEADS = "float[1, 2, n, 8] q, float[1, 2, m, 8] k, float[1, 2, m, 8] v"
NORM = """
    two = Constant <value = float {2}> () eps = Constant <value = float {1e-6}> ()
    axes = Constant <value_ints = [-1]> () p = Pow (x, two)
    mean = ReduceMean (p, axes) e = Add (mean, eps) r = Sqrt (e) i = Reciprocal (r) h = Mul (x, i)
"""

GRAPHS: dict[str, onnx.ModelProto] = {
    "an operator of somebody's own": parse(
        f"g (float[n, 8] x, float[8] w) => (float[n, 8] y) {{ {NORM} a = Mul (h, w) b = custom.Thrice (a)"
        " c = Identity (b) y = custom.Thrice (c) }"
    ),
    "an If whose branches differ": parse(
        "g (float[n, 4] x, bool c) => (float[n, 4] y) { a = Identity (x) y = If (c) <"
        "then_branch = t () => (float[n, 4] p) { b = Neg (a) d = Neg (b) p = Add (d, a) },"
        " else_branch = e () => (float[n, 4] p) { b = Mul (a, a) p = Sub (b, x) }> }"
    ),
    "an If in an If, with the same names": parse(
        "g (float[n, 4] x, bool c) => (float[n, 4] y) { a = Neg (x) y = If (c) <"
        "then_branch = t () => (float[n, 4] p) { b = Exp (a) d = If (c) <"
        "then_branch = tt () => (float[n, 4] q) { f = Add (b, b) q = Neg (f) },"
        " else_branch = te () => (float[n, 4] q) { q = Identity (b) }> p = Add (d, a) },"
        " else_branch = e () => (float[n, 4] p) { b = Abs (a) d = Add (b, b) p = Identity (d) }> }"
    ),
    "a condition that is a constant": parse(
        "g (float[n, 4] x) => (float[n, 4] y) { c = Constant <value = bool {1}> () y = If (c) <"
        "then_branch = t () => (float[n, 4] p) { p = Neg (x) },"
        " else_branch = e () => (float[n, 4] p) { p = Abs (x) }> }"
    ),
    "a Loop": parse(
        "g (float[n, 4] x) => (float[n, 4] y, float[k, n, 4] z) { times = Constant <value = int64 {3}> ()"
        " go = Constant <value = bool {1}> () y, z = Loop (times, go, x) <body = b"
        " (int64 i, bool on, float[n, 4] state) => (bool still, float[n, 4] next, float[n, 4] seen) {"
        " still = Identity (on) one = Constant <value = float {1}> () f = Mul (state, one) next = Add (f, x)"
        " seen = Neg (next) }> }"
    ),
    "a Scan": parse(
        "g (float[n, 4] x) => (float[4] y, float[n, 4] z) { zero = Constant <value = float[4] {0, 0, 0, 0}> ()"
        " y, z = Scan <num_scan_inputs = 1, body = b (float[4] sum, float[4] row) => (float[4] next, float[4] out)"
        " { next = Add (sum, row) out = Identity (next) }> (zero, x) }"
    ),
    "a norm in a branch": parse(
        f"g (float[n, 8] x, float[8] w, bool c) => (float[n, 8] y) {{ y = If (c) <"
        f"then_branch = t () => (float[n, 8] u) {{ {NORM} u = Mul (h, w) }},"
        " else_branch = e () => (float[n, 8] u) { u = Mul (x, w) }> }"
    ),
    "functions of its own": with_function(),
    "an initializer that is an input": with_default(),
    "shapes that nobody knows": without_types(),
    "an empty tensor": parse(
        "g (float[n, 4] x) => (float[n, 4] y, float[0, 4] z) { s = Constant <value_ints = [0, 4]> ()"
        " f = Constant <value = float[1] {2}> () z = ConstantOfShape (s) both = Concat <axis = 0> (x, z)"
        " y = Mul (both, f) }"
    ),
    "a reshape of nothing": parse(
        "g (float[n, 0] x) => (float[0, n] y) { s = Shape (x) a, b = Split <num_outputs = 2> (s)"
        " t = Concat <axis = 0> (b, a) y = Reshape <allowzero = 1> (x, t) }"
    ),
    "one value as two outputs": parse(
        "g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z, float[n, 4] w)"
        " { y = Neg (x) z = Identity (y) w = Identity (x) }"
    ),
    "an output that is an input": parse("g (float[n, 4] x) => (float[n, 4] x, float[n, 4] y) { y = Neg (x) }"),
    "an output that is used as well": parse(
        f"g (float[n, 8] x, float[8] w) => (float[n, 8] y, float[n, 1] mean) {{ {NORM} y = Mul (h, w) }}"
    ),
    "equal constants as outputs": parse(
        "g (float[n, 4] x) => (float[1] y, float[1] z) { y = Constant <value = float[1] {1}> ()"
        " z = Constant <value = float[1] {1}> () }"
    ),
    "strings": parse(
        "g (float[n, 4] x, string[n] s) => (string[n] t, float[n, 4] y, string[2] u)"
        ' { t = Identity (s) y = Neg (x) a = Constant <value_strings = ["a", "b"]> ()'
        " b = Identity (a) u = Identity (b) }"
    ),
    "a sequence": parse(
        "g (float[n, 4] x) => (float[n, 4] y) { a = Neg (x) s = SequenceConstruct (x, a)"
        " one = Constant <value = int64 {1}> () b = SequenceAt (s, one) c = Identity (b) y = Add (c, x) }"
    ),
    "a split to a sequence": parse(
        "g (float[n, 4] x) => (float[n, 2] y) { two = Constant <value = int64 {2}> ()"
        " s = SplitToSequence <axis = 1> (x, two) zero = Constant <value = int64 {0}> () y = SequenceAt (s, zero) }"
    ),
    "a sequence as an output": parse(
        "g (float[n, 4] x) => (seq(float[n, 4]) y, float[n, 4] z) { y = SequenceConstruct (x, x) z = Neg (x) }"
    ),
    "an optional": parse(
        "g (float[n, 4] x) => (float[n, 4] y, bool z) { o = Optional (x) y = OptionalGetElement (o)"
        " z = OptionalHasElement (o) }"
    ),
    "inputs and outputs left out": parse(
        "g (float[n, 4] x) => (float[n, 4] y, float[k] u) { flat = Flatten <axis = 0> (x)"
        " s = Constant <value_ints = [-1]> () row = Reshape (flat, s) u, , inverse = Unique <sorted = 1> (row)"
        " high = Constant <value = float {1}> () y = Clip (x, , high) }"
    ),
    "randomness, used twice": parse(
        "g (float[n, 4] x) => (float[n, 4] y) { r = RandomNormalLike <seed = 1.0> (x) q = RandomNormalLike <seed = 1.0>"
        " (x) d = Sub (r, q) zero = Constant <value = float {0}> () e = Mul (d, zero) y = Add (x, e) }"
    ),
    "whole numbers of 8 bits": parse(
        "g (int8[n, 4] x, uint8[n, 4] u) => (int32[n, n] y) { t = Transpose <perm = [1, 0]> (u)"
        " y = MatMulInteger (x, t) }"
    ),
    "doubles and halves": parse(
        "g (double[n, 4] x, float16[n, 4] h) => (double[n, 4] y, float16[n, 4] z) { a = Cast <to = 1> (x)"
        " y = Cast <to = 11> (a) b = Cast <to = 1> (h) z = Cast <to = 10> (b) }"
    ),
    "attention whose heads differ": parse(
        f"g (float[1, 2, n, 8] q, float[1, 1, m, 8] k, float[1, 2, m, 8] v) => (float[1, 2, n, 8] y) {{ {ATTENTION} }}"
    ),
    "attention whose weights are an output": parse(
        f"g ({HEADS}) => (float[1, 2, n, 8] y, float[1, 2, n, m] w) {{ {ATTENTION} }}"
    ),
    **{
        f"opset {opset}": parse(
            f"g ({HEADS}, float[n, 8] x, float[8] scale) => (float[1, 2, n, 8] y, float[n, 8] z)"
            f" {{ {ATTENTION} z = Mul (x, scale) }}",
            opset,
        )
        for opset in (11, 17, 18, 22, 23, 24)
    },
    "the axes of opset 11": parse(
        "g (float[n, 1, 4] x) => (float[n, 4] y, float[n, 1] z) { y = Squeeze <axes = [1]> (x)"
        " z = ReduceMean <axes = [1]> (y) }",
        11,
    ),
}


def applied(proto: onnx.ModelProto, folder: Path) -> tuple[ir.Model, list[Applied]]:
    """The model as it is read from a file, and after all passes that are used by default."""
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load(path)
    return model, apply_passes(model, [entry for entry in all_passes() if entry.by_default], where=WHERE)


def results(proto: onnx.ModelProto, feeds: Feeds) -> list[Any]:
    """What a model computes in onnxruntime; in onnx's own evaluator where it has operators that nobody else knows."""
    if any(node.domain == "custom" for node in proto.graph.node):
        return list(ReferenceEvaluator(proto, new_ops=[Thrice]).run(None, feeds))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def noise(proto: onnx.ModelProto, sizes: Mapping[str, int], seed: int) -> Feeds:
    generator = np.random.default_rng(seed)
    given = {tensor.name for tensor in proto.graph.initializer}
    feeds: Feeds = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        shape = [sizes.get(d.dim_param, 4) if d.dim_param else d.dim_value for d in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if value.name in given:
            continue
        if value.name == "shape":
            feeds[value.name] = np.array([-1, 8, 8])
        elif tensor.elem_type == TensorProto.STRING:
            feeds[value.name] = np.array([f"text {index}" for index in range(shape[0])], object)
        elif dtype.kind == "f":
            feeds[value.name] = generator.normal(size=shape).astype(dtype)
        else:
            feeds[value.name] = generator.integers(0, 2, shape).astype(dtype)
    return feeds


def assert_close(actual: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other)
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind == "f":
        largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * largest)
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("proto", GRAPHS.values(), ids=GRAPHS)
def test_what_it_computes_stays(proto: onnx.ModelProto, tmp_path: Path) -> None:
    model, _ = applied(proto, tmp_path)
    after = ir.to_proto(model)
    assert [entry.name for entry in after.graph.output] == [entry.name for entry in proto.graph.output]
    assert [entry.name for entry in after.graph.input] == [entry.name for entry in proto.graph.input]
    for seed, sizes in enumerate(SIZES):
        feeds = noise(proto, sizes, seed)
        assert_close(results(after, feeds), results(proto, feeds))


def test_an_input_with_a_default_can_still_be_given(tmp_path: Path) -> None:
    proto = GRAPHS["an initializer that is an input"]
    model, _ = applied(proto, tmp_path)
    feeds: Feeds = {"x": np.ones((2, 4), np.float32), "scale": np.arange(4, dtype=np.float32)}
    assert_close(results(ir.to_proto(model), feeds), results(proto, feeds))


def test_what_can_be_fused_is_fused_between_what_cannot(tmp_path: Path) -> None:
    """An operator of somebody's own is no reason to leave the rest alone; nor is a branch."""
    for name in ("an operator of somebody's own", "a norm in a branch"):
        model, _ = applied(GRAPHS[name], tmp_path)
        counts = [node.op_type for node in model.graph.all_nodes()]
        fused = "RMSNormalization" in counts
        assert fused == (name != "a norm in a branch"), "graphs within graphs keep their opset, 21"


@pytest.mark.parametrize("opset", [11, 17])
def test_what_is_too_old_is_left_at_its_opset(opset: int, tmp_path: Path) -> None:
    model, outcome = applied(GRAPHS[f"opset {opset}"], tmp_path)
    assert model.graph.opset_imports[""] == opset
    refusals = [refusal.reason for entry in outcome for refusal in entry.refusals]
    assert any(f"opset {opset} is older than" in reason for reason in refusals)


def test_what_a_file_says_of_its_output_is_not_believed(file: Path) -> None:
    """ONNX's checker does not see that [n] is a lie; a shape that copies n would have made it true."""
    proto = parse(
        "g (float[n, 0] x) => (float[n] y) { s = Shape (x) a, b = Split <num_outputs = 2> (s)"
        " y = Reshape <allowzero = 1> (x, b) }"
    )
    file.write_bytes(proto.SerializeToString())
    read = read_onnx(open_onnx(file).files)
    make_ours(read.model, read.inputs)
    apply_passes(read.model, [entry for entry in all_passes() if entry.by_default], where=WHERE)
    feeds = noise(proto, SIZES[0], 0)
    assert_close(results(ir.to_proto(read.model), feeds), results(proto, feeds))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "w.bin").write_bytes(bytes(32))
    return tmp_path / "model.onnx"


@pytest.mark.slow
@settings(fuzzing, max_examples=600)
@given(st.data())
def test_sound_files_of_unsound_models(file: Path, data: st.DataObject) -> None:
    """What can be read computes the same, where it computes at all, or is refused by name; nothing else is raised."""
    proto = onnx.ModelProto()
    proto.CopyFrom(data.draw(st.sampled_from([rich(), *GRAPHS.values()])))
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(proto, data.draw)
    shared = {entry.name for entry in proto.graph.input} & {entry.name for entry in proto.graph.output}
    assume(not shared)  # declared twice, a value may be of two shapes at once
    file.write_bytes(proto.SerializeToString())
    names = "|".join(entry.name for entry in all_passes())
    try:
        read = read_onnx(open_onnx(file).files)
        make_ours(read.model, read.inputs)
        apply_passes(read.model, [entry for entry in all_passes() if entry.by_default], where=WHERE)
    except CheckpointError:
        return
    except UserError as error:
        assert re.match(f"the pass ({names}) (fails on {WHERE}$|made {WHERE} invalid: )", error.message)
        return
    try:
        feeds = noise(proto, SIZES[0], 0)
        expected = results(proto, feeds)
    except Exception:  # what cannot be executed has no result to keep
        return
    assert_close(results(ir.to_proto(read.model), feeds), expected)
