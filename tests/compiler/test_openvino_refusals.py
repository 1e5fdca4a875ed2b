"""Graphs that OpenVINO takes and computes otherwise are refused for it by name; ONNX Runtime runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.refusals import check_computed_rightly
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import weight_files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import RecipeError, render
from wanc.runtime.session import Session

from .test_export_onnx import assert_same, exported

Arrays = dict[str, np.ndarray[Any, Any]]
SIZES = {"n": 2, "t": 6}


def random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def recurrent(op_type: str, arguments: str, **more: Any) -> onnx.ModelProto:
    """An operator over x [t, n, 5] with 4 hidden numbers; `more` are constants, and attributes that are integers."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type]
    constants = {"w": random(1, 4 * gates, 5), "r": random(1, 4 * gates, 4)}
    constants |= {name: value for name, value in more.items() if isinstance(value, np.ndarray)}
    attributes = {name: value for name, value in more.items() if isinstance(value, int)}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["t", "n", 5])]
    if "lens" in arguments and "lens" not in constants:
        inputs.append(helper.make_tensor_value_info("lens", TensorProto.INT32, ["n"]))
    node = helper.make_node(op_type, arguments.split(","), ["y"], hidden_size=4, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["t", 1, "n", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def parsed(text: str, **constants: Any) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.array(a), name) for name, a in constants.items())
    return proto


def rounding(codes: Any, domain: str = "") -> onnx.ModelProto:
    body = f"q = {domain}QuantizeLinear (x, s, z) y = {domain}DequantizeLinear (q, s, z)"
    return parsed(f"g (float[n, 8] x) => (float[n, 8] y) {{ {body} }}", s=np.float32(0.01), z=codes(0))


def of_two(op_type: str, dtype: str, attributes: str = "") -> onnx.ModelProto:
    return parsed(f"g ({dtype}[n] a, {dtype}[n] b) => ({dtype}[n] y) {{ y = {op_type} {attributes} (a, b) }}")


LENGTHS = "the lengths of its sequences are left out"
CODES = "its 16-bit codes are not kept in their range"
ROUND = "8 and 16 bits are not counted round, but stop at their ends"
BEYOND = "big is beyond 32 bits, to which openvino cuts integers"
DOUBLE = "is float64, and openvino computes it in float32"
REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "GRU": (recurrent("GRU", "x,w,r,,lens"), f"the GRU that gives y: {LENGTHS}"),
    "LSTM": (recurrent("LSTM", "x,w,r,,lens"), f"the LSTM that gives y: {LENGTHS}"),
    "RNN": (recurrent("RNN", "x,w,r,,lens"), f"the RNN that gives y: {LENGTHS}"),
    "constant lengths": (
        recurrent("GRU", "x,w,r,,lens", lens=np.array([6, 3], np.int32)),
        f"the GRU that gives y: {LENGTHS}",
    ),
    "peepholes": (
        recurrent("LSTM", "x,w,r,,,,,p", p=random(1, 12)),
        "the LSTM that gives y: the peepholes P are left out",
    ),
    "one gate": (
        recurrent("LSTM", "x,w,r", input_forget=1),
        "the LSTM that gives y: input_forget is left out",
    ),
    "uint16": (rounding(np.uint16), f"the QuantizeLinear that gives q: {CODES}"),
    "int16": (rounding(np.int16), f"the QuantizeLinear that gives q: {CODES}"),
    "com.microsoft's": (rounding(np.uint16, "com.microsoft."), f"the QuantizeLinear that gives q: {CODES}"),
    "uint8 sum": (of_two("Add", "uint8"), f"the Add that gives y: {ROUND}"),
    "int8 product": (of_two("Mul", "int8"), f"the Mul that gives y: {ROUND}"),
    "uint8 difference": (of_two("Sub", "uint8"), f"the Sub that gives y: {ROUND}"),
    "uint8 shift": (of_two("BitShift", "uint8", '<direction = "LEFT">'), f"the BitShift that gives y: {ROUND}"),
    "int64 constant": (parsed("g (int64[n] a) => (int64[n] y) { y = Add (a, big) }", big=2**40), BEYOND),
    "int64 constant in another shape": (
        parsed(
            "g (int64[n] a, float[n] b) => (int64[n] y, float[m] z) { c = Cast <to = 7> (big) y = Add (a, c) "
            "one = Constant <value_ints = [1]> () d = Reshape (big, one) z = Slice (b, one, d) }",
            big=2**63 - 1,
        ),
        BEYOND,
    ),
    "an end that is cut": (
        parsed(
            "g (float[n] a) => (float[m] y) { c = Constant <value_ints = [1]> () one = Cast <to = 6> (c) "
            "b = Cast <to = 6> (big) y = Slice (a, one, b) }",
            big=[2**33 + 2],
        ),
        BEYOND,
    ),
    "uint32 constant": (
        parsed("g (uint32[n] a) => (bool[n] y) { y = Less (a, big) }", big=np.uint32(2**31 + 5)),
        BEYOND,
    ),
    "in a branch": (
        parsed(
            "g (bool c, int64[n] a) => (int64[n] y) { y = If (c) <then_branch = t () => (int64[n] p)"
            f" {{ big = Constant <value = int64 {{{2**33}}}> () p = Add (a, big) }},"
            " else_branch = e () => (int64[n] q) { q = Identity (a) }> }"
        ),
        BEYOND,
    ),
    "float64": (of_two("Add", "double"), f"a {DOUBLE}"),
    "float64 result": (
        parsed("g (float[n] a) => (double[n] y) { y = Cast <to = 11> (a) }"),
        f"y {DOUBLE}",
    ),
}


