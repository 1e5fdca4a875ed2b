"""Engines of tiny-wan's graphs, built for GPUs that are not there: in which numbers, in which kernels, and for whom."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import pytest

from wanc.compiler.engines.kernels import check_fused
from wanc.compiler.engines.quantization_check import check_attentions, check_named
from wanc.compiler.engines.tensorrt.report import BuildReport
from wanc.compiler.engines.tensorrt_rtx import compiler as rtx
from wanc.compiler.engines.tensorrt_rtx.compiler import TensorRtRtxCompiler
from wanc.compiler.graphs.attentions import NamedAttention, attentions
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.errors import CheckpointError, UserError, render
from wanc.words import Compute, Island

from .conftest import Step

pytest.importorskip("tensorrt_rtx_bindings")

ISLANDS: tuple[Island, ...] = ("residual", "modulation", "norm", "rope", "time")
SELECTED = 50
"""Linears of tiny-wan's five blocks: eight in each of the step, and two of each in the part for a request."""


@dataclass(frozen=True)
class Planted(TensorRtRtxCompiler):
    """Lowers with a fault, first of all."""

    fault: Callable[[ir.Model], int] = len

    def lowering(self, component: str, graph: str) -> tuple[Pass, ...]:
        done: list[bool] = []

        def apply(model: ir.Model) -> PassOutcome:
            fired = 0 if done else self.fault(model)
            done.append(True)
            return PassOutcome(fired)

        return (Pass("planted", "", apply), *super().lowering(component, graph))


def reports(made: Mapping[str, Path]) -> dict[str, BuildReport]:
    return {graph: BuildReport.read(path) for graph, path in made.items()}


@pytest.mark.parametrize(
    ("scheme", "target"),
    [
        ("int8", "sm89"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("int8", "sm80"), ("int8", "sm120"), ("fp8", "sm89"), ("fp8", "sm120"))
        ),
    ],
)
def test_every_selected_linear_and_attention_has_its_kernel(
    scheme: str, target: str, step: Step, tmp_path: Path
) -> None:
    (tmp_path / "program").mkdir()
    files, compiler = step.quantised(scheme, tmp_path / "program"), TensorRtRtxCompiler(target, "bf16", ISLANDS)
    found = reports(step.compiled(compiler, target, files, tmp_path / "out"))
    graphs, selected = lowerable(files), 0
    for name, entry in graphs.items():
        kernels = found[name].as_kernels
        check_fused(name, entry.model, kernels, (), compiler.has_kernel)
        assert kernels.linears is not None
        check_named(name, entry.model, kernels.linears)
        selected += len(quantized_linears(entry.model))
    assert selected == SELECTED
    assert len(found["step"].fused) == 10 and not found["step"].unfused
    assert found["step"].linears["proj_out"] == "BFloat16 × BFloat16", "it was to be kept"
    assert set(found["time"].linears.values()) == {"Float × Float"}, "it is an island"


@pytest.mark.slow
def test_sm75_computes_in_fp16(step: Step, tmp_path: Path) -> None:
    islands: tuple[Island, ...] = ("residual", "modulation", "norm", "rope")
    (tmp_path / "program").mkdir()
    files = step.quantised("int8", tmp_path / "program")
    found = reports(step.compiled(TensorRtRtxCompiler("sm75", "fp16", islands), "sm75", files, tmp_path / "out"))
    assert found["step"].linears["blocks.0.attn1.to_q"] == "Int8 × Int8"
    assert found["step"].linears["proj_out"] == "Half × Half"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_encoder", "denoiser_high"])
def test_the_same_graphs_are_the_same_bytes(name: str, component: Callable[[str], Step], tmp_path: Path) -> None:
    """Those of a denoiser have many outputs, of which TensorRT keeps a set by their addresses."""
    found, compiler = component(name), TensorRtRtxCompiler("sm89", "bf16", ISLANDS)
    first, *others = [found.compiled(compiler, "sm89", found.files, tmp_path / str(number)) for number in range(3)]
    for graph, path in first.items():
        assert all(other[graph].read_bytes() == path.read_bytes() for other in others), graph
        assert not list(path.parent.glob("*.onnx")), "what it was built of is gone"
        assert not list(path.parent.glob("*.bin"))


