"""What TensorRT-RTX builds of a step that is split over ranks: exchanges, and fused attention of a rank's heads."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.tensorrt.report import BuildReport
from wanc.compiler.engines.tensorrt_rtx.build import BINDINGS
from wanc.compiler.engines.tensorrt_rtx.compiler import TensorRtRtxCompiler
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.program.graph_file import save
from wanc.words import ISLANDS

from .narrowed import stored
from .test_ulysses import COLUMNS, FRAMES, LAYERS, ROWS, TOKENS, Step, formed, step

__all__ = ["step"]
pytestmark = pytest.mark.skipif(importlib.util.find_spec(BINDINGS) is None, reason="TensorRT-RTX is not installed")
SIZES = {"frames": FRAMES, "rows": ROWS, "columns": COLUMNS, "tokens": TOKENS}
COMPONENT, GRAPH = "denoiser_high", "step"


def built(step: Step, target: str, scheme: str | None, ranks: int, folder: Path) -> BuildReport:
    """What the build's log says of the engine that all ranks load."""
    compiler = TensorRtRtxCompiler(target, "bf16", ISLANDS)
    model = formed(step, scheme or "float", folder)
    split = step.split(model, ranks)
    apply_passes(split, compiler.lowering(COMPONENT, GRAPH), where="the test")
    path = folder / f"{GRAPH}.onnx"
    save(stored(split, step.weights, folder, GRAPH), path)
    made = compiler.compile(COMPONENT, {GRAPH: LoweredGraph(path, SIZES)}, frozenset({folder / f"{GRAPH}.bin"}))
    return BuildReport.read(made[GRAPH])


@pytest.mark.parametrize(
    ("target", "scheme"),
    [
        ("sm89", "int8"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("sm80", None), ("sm80", "int8"), ("sm89", None), ("sm120", None), ("sm120", "int8"))
        ),
    ],
)
def test_exchanges_and_fused_attention(step: Step, target: str, scheme: str | None, tmp_path: Path) -> None:
    report = built(step, target, scheme, 2, tmp_path)
    assert sum(report.kernels["comm_alltoall"].values()) == 4 * LAYERS
    assert set(report.kernels["comm_alltoall"]) == {"BFloat16"}
    assert sum(report.kernels["comm_allgather"].values()) == 1
    assert report.kernels["Attention"] == {"BFloat16": 2 * LAYERS}
    assert report.unfused == ()
    if scheme:
        assert sum(numbers == "Int8 × Int8" for numbers in report.linears.values()) == 8 * LAYERS


@pytest.mark.slow
def test_of_four_ranks(step: Step, tmp_path: Path) -> None:
    report = built(step, "sm89", None, 4, tmp_path)
    assert sum(report.kernels["comm_alltoall"].values()) == 4 * LAYERS
    assert len(report.fused) == 2 * LAYERS


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm89", "sm120"])
def test_fused_attention_in_fp8(target: str, step: Step, tmp_path: Path) -> None:
    """Of the tokens to each other: there is no kernel in FP8 for so few keys as this text has, fewer than 32."""
    report = built(step, target, "fp8 with attention", 2, tmp_path)
    assert report.attentions == {f"blocks.{layer}.attn1": "FP8" for layer in range(LAYERS)}
    assert report.unfused == tuple(f"blocks.{layer}.attn2" for layer in range(LAYERS))
    assert set(report.kernels["comm_alltoall"]) == {"BFloat16"}
