"""What an engine really built is read back from it, and a fused operator that came out in pieces stops the build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.kernels import Kernels, check_fused, describe
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.products import Products
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import load
from wanc.compiler.program.program import ProgramComponent, ProgramGraph
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import EXIT_REFUSED, UserError
from wanc.models.graph import Input, Output
from wanc.words import ISLANDS, Island

from .fusing import HAS_BFLOAT16

ATTENTION = """
<ir_version: 10, opset_import: ["" : 23]>
attending ({dtype}[1, tokens, 32] q, {dtype}[1, tokens, 32] k, {dtype}[1, tokens, 32] v) => ({dtype}[1, tokens, 32] y)
{{ y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v) }}
"""
PRODUCT = """
<ir_version: 10, opset_import: ["" : 23]>
product (float[1, tokens, 32] q, float[1, tokens, 32] k) => (float[1, tokens, 32] y)
{ turned = Transpose <perm = [0, 2, 1]> (k)  scores = MatMul (q, turned)  y = MatMul (scores, q) }
"""
SUM = """
<ir_version: 10, opset_import: ["" : 23]>
summed (float[1, tokens, 32] q, float[1, tokens, 32] k) => (float[1, tokens, 32] y)
{
  turned = Transpose <perm = [0, 2, 1]> (k)
  scores = MatMul (q, turned)
  sum = Add (scores, scores)
  y = MatMul (sum, q)
}
"""
NOTHING = Products(0, 0, 0)
IN_PIECES = Kernels({("MatMul", "float"): 2, ("Softmax", "float"): 1}, {}, NOTHING)


def write(folder: Path, text: str = ATTENTION, dtype: str = "float") -> Path:
    path = folder / "main.onnx"
    onnx.save(onnx.parser.parse_model(text.format(dtype=dtype) if text is ATTENTION else text), path)
    return path


def build(
    compiler: Compiler,
    canonical: Path,
    out: Path,
    name: str = "main",
    component: str = "model",
    dtype: str = "float32",
) -> Kernels:
    """Lower one graph, execute it once, and read back what was executed."""
    inputs = [value.name for value in onnx.load_model(canonical).graph.input]
    graph = ProgramGraph(
        "main.onnx",
        tuple(Input(key, (1, "tokens", 32), "request", "request") for key in inputs),
        (Output("y", (1, "tokens", 32)),),
        {"tokens": 5},
    )
    program = ProgramComponent({name: graph}, {})
    files = ComponentFiles(component, program, {"main.onnx": canonical}, {})
    (file,) = compile_segment(compiler, files, whole(files), CPU, out, FiniteCheck(component)).files
    backend = compiler.execute(out / file.file)
    assert backend is not None
    random = np.random.default_rng(0)
    backend.run({key: random.standard_normal((1, 5, 32)).astype(dtype) for key in inputs})
    return compiler.report(out / file.file, backend)


FLOAT32: dict[str, Compiler] = {"onnxruntime": OnnxRuntimeCompiler(), "openvino": OpenVinoCompiler("fp32", ())}


def test_a_missing_kernel_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_fused("denoiser_high/step", load(write(tmp_path)), IN_PIECES, ())
    assert caught.value.exit_code == EXIT_REFUSED == 1
    assert caught.value.message == "denoiser_high/step asks for 1 fused Attention, and the engine built 0"
    assert caught.value.hint == "if that will do, allow it: engine.allow_unfused: [Attention]"


def test_a_missing_kernel_that_is_allowed_passes(tmp_path: Path) -> None:
    check_fused("denoiser_high/step", load(write(tmp_path)), IN_PIECES, ("Attention",))


def test_allowing_one_operator_allows_no_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fused Attention"):
        check_fused("denoiser_high/step", load(write(tmp_path)), IN_PIECES, ("RMSNormalization", "RotaryEmbedding"))


def test_a_graph_that_asks_for_nothing_fused_passes(tmp_path: Path) -> None:
    check_fused("model/main", load(write(tmp_path, PRODUCT)), IN_PIECES, ())


@pytest.mark.parametrize("compiler", FLOAT32.values(), ids=FLOAT32)
def test_attention_is_built_as_one_kernel(compiler: Compiler, tmp_path: Path) -> None:
    canonical = write(tmp_path)
    kernels = build(compiler, canonical, tmp_path / "out")
    assert kernels.fused == {"Attention": 1}
    check_fused("model/main", load(canonical), kernels, ())


def test_an_operator_that_onnxruntime_expands_is_found_out(tmp_path: Path) -> None:
    """It has no kernel for attention in float64, and takes the operator's definition in its place."""
    canonical = write(tmp_path, dtype="double")
    kernels = build(OnnxRuntimeCompiler(), canonical, tmp_path / "out", dtype="float64")
    assert kernels.fused == {}
    assert kernels.by_type["Softmax", "double"] == 1
    with pytest.raises(UserError, match="asks for 1 fused Attention, and the engine built 0"):
        check_fused("model/main", load(canonical), kernels, ())