@pytest.mark.slow
def test_the_decoder_s_single_head_is_no_kernel_and_is_told(component: Callable[[str], Step], tmp_path: Path) -> None:
    decoder, compiler = component("vae_decoder"), TensorRtRtxCompiler("sm89", "bf16", ISLANDS)
    found = reports(decoder.compiled(compiler, "sm89", decoder.files, tmp_path / "out"))
    for name, entry in lowerable(decoder.files).items():
        check_fused(name, entry.model, found[name].as_kernels, (), compiler.has_kernel)
        assert found[name].unfused == ("decoder.mid_block.attentions.0",)
        assert set(found[name].kernels["correlation"]) == {"BFloat16 × BFloat16 → BFloat16"}


@pytest.mark.slow
def test_a_linear_that_is_left_in_float_is_refused(step: Step, tmp_path: Path) -> None:
    victim = "blocks.2.ffn.net.2"

    def leave(model: ir.Model) -> int:
        found = [linear for linear in quantized_linears(model) if linear.name == victim]
        for linear in found:
            linear.product.replace_input_with(0, linear.input)
        return len(found)

    (tmp_path / "program").mkdir()
    files = step.quantised("int8", tmp_path / "program")
    found = reports(step.compiled(Planted("sm89", "bf16", ISLANDS, leave), "sm89", files, tmp_path / "out"))
    with pytest.raises(UserError, match=rf"step asks for int8 × int8 in {re.escape(victim)}, and the engine"):
        check_named("step", lowerable(files)["step"].model, found["step"].linears)


@pytest.mark.slow
def test_an_attention_that_is_not_fused_is_refused(step: Step, tmp_path: Path) -> None:
    def share(model: ir.Model) -> int:
        """Have something else look at the scores as well: the softmax of one attention in float64."""
        attention = next(node for node in model.graph if node.op_type == "Attention")
        attention.attributes["q_num_heads"] = ir.AttrInt64("q_num_heads", 1)
        attention.attributes["kv_num_heads"] = ir.AttrInt64("kv_num_heads", 1)
        return 1

    compiler = Planted("sm89", "bf16", ISLANDS, lambda model: share(model) if "step" in str(model.graph.name) else 0)
    found = reports(step.compiled(compiler, "sm89", step.files, tmp_path / "out"))
    assert found["step"].unfused == ("blocks.0.attn1",)
    model = lowerable(step.files)["step"].model
    with pytest.raises(UserError, match="step asks for 10 fused Attention, and the engine built 9"):
        check_fused("step", model, found["step"].as_kernels, (), compiler.has_kernel)


VICTIM = "blocks.2.attn2"


def of_step(fault: Callable[[ir.Node], None]) -> Callable[[ir.Model], int]:
    """A fault of one attention of the step, which is the only graph that has some."""

    def apply(model: ir.Model) -> int:
        found = [attention.node for attention in attentions(model) if attention.name == VICTIM]
        for node in found:
            fault(node)
        return len(found)

    return apply


def not_rounded(node: ir.Node) -> None:
    for index, value in enumerate(NamedAttention(VICTIM, node).inputs):
        node.replace_input_with(index, value)


def of_one_head(node: ir.Node) -> None:
    for name in ("q_num_heads", "kv_num_heads"):
        node.attributes[name] = ir.AttrInt64(name, 1)


