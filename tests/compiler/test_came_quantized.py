"""ONNX files that came quantised: plain onnxruntime's integer kernels, and none that round what the files do not.

How long they take beside plain onnxruntime is in `bench/results/foreign-quantized.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler, came_quantized
from wanc.runtime.backends.onnx_properties import properties
from wanc.runtime.backends.onnxruntime import ELSEWHERE, QUANTIZED, OnnxRuntime

from .test_engines_int8 import BIAS, quantised
from .test_export_onnx import built

Array = np.ndarray[Any, Any]
HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
CONVOLUTION = (
    "g (float[n, 4, 8, 8] x) => (float[n, 6, 8, 8] y) { q = {domain}QuantizeLinear (x, s, z)"
    " d = {domain}DequantizeLinear (q, s, z) wd = DequantizeLinear <axis = 0> (w, ws, wz)"
    " c = Conv <pads = [1, 1, 1, 1]> (d, wd) e = {domain}QuantizeLinear (c, t, z)"
    " y = {domain}DequantizeLinear (e, t, z) }"
)
PRODUCT = (
    "g (float[n, 16] x) => (float[n, 6] y) { q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)"
    " wd = DequantizeLinear <axis = 1> (w, ws, wz) p = MatMul (d, wd) e = QuantizeLinear (p, t, z)"
    " y = DequantizeLinear (e, t, z) }"
)
WEIGHTS_ALONE = (
    "g (float[n, 16] x) => (float[n, 6] y) { wd = DequantizeLinear <axis = 1> (w, ws, wz) y = MatMul (x, wd) }"
)


def model(text: str, *, weight: Array, codes: Any = np.uint8, zero: int = 128, domain: str = "") -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f"{HEADER} {text.replace('{domain}', domain)}")
    channels = 6
    constants = {
        "w": weight,
        "ws": np.linspace(0.01, 0.02, channels, dtype=np.float32),
        "wz": np.zeros(channels, weight.dtype),
        "s": np.array(0.02, np.float32),
        "t": np.array(0.05, np.float32),
        "z": np.array(zero, codes),
    }
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items() if name in used)
    return proto


def weight(*shape: int, dtype: Any = np.int8) -> Array:
    return np.random.default_rng(0).integers(-90, 90, shape).astype(dtype)


INTEGER = {
    "u8 × s8 convolution": (model(CONVOLUTION, weight=weight(6, 4, 3, 3)), "QLinearConv"),
    "s8 × s8 convolution": (
        model(CONVOLUTION, weight=weight(6, 4, 3, 3), codes=np.int8, zero=0),
        "QLinearConv",
    ),
    "by com.microsoft's operators": (
        model(CONVOLUTION, weight=weight(6, 4, 3, 3), domain="com.microsoft."),
        "QLinearConv",
    ),
    "product": (model(PRODUCT, weight=weight(16, 6)), "QLinearMatMul"),
}
FLOAT = {
    "weights alone": model(WEIGHTS_ALONE, weight=weight(16, 6)),
    "inputs of 16 bits": model(PRODUCT, weight=weight(16, 6), codes=np.uint16, zero=2**15),
    "fp8": model(PRODUCT, weight=weight(16, 6, dtype=ml_dtypes.float8_e4m3fn), codes=ml_dtypes.float8_e4m3fn, zero=0),
}


def stored(proto: onnx.ModelProto, folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def inputs(proto: onnx.ModelProto, rows: int) -> Array:
    sizes = [dim.dim_value or rows for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(1).normal(size=sizes).astype(np.float32)


def plain(path: Path, x: Array, level: Any) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def executed(path: Path, proto: onnx.ModelProto) -> tuple[set[str], str, Array, Array]:
    """The kernels of what is built, its precision, and results for the rows that the example has and for others."""
    compiler = OnnxRuntimeCompiler()
    engine = path.parent / "engine" / built(path, path.parent, {"n": 2}).files[0].file
    backend = compiler.execute(engine)
    assert isinstance(backend, OnnxRuntime)
    two, five = (backend.run({"x": inputs(proto, rows)})[0] for rows in (2, 5))
    report = compiler.report(engine, backend)
    return {kernel for kernel, _ in report.by_type}, report.precision, two, five


@pytest.mark.parametrize(("proto", "kernel"), INTEGER.values(), ids=INTEGER)
def test_integer_kernels_are_made_as_plain_onnxruntime_makes_them(
    tmp_path: Path, proto: onnx.ModelProto, kernel: str
) -> None:
    path = stored(proto, tmp_path)
    kernels, precision, *results = executed(path, proto)
    assert kernel in kernels and not kernels.intersection({"Conv", "FusedConv", "MatMul"})
    assert precision == "integer"
    for rows, result in zip((2, 5), results, strict=True):
        expected = plain(path, inputs(proto, rows), onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("proto", FLOAT.values(), ids=FLOAT)
def test_nothing_is_rounded_that_the_file_does_not_round(tmp_path: Path, proto: onnx.ModelProto) -> None:
    """Plain onnxruntime makes MatMulNBits of such products, which rounds inputs to 8 bits; of fp8 what there is not."""
    path = stored(proto, tmp_path)
    kernels, _, *results = executed(path, proto)
    assert not any("NBits" in kernel for kernel in kernels)
    for rows, result in zip((2, 5), results, strict=True):
        expected = plain(path, inputs(proto, rows), onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_what_wanc_has_quantised_keeps_the_kernels_that_were_checked() -> None:
    assert not came_quantized(quantised(BIAS, inputs=", float[48] b"))
    assert not came_quantized(quantised(BIAS, rounded=None, inputs=", float[48] b"))


@pytest.mark.parametrize("proto", [entry[0] for entry in INTEGER.values()], ids=INTEGER)
def test_the_file_says_that_it_came_so(tmp_path: Path, proto: onnx.ModelProto) -> None:
    assert came_quantized(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))
    made = built(stored(proto, tmp_path), tmp_path, {"n": 2})
    assert properties(tmp_path / "engine" / made.files[0].file) == {QUANTIZED: ELSEWHERE}


def test_properties_are_what_onnx_reads(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(f"{HEADER} g (float[3] x) => (float[3] y) {{ y = Relu (x) }}")
    expected = {"": "no key", "é" * 200: "long " * 5000, "empty": "", QUANTIZED: ELSEWHERE}
    onnx.helper.set_model_props(proto, expected)
    assert properties(stored(proto, tmp_path)) == expected


@pytest.mark.parametrize("length", [1, 20, -1, -30])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    proto = onnx.parser.parse_model(f"{HEADER} g (float[3] x) => (float[3] y) {{ y = Relu (x) }}")
    onnx.helper.set_model_props(proto, {"key": "x" * 100})
    path = stored(proto, tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="not an ONNX file"):
        properties(path)
