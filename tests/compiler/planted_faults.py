"""Faults of a quantised program, planted where they would arise, and what the engine's stage says of them.

They arise in what the quantize stage wrote, or in an engine's own lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.graphs.quantized_linears import QuantizedLinear, quantized_linears
from wanc.compiler.graphs.values import producer
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program, ProgramComponent
from wanc.compiler.stages.stage import Files
from wanc.errors import EXIT_REFUSED, UserError

from .builder import assembled

KINDS = ("onnxruntime", "openvino")
FACTOR = 1.02
"""No picture tells of a scale that is wrong by as much: the error is 34 dB below the values, like that of rounding."""


@dataclass(frozen=True)
class Made:
    """A program on disk and what its weights lie in."""

    program: Files
    exported: Files
    source: Files = field(default_factory=dict[str, Path])

    @property
    def components(self) -> Mapping[str, ProgramComponent]:
        return Program.read(self.program[FILE]).components


def with_components(made: Made, components: Mapping[str, ProgramComponent], folder: Path) -> Made:
    """The same with another `program.json`."""
    Program("graph", None, components, None).write(folder)
    return replace(made, program={**made.program, FILE: folder / FILE})


def build(stage: Assemble, made: Made, folder: Path) -> Path:
    inputs = {"program": made.program, "exported": made.exported, "source": made.source}
    return assembled(stage, inputs, folder / "built")


def refusal(stage: Assemble, made: Made, folder: Path) -> str:
    """What the stage says, with the exit code of a gate; there is no report of what it built."""
    with pytest.raises(UserError) as caught:
        build(stage, made, folder)
    assert caught.value.exit_code == EXIT_REFUSED
    assert caught.value.hint == "this is a fault of the compiler or of an engine's new version, not of the recipe"
    assert not (folder / "built" / "out" / ENGINE_REPORT).exists()
    return caught.value.message


def edited(made: Made, folder: Path, change: Callable[[ir.Model, str], None], victim: str) -> Made:
    """The program with a change to the graph that a Linear is in."""
    program = dict(made.program)
    for graph in [graph for component in made.components.values() for graph in component.graphs.values()]:
        assert graph.file is not None
        model = load(program[graph.file])
        if victim in {linear.name for linear in quantized_linears(model)}:
            change(model, victim)
            program[graph.file] = folder / f"edited-{Path(graph.file).name}"
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


def with_scales_off(made: Made, victim: str, folder: Path) -> Made:
    """The program with other scales of a Linear's codes, in its own file of both."""
    (weight,) = [
        component.weights[f"{victim}.weight.scales"]
        for component in made.components.values()
        if f"{victim}.weight.scales" in component.weights
    ]
    name = weight.file.removeprefix("program/")
    data = bytearray(made.program[name].read_bytes())
    place = slice(weight.offset, weight.offset + weight.length)
    data[place] = (np.frombuffer(data[place], np.float32) * np.float32(FACTOR)).tobytes()
    (folder / "spoilt.bin").write_bytes(data)
    return replace(made, program={**made.program, name: folder / "spoilt.bin"})


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


def scale_of_a_kernel_off(victim: str, index: int, model: ir.Model) -> None:
    """Let ONNX Runtime's kernel of a Linear take another scale: of the input (2), or of the weight (3)."""
    for node in model.graph:
        codes = node.inputs[1] if node.op_type == "MatMulIntegerToFloat" else None
        turned = producer(codes, "Transpose")
        if turned is not None and str(turned.inputs[0] and turned.inputs[0].name) == f"{victim}.weight.codes":
            factor = ir.node("Constant", [], {"value_float": FACTOR})
            wrong = ir.node("Mul", [node.inputs[index], factor.outputs[0]])
            model.graph.insert_before(node, [factor, wrong])
            node.replace_input_with(index, wrong.outputs[0])