@pytest.mark.parametrize(
    ("fault", "built"),
    [
        pytest.param(not_rounded, "BFloat16", marks=pytest.mark.slow),
        pytest.param(of_one_head, "floats, in several kernels", marks=pytest.mark.slow),
    ],
)
def test_an_attention_in_fp8_that_is_built_otherwise_is_refused(
    fault: Callable[[ir.Node], None], built: str, step: Step, tmp_path: Path
) -> None:
    """One of ten, the keys and values of which come from another graph; the others are built as they were asked for."""
    (tmp_path / "program").mkdir()
    files = step.quantised("fp8", tmp_path / "program", "fp8")
    found = reports(step.compiled(Planted("sm89", "bf16", ISLANDS, of_step(fault)), "sm89", files, tmp_path / "out"))
    others = {name: numbers for name, numbers in found["step"].attentions.items() if name != VICTIM}
    assert len(others) == 9 and set(others.values()) == {"FP8"}
    model, kernels = lowerable(files)["step"].model, found["step"].as_kernels
    with pytest.raises(
        UserError, match=rf"step asks for fp8 in {re.escape(VICTIM)}, and the engine multiplies {built}"
    ):
        check_attentions("step", model, kernels.attentions)
    unplanted = {**kernels.attentions, VICTIM: "FP8"}
    check_attentions("step", model, unplanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "compute"), [("sm89", "bf16"), ("sm89", "fp16"), ("sm120", "bf16"), ("sm121", "bf16")]
)
def test_every_attention_is_one_kernel_in_fp8(target: str, compute: Compute, step: Step, tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    files, compiler = (
        step.quantised("fp8", tmp_path / "program", "fp8"),
        TensorRtRtxCompiler(target, compute, ISLANDS),
    )
    found = reports(step.compiled(compiler, target, files, tmp_path / "out"))["step"].as_kernels
    model = lowerable(files)["step"].model
    check_attentions("step", model, found.attentions)
    check_fused("step", model, found, (), compiler.has_kernel)
    assert [attention.numbers for attention in attentions(model)] == ["fp8"] * 10
    assert found.attentions == {attention.name: "FP8" for attention in attentions(model)}
    assert found.linears is not None
    check_named("step", model, found.linears)


def test_an_engine_for_another_target_is_refused(
    component: Callable[[str], Step], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoder, real = component("text_encoder"), rtx.BuildTask
    monkeypatch.setattr(rtx, "BuildTask", lambda graph, engine, _, *rest: real(graph, engine, "sm80", *rest))
    with pytest.raises(UserError, match="it is for sm80, not for sm89"):
        encoder.compiled(TensorRtRtxCompiler("sm89", "bf16", ISLANDS), "sm89", encoder.files, tmp_path / "out")


def test_a_type_that_a_target_has_not_is_told_and_leaves_nothing(
    component: Callable[[str], Step], tmp_path: Path
) -> None:
    encoder = component("text_encoder")
    with pytest.raises(CheckpointError) as caught:
        encoder.compiled(TensorRtRtxCompiler("sm75", "bf16", ISLANDS), "sm75", encoder.files, tmp_path / "out")
    error, cause, hint = render(caught.value).splitlines()
    assert error == "error: text_encoder/encode: tensorrt-rtx does not build this graph"
    assert "Cannot compile for target(s) sm75" in cause
    assert hint.startswith("hint: ")
    assert not list((tmp_path / "out").rglob("*.engine"))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("tests.compiler.tensorrt.missing", "error: tensorrt-rtx needs the package tensorrt_rtx_bindings"),
        ("tests.compiler.tensorrt.another_version", "error: tensorrt-rtx 1.6.1.120 is installed"),
        ("tests.compiler.tensorrt.dying", "error: text_encoder/encode: the process that builds its engine ended"),
        ("tests.compiler.tensorrt.out_of_memory", "error: text_encoder/encode: tensorrt-rtx needs more memory"),
    ],
)
def test_how_a_build_ends_otherwise(
    module: str, message: str, component: Callable[[str], Step], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rtx, "BUILD", module)
    encoder = component("text_encoder")
    with pytest.raises(UserError) as caught:
        encoder.compiled(TensorRtRtxCompiler("sm89", "bf16", ISLANDS), "sm89", encoder.files, tmp_path / "out")
    lines = render(caught.value).splitlines()
    assert lines[0].startswith(message)
    assert lines[-1].startswith("hint: ")
    assert not list((tmp_path / "out").rglob("*.engine"))
