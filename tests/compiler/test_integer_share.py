"""What was multiplied as integers: both engines' read-backs against FLOPs that are counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from wanc.compiler.engines.products import Products, onnxruntime_products, openvino_products
from wanc.runtime.backends.onnxruntime import FATAL_ONLY

N, M = 5, 9
"""Rows of x and q, and of k and v."""
LINEAR = 2 * N * 16 * 8
"""FLOPs of x [1, N, 16] times w [16, 8]."""
ROUNDED = """
    scale = Constant <value = float {0.02}> () zero = Constant <value = uint8 {128}> ()
    wscale = Constant <value = float {0.01}> () wzero = Constant <value = int8 {0}> ()
"""
DEQUANTIZED = f"""{ROUNDED}
    xq = QuantizeLinear (x, scale, zero) xd = DequantizeLinear (xq, scale, zero)
    wd = DequantizeLinear (w, wscale, wzero)
"""
ATTENTION = "g (float[1, n, 16] q, float[1, m, 16] k, float[1, m, 24] v) => (float[1, n, 24] y)"
ATTENTION_FLOPS = 2 * N * M * 16 + 2 * N * M * 24


def model_of(text: str, weight: np.ndarray[Any, Any] | None = None) -> onnx.ModelProto:
    """A model in ONNX's text form; `weight` is its initializer w."""
    header = '<ir_version: 11, opset_import: ["" : 23, "com.microsoft" : 1]>'
    model = onnx.parser.parse_model(f"{header} {text}")
    if weight is not None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def linear(body: str, dtype: type = np.float32, shape: tuple[int, ...] = (16, 8)) -> onnx.ModelProto:
    """x [1, n, 16] → y [1, n, 8], with a weight w of this shape."""
    weight = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    return model_of(f"g (float[1, n, 16] x) => (float[1, n, 8] y) {{ {body} }}", weight)


def feeds(model: onnx.ModelProto, rows: int = N) -> dict[str, np.ndarray[Any, Any]]:
    sizes = {"n": rows, "m": M}
    shapes = {
        entry.name: [sizes.get(size.dim_param, size.dim_value) for size in entry.type.tensor_type.shape.dim]
        for entry in model.graph.input
    }
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def in_onnxruntime(model: onnx.ModelProto, folder: Path) -> Products:
    # With the library's own defaults, as contenders have it: wanc's forbid it to make kernels of Q/DQ.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, FATAL_ONLY
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, feeds(model))
    return onnxruntime_products(json.loads(Path(session.end_profiling()).read_bytes()))


def compiled_of(model: onnx.ModelProto) -> tuple[openvino.CompiledModel, openvino.Model]:
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    return core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), read


def in_openvino(model: onnx.ModelProto) -> Products:
    compiled, read = compiled_of(model)
    compiled.create_infer_request().infer(feeds(model))
    return openvino_products(compiled, read)


# ONNX Runtime


@pytest.mark.parametrize(
    ("model", "integer", "coded"),
    [
        (linear("y = MatMul (x, w)"), 0, 0),
        (linear(f"{DEQUANTIZED} y = MatMul (xd, wd)", np.int8), LINEAR, 0),
        (
            linear(
                f"{DEQUANTIZED} p = MatMul (xd, wd) pq = QuantizeLinear (p, scale, zero)"
                " y = DequantizeLinear (pq, scale, zero)",
                np.int8,
            ),
            LINEAR,
            0,
        ),
        (
            linear(
                f"{ROUNDED} xq = QuantizeLinear (x, scale, zero)"
                " y = com.microsoft.MatMulIntegerToFloat (xq, w, scale, wscale, zero)",
                np.int8,
            ),
            LINEAR,
            0,
        ),
        (linear(f"{ROUNDED} y = com.microsoft.DynamicQuantizeMatMul (x, w, wscale)", np.int8), LINEAR, 0),
        (linear(f"{ROUNDED} wd = DequantizeLinear (w, wscale, wzero) y = MatMul (x, wd)", np.int8), 0, LINEAR),
        (
            linear(
                f"scales = Constant <value_floats = [{', '.join(['1.0'] * 8)}]> ()"
                " y = com.microsoft.MatMulNBits <K = 16, N = 8, bits = 8, block_size = 16> (x, w, scales)",
                np.uint8,
                (8, 1, 16),
            ),
            0,
            LINEAR,
        ),
    ],
    ids=["float", "Q/DQ", "Q/DQ before a rounded result", "integer kernel", "dynamic", "the weight alone", "in blocks"],
)
def test_onnxruntime_linears(model: onnx.ModelProto, integer: int, coded: int, tmp_path: Path) -> None:
    assert in_onnxruntime(model, tmp_path) == Products(integer, LINEAR, LINEAR, coded)


