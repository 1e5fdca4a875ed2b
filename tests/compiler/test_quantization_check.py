"""What an engine built of a quantised program, against what was asked for: right ones pass, and no fault goes unseen.

Both engines are given whole programs, through their stages; every fault is planted where it would arise, in what the
quantize stage wrote or in an engine's own lowering.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir
import pytest

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.products import Products
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.program.program import FILE, Program, ProgramComponent
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.runtime.denoise import GRAPH
from wanc.runtime.model import HIGH, LOW

from .fusing import files_of
from .planted_faults import (
    KINDS,
    Made,
    build,
    edited,
    leave_the_input,
    lowering_with,
    refusal,
    rescale,
    scale_of_a_kernel_off,
    take_the_float_weight,
    with_components,
    with_scales_off,
)
from .transformer import KEEP, Denoiser, FloatDenoiser, make, quantised

KEPT = (*KEEP, "proj_in", "*.ffn.up")
"""Besides, those whose weight is stored as no Linear of torch is: there is no integer kernel for them."""
ALONE = "blocks.0.attn1.to_out"
"""The only Linear of its input."""
VICTIMS = (ALONE, "blocks.1.attn1.to_k", "blocks.0.attn2.to_v", "blocks.1.ffn.down")


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


def low(denoiser: Denoiser) -> Denoiser:
    """The same denoiser as the other expert."""

    def renamed(name: str | None) -> str:
        return str(name).replace(HIGH, LOW)

    graphs = {name: replace(graph, file=renamed(graph.file)) for name, graph in denoiser.component.graphs.items()}
    files = {renamed(name): path for name, path in denoiser.graphs.items()}
    return Denoiser(replace(denoiser.component, graphs=graphs), files, denoiser.weights)


@pytest.fixture(scope="module")
def both(denoiser: FloatDenoiser, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Both experts, quantised."""
    out = tmp_path_factory.mktemp("quantised") / "out"
    out.mkdir()
    components: dict[str, ProgramComponent] = {}
    for name, expert in ((HIGH, denoiser), (LOW, low(denoiser))):
        components[name], table = quantised(expert, out, keep=KEPT, name=name)
        table.write(out)
    Program("graph", None, components, None).write(out)
    return Made(files_of(out), denoiser.graphs)


@pytest.fixture
def one(both: Made, tmp_path: Path) -> Made:
    """A program of one expert."""
    folder = tmp_path / "one"
    folder.mkdir()
    return with_components(both, {HIGH: Program.read(both.program[FILE]).components[HIGH]}, folder)


def engine(kind: str, *quantized: str) -> Assemble:
    chosen = OnnxRuntimeEngine() if kind == "onnxruntime" else OpenVinoEngine()
    return Assemble(chosen, quantized=quantized or (HIGH,))


# What is right


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_passes_and_its_tables_go_along(both: Made, kind: str, tmp_path: Path) -> None:
    out = build(engine(kind, HIGH, LOW), both, tmp_path)
    for name in (HIGH, LOW):
        assert QuantTable.read(out / table_file(name)) == QuantTable.read(both.program[table_file(name)])
    assert not list(out.glob("probes*")), "they are no part of a bundle"


# Faults of what was quantised


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_scales_of_a_weight_that_are_off(one: Made, kind: str, victim: str, tmp_path: Path) -> None:
    """In the program's own file of codes and scales."""
    spoilt = with_scales_off(one, victim, tmp_path)
    message = refusal(engine(kind), spoilt, tmp_path)
    assert re.fullmatch(rf"denoiser_high/{victim} has \S+ dB in the engine, and its QuantTable says \S+ dB", message)