def compiled(proto: onnx.ModelProto, folder: Path) -> Path:
    """The engine file. Raises what compiling raises."""
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    symbols = {dim.dim_param for value in proto.graph.input for dim in value.type.tensor_type.shape.dim}
    example = {name: size for name, size in SIZES.items() if name in symbols}
    program, files, source = exported(folder / "m.onnx", folder / "program", example)
    model = ComponentFiles("model", program.components["model"], files, weight_files(files, source))
    (folder / "engine").mkdir()
    compiler, finite = OpenVinoCompiler("fp32", ()), FiniteCheck("model", ())
    made = compile_segment(compiler, model, whole(model), CPU, folder / "engine", finite)
    return folder / "engine" / made.files[0].file


@pytest.mark.parametrize(("proto", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_it_would_compute_otherwise_is_refused(proto: onnx.ModelProto, reason: str) -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    with pytest.raises(RecipeError) as caught:
        check_computed_rightly(model, "model/main")
    assert render(caught.value) == (
        f"error: openvino gives other values for model/main: {reason}\nhint: engine.kind: onnxruntime runs it"
    )
    assert caught.value.key == "engine.kind"


def test_it_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=LENGTHS):
        compiled(recurrent("GRU", "x,w,r,,lens"), tmp_path)
    assert not list(tmp_path.rglob("*.xml"))


@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_the_other_engine_keeps_to_the_lengths(tmp_path: Path, op_type: str) -> None:
    (tmp_path / "m.onnx").write_bytes(recurrent(op_type, "x,w,r,,lens").SerializeToString())
    feeds: Arrays = {"x": random(6, 2, 5), "lens": np.array([6, 3], np.int32)}
    assert_same(tmp_path / "m.onnx", tmp_path, feeds, SIZES)


def test_the_library_is_still_wrong_about_what_is_refused(tmp_path: Path) -> None:
    """A newer one may not be: then the rule goes."""
    proto = recurrent("GRU", "x,w,r,,lens")
    onnx.save(proto, tmp_path / "m.onnx")
    model = openvino.Core().compile_model(tmp_path / "m.onnx", "CPU")
    x = random(6, 2, 5)
    given, whole_sequences = (model([x, np.array([6, length], np.int32)])[0].copy() for length in (3, 6))
    np.testing.assert_array_equal(given, whole_sequences)


TAKEN: dict[str, tuple[onnx.ModelProto, Arrays, Arrays]] = {
    "two names of one value": (
        parsed("g (float[n] a) => (float[n] y, float[n] z) { b = Relu (a) y = Identity (b) z = Identity (b) }"),
        {"a": np.array([-1, 2], np.float32)},
        {"y": np.array([0, 2], np.float32), "z": np.array([0, 2], np.float32)},
    ),
    "an input that is given back": (
        parsed("g (float[n] a) => (float[n] y, float[n] z) { y = Identity (a) z = Neg (a) }"),
        {"a": np.array([-1, 2], np.float32)},
        {"y": np.array([-1, 2], np.float32), "z": np.array([1, -2], np.float32)},
    ),
    "a value in the middle": (
        parsed("g (float[n] a) => (float[n] z, float[n] y) { y = Exp (a) z = Neg (y) }"),
        {"a": np.array([0, 0], np.float32)},
        {"z": np.array([-1, -1], np.float32), "y": np.array([1, 1], np.float32)},
    ),
    "a constant": (
        parsed(
            "g (float[n] a) => (float[n] y, float[2] c) { y = Neg (a) c = Constant <value_floats = [3.0, 4.0]> () }"
        ),
        {"a": np.array([1, 2], np.float32)},
        {"y": np.array([-1, -2], np.float32), "c": np.array([3, 4], np.float32)},
    ),
    "the end of a slice": (
        parsed(
            "g (float[n] a) => (float[m] y) { b = Constant <value_ints = [1]> () y = Slice (a, b, end) }",
            end=[2**63 - 1],
        ),
        {"a": np.array([1, 2], np.float32)},
        {"y": np.array([2], np.float32)},
    ),
    "the end of a slice, in another shape": (
        parsed(
            "g (float[n] a) => (float[m] y) { b = Constant <value_ints = [1]> () one = Constant <value_ints = [-1]> () "
            "c = Cast <to = 7> (end) d = Reshape (c, one) y = Slice (a, b, d) }",
            end=2**63 - 1,
        ),
        {"a": np.array([1, 2], np.float32)},
        {"y": np.array([2], np.float32)},
    ),
    "integers of 32 bits": (
        of_two("Add", "int64"),
        {"a": np.array([1, 2]), "b": np.array([2**30, -5])},
        {"y": np.array([2**30 + 1, -3])},
    ),
    "codes of 8 bits": (
        rounding(np.uint8),
        {"x": np.full((2, 8), 0.123, np.float32)},
        {"y": np.full((2, 8), 0.12, np.float32)},
    ),
}


@pytest.mark.parametrize(("proto", "feeds", "expected"), TAKEN.values(), ids=TAKEN)
def test_what_it_computes_as_it_should_is_taken(
    tmp_path: Path, proto: onnx.ModelProto, feeds: Arrays, expected: Arrays
) -> None:
    """By the declared names, in their order, whatever the library makes one of."""
    outputs = Session("openvino", compiled(proto, tmp_path), threads=1).run(feeds)
    assert list(outputs) == list(expected)
    for name, array in expected.items():
        assert outputs[name].dtype == array.dtype
        np.testing.assert_allclose(outputs[name], array, rtol=1e-6)
