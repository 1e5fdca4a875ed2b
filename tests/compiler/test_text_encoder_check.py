"""What engines built of a quantised text encoder, against what was asked for: no fault goes unseen."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.runtime.encode import GRAPH
from wanc.runtime.model import TEXT_ENCODER

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
from .tiny_encoder import Fused, Quantise

BLOCK = "encoder.block.1.layer"
SHARED, ATTENDED, GATED, LAST = (
    f"{BLOCK}.{name}"
    for name in ("0.SelfAttention.q", "0.SelfAttention.o", "1.DenseReluDense.wi_1", "1.DenseReluDense.wo")
)
"""One of three Linears of an input; one behind attention; one whose rows are divided; and what they are divided for."""
WHERE = f"{TEXT_ENCODER}/{GRAPH}"


@pytest.fixture(scope="module")
def programs(
    fused_encoder: Fused, quantise_encoder: Quantise, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Made]:
    """tiny-wan's encoder in float and in each scheme, each a program by itself."""
    found: dict[str, Made] = {}
    encoders = {"float": fused_encoder, **{scheme: quantise_encoder(scheme) for scheme in ("int8", "int8-weight")}}
    for name, encoder in encoders.items():
        made = Made(*(encoder.inputs[which] for which in ("program", "exported", "source")))
        alone = {TEXT_ENCODER: encoder.files.component}
        found[name] = with_components(made, alone, tmp_path_factory.mktemp(name))
    return found


def engine(kind: str, *, emulate: bool = False) -> Assemble:
    chosen = OnnxRuntimeEngine() if kind == "onnxruntime" else OpenVinoEngine()
    return Assemble(chosen, quantized=(TEXT_ENCODER,), emulate=emulate)


# What is right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["int8", "int8-weight"])
def test_what_is_right_passes(programs: dict[str, Made], scheme: str, kind: str, tmp_path: Path) -> None:
    made = programs[scheme]
    out = build(engine(kind), made, tmp_path)
    assert QuantTable.read(out / table_file(TEXT_ENCODER)) == QuantTable.read(made.program[table_file(TEXT_ENCODER)])
    report = json.loads((out / ENGINE_REPORT).read_bytes())["components"][TEXT_ENCODER][GRAPH]
    assert report["int8_linear_share"] == (1 if scheme == "int8" else 0)
    assert (report["executed"], report["precision"]) == (True, "integer")
    codes = {"onnxruntime": ("MatMulIntegerToFloat", "MatMulNBits"), "openvino": ("FullyConnected",) * 2}[kind]
    assert sum(report["kernels"][codes[scheme != "int8"]].values()) == 14


def test_bfloat16_beside_codes_is_read_back(programs: dict[str, Made], tmp_path: Path) -> None:
    """Of an encoder whose Linears all are codes, nothing else would tell of it."""
    from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
    from wanc.compiler.engines.segment import CPU, compile_segment, whole
    from wanc.compiler.weights.finite import FiniteCheck
    from wanc.runtime.backends.openvino import core
    from wanc.runtime.session import Session

    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not multiply bfloat16")
    for scheme in ("int8", "int8-weight"):
        made, compiler = programs[scheme], OpenVinoCompiler("bf16", ("residual", "norm"))
        files = ComponentFiles.read(
            TEXT_ENCODER, {"program": made.program, "exported": made.exported, "source": made.source}
        )
        out = tmp_path / scheme
        compiled = compile_segment(compiler, files, whole(files), CPU, out, FiniteCheck(TEXT_ENCODER))
        (file,) = compiled.files
        backend = compiler.execute(out / file.file)
        graph = files.component.graphs[GRAPH]
        given = {
            "embeddings": np.random.default_rng(0).normal(size=(1, 7, 128)).astype(np.float32),
            "mask": np.ones((1, 7), np.int64),
        }
        assert {entry.name for entry in graph.inputs} == given.keys()
        Session(file.engine, out / file.file, threads=1, backend=backend).run(given)
        kernels = compiler.report(out / file.file, backend)
        assert kernels.precision == "half"
        assert kernels.by_type["FullyConnected", "i8 → bf16"] == 14


