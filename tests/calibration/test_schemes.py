"""Schemes: an input is rounded as ONNX says it is, and a weight to the codes of its format."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import onnx.parser
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from wanc.calibration.gptq import Moments
from wanc.calibration.schemes import LARGEST, SCHEMES, InputFormat, rounded_inputs
from wanc.calibration.weights import FP8, LARGEST_FP8, round_to_fp8, round_to_nearest, sqnr_db

VALUES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.floats(-(2.0**20), 2.0**20, width=32, allow_subnormal=False),
)
STEPS = st.floats(2.0**-12, 2.0**12, width=32)
STATIC = """g (float[n, m] x, float s) => (float[n, m] y) {{
    zero = Constant <value_int = 0> ()  z = Cast <to = {dtype}> (zero)
    q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }}"""
DYNAMIC = "g (float[n, m] x) => (float[n, m] y) { q, s, z = DynamicQuantizeLinear (x)  y = DequantizeLinear (q, s, z) }"
DTYPES = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}


@cache
def session(inputs: InputFormat) -> onnxruntime.InferenceSession:
    body = DYNAMIC if inputs == "uint8" else STATIC.format(dtype=DTYPES[inputs])
    proto = onnx.parser.parse_model(f'<ir_version: 11, opset_import: ["" : 23]> {body}')
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def executed(values: NDArray, inputs: InputFormat, scale: float | None) -> NDArray[np.float32]:
    feeds = {"x": values} if scale is None else {"x": values, "s": np.array(scale, np.float32)}
    return session(inputs).run(None, feeds)[0]


@pytest.mark.parametrize("inputs", ["int8", "fp8"])
@given(values=VALUES, scale=STEPS)
def test_inputs_of_a_known_step_are_rounded_as_onnxruntime_does_it(
    inputs: InputFormat, values: NDArray, scale: float
) -> None:
    np.testing.assert_array_equal(rounded_inputs(values, inputs, scale), executed(values, inputs, scale))


@given(values=VALUES)
def test_inputs_of_a_range_of_their_own_are_rounded_as_onnxruntime_does_it(values: NDArray) -> None:
    np.testing.assert_array_equal(rounded_inputs(values, "uint8", None), executed(values, "uint8", None))


@pytest.mark.parametrize("values", [[[0.0, 0.0]], [[3.0, 5.0]], [[-7.0, -2.0]], [[-1.0, 1.0]], [[1e-30, 0.0]]])
def test_ranges_that_are_special(values: list[list[float]]) -> None:
    """Zero is always in the range, and always exact."""
    array = np.array(values, np.float32)
    found = rounded_inputs(array, "uint8", None)
    np.testing.assert_array_equal(found, executed(array, "uint8", None))
    assert not rounded_inputs(np.append(array, 0)[None], "uint8", None)[0, -1]


def test_inputs_that_are_not_rounded() -> None:
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(rounded_inputs(values, None, None), values)


@pytest.mark.parametrize("inputs", ["int8", "fp8"])
def test_the_largest_code_is_the_threshold(inputs: InputFormat) -> None:
    reach = 3.0
    values = np.array([reach, -reach, 2 * reach, 0], np.float32)
    rounded = rounded_inputs(values, inputs, reach / LARGEST[inputs])
    np.testing.assert_allclose(rounded[[0, 2]], [reach, reach], rtol=1e-6)
    # int8 has one code more below zero.
    np.testing.assert_allclose(rounded[1], -reach, rtol=1e-6)
    assert rounded[3] == 0


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_codes_of_every_scheme(scheme: str) -> None:
    weights = np.random.default_rng(0).normal(size=(6, 200)).astype(np.float32)
    format = SCHEMES[scheme]
    codes = format.codes(weights)
    assert codes.values.dtype == (FP8 if format.weights == "fp8" else np.int8)
    assert codes.scales.shape == (6, 2 if format.weights == "int4" else 1)
    # 8 bits of whole numbers are 40 dB on noise, 4 bits are 20, the three of an fp8 mantissa 31.
    least = {"int8": 38, "int4": 18, "fp8": 29}[format.weights]
    assert sqnr_db(codes.weights(), weights) > least
    assert format.is_static == (format.inputs in ("int8", "fp8"))
    assert format.needs_moments == (scheme == "int4-weight")


def test_moments_are_used_where_they_are_given() -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(8, 64)).astype(np.float32)
    inputs = (random.normal(size=(300, 4)) @ random.normal(size=(4, 64))).astype(np.float32)
    moments = Moments(64)
    moments.add(inputs)
    plain, mended = (SCHEMES["int4-weight"].codes(weights, given) for given in (None, moments.total))
    np.testing.assert_array_equal(plain.values, round_to_nearest(weights, levels=7, group=128).values)
    expected = inputs @ weights.T
    assert sqnr_db(inputs @ mended.weights().T, expected) > sqnr_db(inputs @ plain.weights().T, expected) + 3


# fp8


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    )
)
def test_fp8_is_off_by_half_a_step_at_most(weights: NDArray) -> None:
    """A sixteenth of a number, or half of the smallest step where numbers are small against their row's largest."""
    codes = round_to_fp8(weights)
    assert (codes.values.dtype, codes.scales.shape, codes.group) == (FP8, (len(weights), 1), weights.shape[1])
    values = codes.values.astype(np.float32)
    assert np.isfinite(values).all() and np.isfinite(codes.scales).all()
    largest = np.abs(weights).max(axis=1)
    np.testing.assert_array_equal(np.abs(values).max(axis=1), np.where(codes.scales[:, 0] > 0, LARGEST_FP8, 0))
    smallest = float(ml_dtypes.finfo(FP8).smallest_subnormal)
    off = np.abs(codes.weights().astype(np.float64) - weights)
    allowed = np.maximum(np.abs(weights) / 16, smallest / 2 * codes.scales) * (1 + 1e-5)
    assert (off <= np.where(largest[:, None] > 1e-30, allowed, 1e-30)).all()


def test_zeros_of_fp8() -> None:
    codes = round_to_fp8(np.array([[0, 0], [1, 0]], np.float32))
    np.testing.assert_array_equal(codes.weights(), [[0, 0], [1, 0]])
