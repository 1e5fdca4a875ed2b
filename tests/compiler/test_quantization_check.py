"""What an engine built of a quantised program, against what was asked for: right ones pass, and no fault goes unseen.

Both engines are given whole programs, through their stages; every fault is planted where it would arise, in what the
quantize stage wrote or in an engine's own lowering.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.products import Products
from wanc.compiler.graphs.quantized_linears import QuantizedLinear, quantized_linears
from wanc.compiler.graphs.values import producer
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program, ProgramComponent
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.compiler.stages.stage import Files
from wanc.errors import EXIT_REFUSED, UserError
from wanc.runtime.denoise import GRAPH
from wanc.runtime.model import HIGH, LOW

from .builder import assembled
from .fusing import files_of
from .transformer import KEEP, Denoiser, FloatDenoiser, make, quantised

KINDS = ("onnxruntime", "openvino")
FACTOR = 1.02
"""No picture tells of a scale that is wrong by as much: the error is 34 dB below the values, like that of rounding."""
KEPT = (*KEEP, "proj_in", "*.ffn.up")
"""Besides, those whose weight is stored as no Linear of torch is: there is no integer kernel for them."""
ALONE = "blocks.0.attn1.to_out"
"""The only Linear of its input."""
VICTIMS = (ALONE, "blocks.1.attn1.to_k", "blocks.0.attn2.to_v", "blocks.1.ffn.down")


@dataclass(frozen=True)
class Made:
    """A program on disk and what its weights lie in."""

    program: Files
    exported: Files


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


def with_components(made: Made, components: Mapping[str, ProgramComponent], folder: Path) -> Made:
    """The same with another `program.json`."""
    Program("graph", None, components, None).write(folder)
    return Made({**made.program, FILE: folder / FILE}, made.exported)


@pytest.fixture
def one(both: Made, tmp_path: Path) -> Made:
    """A program of one expert."""
    folder = tmp_path / "one"
    folder.mkdir()
    return with_components(both, {HIGH: Program.read(both.program[FILE]).components[HIGH]}, folder)


def engine(kind: str, *quantized: str) -> Assemble:
    chosen = OnnxRuntimeEngine() if kind == "onnxruntime" else OpenVinoEngine()
    return Assemble(chosen, quantized=quantized or (HIGH,))


def build(stage: Assemble, made: Made, folder: Path) -> Path:
    inputs = {"program": made.program, "exported": made.exported, "source": {}}
    return assembled(stage, inputs, folder / "built")


def refusal(stage: Assemble, made: Made, folder: Path) -> str:
    """What the stage says, with the exit code of a gate; there is no report of what it built."""
    with pytest.raises(UserError) as caught:
        build(stage, made, folder)
    assert caught.value.exit_code == EXIT_REFUSED
    assert caught.value.hint == "this is a fault of the compiler or of an engine's new version, not of the recipe"
    assert not (folder / "built" / "out" / ENGINE_REPORT).exists()
    return caught.value.message


# What is right


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_passes_and_its_tables_go_along(both: Made, kind: str, tmp_path: Path) -> None:
    out = build(engine(kind, HIGH, LOW), both, tmp_path)
    for name in (HIGH, LOW):
        assert QuantTable.read(out / table_file(name)) == QuantTable.read(both.program[table_file(name)])
    assert not list(out.glob("probes*")), "they are no part of a bundle"


# Faults of what was quantised


def edited(made: Made, folder: Path, change: Callable[[ir.Model, str], None], victim: str) -> Made:
    """The program with a change to the graph that a Linear is in."""
    program = dict(made.program)
    for graph in Program.read(program[FILE]).components[HIGH].graphs.values():
        assert graph.file is not None
        model = load(program[graph.file])
        if victim in {linear.name for linear in quantized_linears(model)}:
            change(model, victim)
            program[graph.file] = folder / "edited.onnx"
            save(model, program[graph.file])
    assert program != made.program
    return replace(made, program=program)


def quantized_linear(model: ir.Model, victim: str) -> QuantizedLinear:
    (found,) = [linear for linear in quantized_linears(model) if linear.name == victim]
    return found


def off(value: ir.Value | None) -> ir.Value:
    """Another scale than this."""
    assert value is not None and value.const_value is not None
    tensor = ir.tensor(np.asarray(value.const_value.numpy() * np.float32(FACTOR)))
    return ir.Value(name=f"{value.name}.off", shape=value.shape, type=value.type, const_value=tensor)


def rescale(op_type: str) -> Callable[[ir.Model, str], None]:
    """Let one of an input's pair take another scale."""

    def change(model: ir.Model, victim: str) -> None:
        node = producer(quantized_linear(model, victim).product.inputs[0], "DequantizeLinear")
        assert node is not None
        node = node if op_type == "DequantizeLinear" else producer(node.inputs[0], op_type)
        assert node is not None
        scale = off(node.inputs[1])
        model.graph.register_initializer(scale)
        node.replace_input_with(1, scale)

    return change