@pytest.mark.parametrize("compiler", FLOAT32.values(), ids=FLOAT32)
def test_nothing_of_reading_back_stays(compiler: Compiler, tmp_path: Path) -> None:
    build(compiler, write(tmp_path), tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out/engines/model").iterdir())
    assert names in (["main.s0.cpu.onnx"], ["main.s0.cpu.bin", "main.s0.cpu.xml"])


def test_the_report_counts_kernels_by_precision() -> None:
    by_type = {("MatMul", "bf16"): 3, ("MatMul", "f32"): 1, ("Add", "f32"): 2}
    kernels = Kernels(by_type, {"RotaryEmbedding": 2}, Products(3, 4, 12))
    assert describe(kernels, 5) == {
        "kernels": {"Add": {"f32": 2}, "MatMul": {"bf16": 3, "f32": 1}},
        "fused": {"RotaryEmbedding": 2},
        "int8_linear_share": 0.75,
        "int8_total_share": 0.25,
        "attention_share": 1 - 4 / 12,
        "precision": "half",
        "bytes": 5,
    }


@pytest.mark.parametrize(
    ("compute", "islands", "graph", "component", "precision"),
    [
        ("fp32", (), "main", "denoiser_high", "f32"),
        ("bf16", ISLANDS, "main", "denoiser_high", "bf16"),
        ("bf16", ISLANDS, "time", "denoiser_high", "f32"),
        ("bf16", ISLANDS, "main", "vae_decoder", "f32"),
        ("bf16", ("residual", "modulation", "norm", "rope"), "time", "denoiser_high", "bf16"),
        ("bf16", ("residual", "modulation", "norm", "rope", "time"), "main", "vae_decoder", "bf16"),
    ],
)
def test_products_have_the_precision_that_was_asked_for(
    compute: str, islands: tuple[Island, ...], graph: str, component: str, precision: str, tmp_path: Path
) -> None:
    if precision == "bf16" and not HAS_BFLOAT16:
        pytest.skip("this machine has no bf16")
    kernels = build(OpenVinoCompiler(compute, islands), write(tmp_path, PRODUCT), tmp_path / "out", graph, component)
    assert {found for kernel, found in kernels.by_type if kernel == "MatMul"} == {precision}


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this machine has no bf16")
@pytest.mark.parametrize(("islands", "precision"), [(ISLANDS, "f32"), ((), "bf16")], ids=["island", "no island"])
def test_an_island_stays_in_float32(islands: tuple[Island, ...], precision: str, tmp_path: Path) -> None:
    kernels = build(OpenVinoCompiler("bf16", islands), write(tmp_path, SUM), tmp_path / "out")
    assert {found for kernel, found in kernels.by_type if kernel in ("Eltwise", "Subgraph")} == {precision}
    assert {found for kernel, found in kernels.by_type if kernel == "MatMul"} == {"bf16"}