ONE_OF_A_PAIR = {
    # No kernel fits two scales: what is left is a product of floats.
    "onnxruntime": r"denoiser_high/step asks for INT8 in \S+ of what its Linears compute, and the engine has \S+",
    "openvino": rf"denoiser_high/{ALONE} has \S+ dB in the engine, and its QuantTable says \S+ dB",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op_type", ["QuantizeLinear", "DequantizeLinear"])
def test_a_pair_of_two_scales(one: Made, kind: str, op_type: str, tmp_path: Path) -> None:
    message = refusal(engine(kind), edited(one, tmp_path, rescale(op_type), ALONE), tmp_path)
    assert re.fullmatch(ONE_OF_A_PAIR[kind], message)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", [ALONE, "blocks.0.attn2.to_v"])
def test_a_linear_that_takes_its_float_weight_again(one: Made, kind: str, victim: str, tmp_path: Path) -> None:
    message = refusal(engine(kind), edited(one, tmp_path, take_the_float_weight, victim), tmp_path)
    assert message == f"denoiser_high/{victim} is quantised in the QuantTable, and not in the graph"


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_that_was_not_quantised(both: Made, kind: str, tmp_path: Path) -> None:
    without = {name: path for name, path in both.program.items() if name != table_file(LOW)}
    message = refusal(engine(kind, HIGH, LOW), replace(both, program=without), tmp_path)
    assert message == "denoiser_low was to be quantised, and is not"


@pytest.mark.parametrize("kind", KINDS)
def test_an_expert_whose_graphs_are_the_float_ones(
    both: Made, denoiser: FloatDenoiser, kind: str, tmp_path: Path
) -> None:
    """Although its table is there."""
    expert = low(denoiser)
    components = {**Program.read(both.program[FILE]).components, LOW: expert.component}
    program = {**both.program, **{name: path for name, path in expert.graphs.items() if name.startswith(LOW)}}
    spoilt = with_components(replace(both, program=program), components, tmp_path)
    message = refusal(engine(kind, HIGH, LOW), spoilt, tmp_path)
    assert message == "denoiser_low/blocks.0.attn1.to_k is quantised in the QuantTable, and not in the graph"


# Faults of an engine's lowering


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_linear_that_becomes_no_integer_kernel(
    one: Made, kind: str, victim: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fault(model: ir.Model) -> None:
        if victim in {linear.name for linear in quantized_linears(model)}:
            leave_the_input(model, victim)

    lowering_with(monkeypatch, kind, fault, last=False)
    graph = "request" if "attn2.to_v" in victim else GRAPH
    message = refusal(engine(kind), one, tmp_path)
    assert re.fullmatch(
        rf"denoiser_high/{graph} asks for INT8 in \S+ of what its Linears compute, and the engine has \S+", message
    )


@pytest.mark.parametrize("index", [2, 3], ids=["of the input", "of the weight"])
def test_a_kernel_of_another_scale(one: Made, index: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Than the input was rounded with, or the weight."""
    lowering_with(monkeypatch, "onnxruntime", partial(scale_of_a_kernel_off, ALONE, index), last=True)
    message = refusal(engine("onnxruntime"), one, tmp_path)
    assert re.fullmatch(rf"denoiser_high/{ALONE} has \S+ dB in the engine, and its QuantTable says \S+ dB", message)


# An engine that is executed elsewhere


class Elsewhere(OnnxRuntimeCompiler):
    """Cannot be executed here; its log says that everything is in integers."""

    def execute(self, path: Path) -> None:
        return None

    def prober(self, path: Path) -> None:
        return None

    def report(self, path: Path, executed: object) -> Kernels:
        assert executed is None
        return Kernels({}, {"Attention": 99, "RMSNormalization": 99}, Products(2**40, 2**40, 2**41))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Assemble:
    monkeypatch.setattr(OnnxRuntimeEngine, "compiler", lambda self, target: Elsewhere())
    return engine("onnxruntime")


def test_probes_are_executed_by_the_host_where_the_engine_cannot_be(
    one: Made, elsewhere: Assemble, tmp_path: Path
) -> None:
    out = build(elsewhere, one, tmp_path)
    assert QuantTable.read(out / table_file(HIGH)) == QuantTable.read(one.program[table_file(HIGH)])


@pytest.mark.parametrize("victim", [ALONE, "blocks.1.ffn.down"])
def test_the_host_sees_scales_that_are_off(one: Made, elsewhere: Assemble, victim: str, tmp_path: Path) -> None:
    message = refusal(elsewhere, edited(one, tmp_path, rescale("QuantizeLinear"), victim), tmp_path)
    assert re.fullmatch(rf"denoiser_high/{victim} has \S+ dB in the engine, and its QuantTable says \S+ dB", message)
