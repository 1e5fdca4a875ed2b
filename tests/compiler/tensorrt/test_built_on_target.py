"""tiny-wan's step as `tensorrt` lowers it, built with TensorRT-RTX in its place: what is asked for is what is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.compiler.engines.kernels import check_fused
from wanc.compiler.engines.quantization_check import check_named, check_products
from wanc.compiler.engines.tensorrt.asked import asked_kernels, check_built
from wanc.compiler.engines.tensorrt.building import BuildTask
from wanc.compiler.engines.tensorrt.compiler import TensorRtCompiler
from wanc.compiler.engines.tensorrt.engine import TensorRtEngine
from wanc.compiler.engines.tensorrt.log import parse_log
from wanc.compiler.engines.tensorrt.on_target import BuildSettings
from wanc.compiler.engines.tensorrt.process import build_in_process
from wanc.compiler.engines.tensorrt.report import BuildReport
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.program.disk_use import executed_bytes
from wanc.compiler.program.graph_file import load, save
from wanc.errors import UserError
from wanc.words import Island

from .conftest import Step

ISLANDS: tuple[Island, ...] = ("residual", "modulation", "norm", "rope", "time")
VICTIM = "blocks.2.ffn.net.2"


def built(graph: Path, settings: BuildSettings, target: str, engine: Path) -> BuildReport:
    task = BuildTask(str(graph), str(engine), target, settings.profiles, settings.values, settings.weight_streaming)
    outcome = build_in_process("tests.compiler.tensorrt.rtx_in_place", task, "step", "tensorrt")
    return BuildReport.of(parse_log(outcome.messages), load(graph), settings.example)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "target"), [("int8", "sm80"), ("fp8", "sm89")])
def test_what_is_asked_for_is_what_is_built(scheme: str, target: str, step: Step, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "program").mkdir()
    compiler = TensorRtCompiler("bf16", ISLANDS, weight_streaming=False)
    files = step.quantised(scheme, tmp_path / "program")
    made, graphs = step.compiled(compiler, target, files, tmp_path / "out"), lowerable(files)
    for name, path in made.items():
        asked, model = compiler.report(path, None), graphs[name].model
        check_named(name, model, asked.linears or {})
        check_products(name, model, graphs[name].graph.example, asked.products)
        check_fused(name, model, asked, (), compiler.has_kernel)
    graph, settings = made["step"], BuildSettings.read(made["step"], "step")
    asked = asked_kernels(load(graph), settings.example)
    found = built(graph, settings, target, tmp_path / "step.engine").as_kernels
    check_built("step", asked, found, ())
    assert asked.linears == found.linears and asked.fused_attentions == found.fused_attentions
    assert asked.products == found.products and asked.precision == found.precision == "half"

    # The same with a Linear that the builder is given in float.
    model = load(graph)
    (linear,) = [linear for linear in quantized_linears(model) if linear.name == VICTIM]
    linear.product.replace_input_with(0, linear.input)
    save(model, graph.with_name("left.onnx"))
    left = built(graph.with_name("left.onnx"), settings, target, tmp_path / "left.engine").as_kernels
    with pytest.raises(UserError, match=rf"step asks for .* × .* in {VICTIM}, and the engine multiplies BFloat16"):
        check_built("step", asked, left, ())


@pytest.mark.slow
def test_weights_may_be_streamed(component: Callable[[str], Step], tmp_path: Path) -> None:
    """The library takes the flag, and builds another engine of the same kernels."""
    pytest.importorskip("tensorrt_rtx")
    encoder, engines, reports = component("text_encoder"), list[bytes](), list[BuildReport]()
    for streaming in (False, True):
        compiler = TensorRtCompiler("bf16", ISLANDS, streaming)
        graph = encoder.compiled(compiler, "sm89", encoder.files, tmp_path / str(streaming))["encode"]
        written = sum(path.stat().st_size for path in graph.parent.iterdir())
        told = TensorRtEngine("bf16", ISLANDS).copies(1) * executed_bytes(encoder.files)
        assert 0.8 * written < told <= written, "what a build asks of the disk is what it writes, and rather less"
        settings = BuildSettings.read(graph, "encode")
        assert settings.weight_streaming == streaming
        reports.append(built(graph, settings, "sm89", tmp_path / "encode.engine"))
        engines.append((tmp_path / "encode.engine").read_bytes())
    assert engines[0] != engines[1]
    assert reports[0].linears == reports[1].linears and reports[0].fused == reports[1].fused
