"""Every scheme in every engine: the kernel that it becomes, and that it computes what the canonical graph says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from wanc.calibration.schemes import SCHEMES
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.errors import CheckpointError
from wanc.runtime.backends.base import Array
from wanc.runtime.backends.openvino import compile_model
from wanc.words import ISLANDS

from .fusing import HAS_BFLOAT16, relative_error
from .passes.builder import run
from .quantised import compiled, linear

# The last block of a row of int4 is whole, or a quarter, or three quarters; or the row has but one.
WIDTHS = (160, 128, 480, 256, 96)
ROWS = (1, 33)
OUT = 96
# Both sides are float32 and differ in the order of sums, as in passes/builder.py.
EXACT = 1e-6
# OpenVINO multiplies by the inverse of a step: an input in the middle between two codes may become the other one.
INT8 = 1e-3
# It makes FP8 of float16: of 1 value in 256, which becomes the middle between two codes by that, the other code.
# Two codes are up to an eighth apart.
FP8 = 1e-2
# Half of the last place of bfloat16 is 2^-9, for each factor and for the result.
BFLOAT16 = 3.5e-3

ONNXRUNTIME: Mapping[str, tuple[str, str]] = {
    "int8": ("MatMulIntegerToFloat", "float"),
    "int8-dynamic": ("DynamicQuantizeMatMul", "float"),
    "int8-weight": ("MatMulNBits", "float"),
    "int4-weight": ("MatMulNBits", "float"),
}
OPENVINO: Mapping[str, tuple[str, str]] = {
    "int8": ("FullyConnected", "i8"),
    "int8-dynamic": ("FullyConnected", "i8"),
    "int8-weight": ("FullyConnected", "i8"),
    "int4-weight": ("FullyConnected", "i4"),
    "fp8": ("FullyConnected", "f32"),
}
"""By scheme, the one product that is executed, and its precision."""


def errors(compiler: Compiler, scheme: str, into: int, folder: Path) -> tuple[list[float], list[tuple[str, str]]]:
    """How far off a quantised Linear is for each number of rows, and the kernels that were executed for one."""
    path = compiled(compiler, linear(scheme, into, OUT, folder), folder)
    reference, backend = linear(scheme, into, OUT), compiler.execute(path)
    found = [relative_error(backend.run(x)[0], run(reference, x)["y"]) for x in map(given(into), ROWS)]
    once = compiler.execute(path)
    once.run(given(into)(ROWS[0]))
    return found, list(compiler.report(path, once).by_type)


def given(into: int):
    def feeds(rows: int) -> dict[str, Array]:
        random = np.random.default_rng([rows, into])
        shapes = {"x": (1, rows, into), "b": (OUT,)}
        return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    return feeds


@pytest.mark.parametrize("into", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_onnxruntime_computes_what_the_canonical_graph_says(scheme: str, into: int, tmp_path: Path) -> None:
    found, kernels = errors(OnnxRuntimeCompiler(), scheme, into, tmp_path)
    assert max(found) <= EXACT
    products = [kernel for kernel in kernels if "MatMul" in kernel[0] or "Gemm" in kernel[0]]
    assert products == [ONNXRUNTIME.get(scheme, ("MatMul", "float"))]


@pytest.mark.parametrize("into", WIDTHS)
@pytest.mark.parametrize("scheme", OPENVINO)
def test_openvino_computes_what_the_canonical_graph_says(scheme: str, into: int, tmp_path: Path) -> None:
    found, kernels = errors(OpenVinoCompiler("fp32", ()), scheme, into, tmp_path)
    assert max(found) <= {"int8": INT8, "fp8": FP8}.get(scheme, EXACT)
    assert [kernel for kernel in kernels if kernel[0] in ("FullyConnected", "MatMul")] == [OPENVINO[scheme]]


def test_openvino_says_what_blocks_it_does_not_take(tmp_path: Path) -> None:
    """Rather than to compute in floats without a word."""
    with pytest.raises(CheckpointError, match="part/main: openvino cannot load this graph") as caught:
        compiled(OpenVinoCompiler("fp32", ()), linear("int4-weight", 130, OUT, tmp_path), tmp_path)
    assert "cannot be divided by block_size" in str(caught.value.__cause__)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU does not multiply bfloat16")
@pytest.mark.parametrize("into", WIDTHS)
@pytest.mark.parametrize("scheme", ["int8-weight", "int4-weight"])
def test_openvino_multiplies_by_codes_in_bfloat16(scheme: str, into: int, tmp_path: Path) -> None:
    found, kernels = errors(OpenVinoCompiler("bf16", ()), scheme, into, tmp_path)
    assert EXACT < max(found) <= BFLOAT16
    kernel, codes = OPENVINO[scheme]
    assert [found for found in kernels if found[0] in ("FullyConnected", "MatMul")] == [(kernel, f"{codes} → bf16")]


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU does not multiply bfloat16")
@pytest.mark.parametrize(
    ("end", "precision"),
    [
        (
            "n = RMSNormalization <axis = -1> (a, s) turned = Transpose <perm = [0, 2, 1]> (r) y = MatMul (n, turned)",
            "bf16",
        ),
        ("c = Add (r, a) y = RMSNormalization <axis = -1> (c, s)", "f32"),
    ],
    ids=["a product", "the residual stream"],
)
def test_an_integer_product_gives_what_is_taken(end: str, precision: str, tmp_path: Path) -> None:
    """And nothing that another kernel would have to narrow, or that would be too coarse."""
    bias = f"k = Constant <value_floats = [{', '.join(['1.0'] * OUT)}]> () a = Add (p, k)"
    path = compiled(OpenVinoCompiler("bf16", ISLANDS), linear("int8", 64, OUT, tmp_path, f"{bias} {end}"), tmp_path)
    infos = [node.get_rt_info() for node in compile_model(path, threads=1).get_runtime_model().get_ops()]
    kernels = [tuple(str(info[key].astype(str)) for key in ("layerType", "outputPrecisions")) for info in infos]
    assert [found for kernel, found in kernels if kernel == "FullyConnected"] == [precision]


@pytest.mark.parametrize(
    ("compiler", "scheme", "tolerance"),
    [
        (OnnxRuntimeCompiler(), "int8-weight", EXACT),
        (OnnxRuntimeCompiler(), "int4-weight", EXACT),
        (OnnxRuntimeCompiler(), "fp8", EXACT),
        (OpenVinoCompiler("fp32", ()), "int8", INT8),
        (OpenVinoCompiler("fp32", ()), "int8-weight", EXACT),
        (OpenVinoCompiler("fp32", ()), "int4-weight", EXACT),
        (OpenVinoCompiler("fp32", ()), "fp8", FP8),
    ],
)
def test_a_probe_goes_through_all_of_a_linear(
    compiler: Compiler, scheme: str, tolerance: float, tmp_path: Path
) -> None:
    """From the rounding of its input on, and without its bias."""
    into = WIDTHS[0]
    path = compiled(compiler, linear(scheme, into, OUT, tmp_path), tmp_path)
    feeds = {**given(into)(7), "b": np.zeros(OUT, np.float32)}
    outputs = compiler.prober(path).run("a", feeds["x"][0])
    assert outputs is not None
    assert relative_error(outputs, run(linear(scheme, into, OUT), feeds)["y"][0]) <= tolerance