def test_onnxruntime_linears_of_two_dimensions(tmp_path: Path) -> None:
    """Q/DQ around a Gemm becomes a kernel of another name."""
    weight = np.random.default_rng(0).integers(-9, 9, (16, 8)).astype(np.int8)
    body = (
        f"{DEQUANTIZED} p = Gemm (xd, wd) pq = QuantizeLinear (p, scale, zero) y = DequantizeLinear (pq, scale, zero)"
    )
    model = model_of(f"g (float[n, 16] x) => (float[n, 8] y) {{ {body} }}", weight)
    assert in_onnxruntime(model, tmp_path) == Products(LINEAR, LINEAR, LINEAR)


@pytest.mark.parametrize(
    "node",
    ["Attention <q_num_heads = 2, kv_num_heads = 2>", "com.microsoft.MultiHeadAttention <num_heads = 2>"],
    ids=["Attention", "MultiHeadAttention"],
)
def test_onnxruntime_attention_is_two_products(node: str, tmp_path: Path) -> None:
    model = model_of(f"{ATTENTION} {{ y = {node} (q, k, v) }}")
    assert in_onnxruntime(model, tmp_path) == Products(0, 0, ATTENTION_FLOPS)


# Either


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_products_of_activations_are_no_linears(engine: str, tmp_path: Path) -> None:
    """x attends to itself in pieces, and a Linear follows."""
    model = linear(
        "turned = Transpose <perm = [0, 2, 1]> (x) scores = MatMul (x, turned) softmax = Softmax (scores)"
        " attended = MatMul (softmax, x) y = MatMul (attended, w)"
    )
    found = in_onnxruntime(model, tmp_path) if engine == "onnxruntime" else in_openvino(model)
    assert found == Products(0, LINEAR, LINEAR + 2 * (2 * N * N * 16))


# OpenVINO


@pytest.mark.parametrize(
    ("body", "dtype", "integer", "coded"),
    [
        ("y = MatMul (x, w)", np.float32, 0, 0),
        (f"{DEQUANTIZED} y = MatMul (xd, wd)", np.int8, LINEAR, 0),
        (f"{ROUNDED} wd = DequantizeLinear (w, wscale, wzero) y = MatMul (x, wd)", np.int8, 0, LINEAR),
    ],
    ids=["float", "Q/DQ", "the weight alone"],
)
def test_openvino_linears(body: str, dtype: type, integer: int, coded: int) -> None:
    assert in_openvino(linear(body, dtype)) == Products(integer, LINEAR, LINEAR, coded)


def test_openvino_attention_is_two_products() -> None:
    assert in_openvino(model_of(f"{ATTENTION} {{ y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v) }}")) == (
        Products(0, 0, ATTENTION_FLOPS)
    )


@pytest.mark.parametrize(
    ("keys", "turned"),
    [
        ("float[1, 2, m, 8]", "Transpose <perm = [0, 1, 3, 2]>"),
        ("float[1, 2, 8, m]", "Identity"),
        ("float[1, m, 2, 8]", "Transpose <perm = [0, 2, 3, 1]>"),
    ],
    ids=["rows", "columns", "heads last"],
)
def test_openvino_attention_of_any_layout_of_keys(keys: str, turned: str) -> None:
    """The kernel that the plugin makes of pieces takes keys as they lie."""
    model = model_of(
        f"g (float[1, 2, n, 8] q, {keys} k, float[1, 2, m, 8] v) => (float[1, 2, n, 8] y) {{"
        f" t = {turned} (k) scores = MatMul (q, t) softmax = Softmax (scores) y = MatMul (softmax, v) }}"
    )
    assert in_openvino(model) == Products(0, 0, 2 * (2 * 2 * N * M * 8))


def test_openvino_tells_sizes_of_the_last_execution() -> None:
    model = linear("y = MatMul (x, w)")
    compiled, read = compiled_of(model)
    with pytest.raises(ValueError, match="those of no execution"):
        openvino_products(compiled, read)
    request = compiled.create_infer_request()
    for rows in (3, 7):
        request.infer(feeds(model, rows))
        assert openvino_products(compiled, read).linear == 2 * rows * 16 * 8


# Shares


def test_shares() -> None:
    found = Products(integer_linear=60, linear=80, total=120)
    assert (found.int8_linear_share, found.int8_total_share) == (0.75, 0.5)


def test_shares_of_nothing() -> None:
    assert (Products(0, 0, 0).int8_linear_share, Products(0, 0, 0).int8_total_share) == (0.0, 0.0)