# Faults of what was quantised


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("scheme", "victim"), [("int8", GATED), ("int8-weight", ATTENDED)])
def test_scales_of_a_weight_that_are_off(
    programs: dict[str, Made], scheme: str, victim: str, kind: str, tmp_path: Path
) -> None:
    message = refusal(engine(kind), with_scales_off(programs[scheme], victim, tmp_path), tmp_path)
    assert re.fullmatch(rf"text_encoder/{victim} has \S+ dB in the engine, and its QuantTable says \S+ dB", message)


@pytest.mark.parametrize("op_type", ["QuantizeLinear", pytest.param("DequantizeLinear", marks=pytest.mark.slow)])
def test_a_pair_of_two_scales(programs: dict[str, Made], op_type: str, tmp_path: Path) -> None:
    message = refusal(engine("openvino"), edited(programs["int8"], tmp_path, rescale(op_type), LAST), tmp_path)
    assert re.fullmatch(rf"text_encoder/{LAST} has \S+ dB in the engine, and its QuantTable says \S+ dB", message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_that_takes_its_float_weight_again(programs: dict[str, Made], kind: str, tmp_path: Path) -> None:
    message = refusal(engine(kind), edited(programs["int8"], tmp_path, take_the_float_weight, ATTENDED), tmp_path)
    assert message == f"text_encoder/{ATTENDED} is quantised in the QuantTable, and not in the graph"


def test_an_encoder_that_was_not_quantised(programs: dict[str, Made], tmp_path: Path) -> None:
    message = refusal(engine("onnxruntime"), programs["float"], tmp_path)
    assert message == "text_encoder was to be quantised, and is not"


def test_an_encoder_whose_graph_is_the_float_one(programs: dict[str, Made], tmp_path: Path) -> None:
    """Although its table is there."""
    made = programs["float"]
    tables = {
        name: path for name, path in programs["int8"].program.items() if name.startswith(("quantization", "probes"))
    }
    message = refusal(engine("onnxruntime"), replace(made, program={**made.program, **tables}), tmp_path)
    assert (
        message
        == "text_encoder/encoder.block.0.layer.0.SelfAttention.k is quantised in the QuantTable, and not in the graph"
    )


# Faults of an engine's lowering


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("victim", [SHARED, LAST])
def test_a_linear_that_becomes_no_integer_kernel(
    programs: dict[str, Made], victim: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Although denoisers may be emulated."""

    def fault(model: ir.Model) -> None:
        if victim in {linear.name for linear in quantized_linears(model)}:
            leave_the_input(model, victim)

    lowering_with(monkeypatch, kind, fault, last=False)
    message = refusal(engine(kind, emulate=True), programs["int8"], tmp_path)
    assert re.fullmatch(rf"{WHERE} asks for INT8 in \S+ of what its Linears compute, and the engine has \S+", message)


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_whose_weight_is_widened(
    programs: dict[str, Made], kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fault(model: ir.Model) -> None:
        if LAST in {linear.name for linear in quantized_linears(model)}:
            take_the_float_weight(model, LAST)

    lowering_with(monkeypatch, kind, fault, last=False)
    message = refusal(engine(kind), programs["int8-weight"], tmp_path)
    asked = rf"{WHERE} asks for weights that are codes in 100.00% of what its Linears compute, and the engine has \S+"
    assert re.fullmatch(asked, message)


@pytest.mark.parametrize("index", [2, 3], ids=["of the input", "of the weight"])
def test_a_kernel_of_another_scale(
    programs: dict[str, Made], index: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lowering_with(monkeypatch, "onnxruntime", partial(scale_of_a_kernel_off, ATTENDED, index), last=True)
    message = refusal(engine("onnxruntime"), programs["int8"], tmp_path)
    assert re.fullmatch(rf"text_encoder/{ATTENDED} has \S+ dB in the engine, and its QuantTable says \S+ dB", message)