def take_the_float_weight(model: ir.Model, victim: str) -> None:
    """A product of floats, as before it was quantised; of which ones makes no difference."""
    leave_the_input(model, victim)
    product = quantized_linear(model, victim).product
    turned = product.inputs[1]
    assert turned is not None and turned.shape is not None
    shape = turned.shape.numpy()
    weight = ir.Value(
        name=f"{victim}.weight",
        shape=ir.Shape(shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(np.full(shape, 0.1, np.float32)),
    )
    model.graph.register_initializer(weight)
    product.replace_input_with(1, weight)


def leave_the_input(model: ir.Model, victim: str) -> None:
    """A product by codes of an input that is not rounded."""
    found = quantized_linear(model, victim)
    found.product.replace_input_with(0, found.input)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_scales_of_a_weight_that_are_off(one: Made, kind: str, victim: str, tmp_path: Path) -> None:
    """In the program's own file of codes and scales."""
    weight = Program.read(one.program[FILE]).components[HIGH].weights[f"{victim}.weight.scales"]
    name = weight.file.removeprefix("program/")
    data = bytearray(one.program[name].read_bytes())
    place = slice(weight.offset, weight.offset + weight.length)
    data[place] = (np.frombuffer(data[place], np.float32) * np.float32(FACTOR)).tobytes()
    (tmp_path / "spoilt.bin").write_bytes(data)
    spoilt = replace(one, program={**one.program, name: tmp_path / "spoilt.bin"})
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


def lowering_with(monkeypatch: pytest.MonkeyPatch, kind: str, fault: Callable[[ir.Model], None], *, last: bool) -> None:
    """Plant a fault in front of an engine's passes, or behind them."""

    spoilt: list[ir.Model] = []

    def apply(model: ir.Model) -> PassOutcome:
        if any(model is other for other in spoilt):
            return PassOutcome()
        spoilt.append(model)
        fault(model)
        return PassOutcome(1)

    compiler = {"onnxruntime": OnnxRuntimeCompiler, "openvino": OpenVinoCompiler}[kind]
    planted = Pass("fault", "a fault", apply)
    monkeypatch.setattr(compiler, "passes", (*compiler.passes, planted) if last else (planted, *compiler.passes))


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

    def fault(model: ir.Model) -> None:
        for node in model.graph:
            codes = node.inputs[1] if node.op_type == "MatMulIntegerToFloat" else None
            turned = producer(codes, "Transpose")
            if turned is not None and str(turned.inputs[0] and turned.inputs[0].name) == f"{ALONE}.weight.codes":
                factor = ir.node("Constant", [], {"value_float": FACTOR})
                wrong = ir.node("Mul", [node.inputs[index], factor.outputs[0]])
                model.graph.insert_before(node, [factor, wrong])
                node.replace_input_with(index, wrong.outputs[0])

    lowering_with(monkeypatch, "onnxruntime", fault, last=True)
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
