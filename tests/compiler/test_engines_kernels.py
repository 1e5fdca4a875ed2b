"""What the engines' own lowering makes of a canonical graph: text in and out, what it computes, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.onnxruntime.kernels import KERNELS
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.errors import EXIT_REFUSED, UserError, render
from wanc.models.onnx_file import open_onnx
from wanc.runtime.backends.base import Backend
from wanc.runtime.backends.openvino import OpenVino

from .builder import assembled
from .fusing import files_of
from .passes.builder import apply, assert_close, assert_same, parse, run, text

SIZES = ({"n": 1, "m": 7}, {"n": 20, "m": 33})
BESIDE = {"keys": "1, 2, m, 8", "values": "1, 2, m, 8", "scores": "1, 2, n, m"}
"""What an attention can give beside its result."""
ROWS = "float[1, n, 16] q, float[1, m, 16] k, float[1, m, 16] v"


def lowered(model: ir.Model) -> list[str]:
    """The graph as text after the lowering, which is shown to compute what the graph before it does."""
    before = model.clone()
    apply(model, KERNELS.apply)
    assert_same(before, model, *SIZES)
    return text(model)


# Attention


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("q_num_heads = 2, kv_num_heads = 2", "num_heads=2"),
        ("q_num_heads = 4, kv_num_heads = 4, scale = 0.25", "num_heads=4, scale=0.25"),
    ],
)
def test_attention_without_a_mask_gets_the_tiled_kernel(attributes: str, expected: str) -> None:
    model = parse(f"g ({ROWS}) => (float[1, n, 16] y) {{ y = Attention <{attributes}> (q, k, v) }}")
    assert lowered(model) == [f"y = com.microsoft.MultiHeadAttention(q, k, v, {expected})"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v, mask)",
        "y = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (q, k, v)",
        "y = Attention <q_num_heads = 2, kv_num_heads = 2, softcap = 5.0> (q, k, v)",
        "y, keys, values = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)",
        "y, , , scores = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)",
    ],
    ids=["a mask", "causal", "capped", "a cache", "scores"],
)
def test_other_attention_is_left_alone(body: str) -> None:
    """What is given beside the result is an output of the graph."""
    results = "".join(f", float[{rank}] {name}" for name, rank in BESIDE.items() if name in body)
    model = parse(f"g ({ROWS}, float[1, 1, n, m] mask) => (float[1, n, 16] y{results}) {{ {body} }}")
    assert [line for line in lowered(model) if "MultiHead" in line] == []


def test_attention_whose_key_heads_are_fewer_is_left_alone() -> None:
    model = parse(
        "g (float[1, n, 16] q, float[1, m, 8] k, float[1, m, 8] v) => (float[1, n, 16] y)"
        " { y = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v) }"
    )
    assert lowered(model) == ["y = Attention(q, k, v, kv_num_heads=2, q_num_heads=4)"]


# Activations


def test_a_bias_before_a_gelu_is_the_kernels_own() -> None:
    model = parse(
        'g (float[1, n, 8] x, float[8] b) => (float[1, n, 8] y) { a = Add (x, b) y = Gelu <approximate = "tanh"> (a) }'
    )
    assert lowered(model) == ["y = com.microsoft.FastGelu(x, b)"]


@pytest.mark.parametrize(
    ("x", "bias", "approximate"),
    [("n, 8", "8", "none"), ("n, 8", "1", "tanh"), ("n, 1", "8", "tanh"), ("n, 8", "n, 8", "tanh"), ("8", "8", "tanh")],
    ids=["exact", "one for all", "of more than the input", "not one row", "a row alone"],
)
def test_what_is_no_bias_of_a_gelu_stays(x: str, bias: str, approximate: str) -> None:
    y = "8" if x == "8" else "n, 8"
    model = parse(
        f"g (float[{x}] x, float[{bias}] b) => (float[{y}] y)"
        f' {{ a = Add (x, b) y = Gelu <approximate = "{approximate}"> (a) }}'
    )
    assert lowered(model) == ["v0 = Add(x, b)", f"y = Gelu(v0, approximate={approximate})"]


@pytest.mark.parametrize("product", ["Mul (x, s)", "Mul (s, x)"])
def test_silu_is_one_kernel(product: str) -> None:
    model = parse(f"g (float[n, 8] x) => (float[n, 8] y) {{ s = Sigmoid (x) y = {product} }}")
    assert lowered(model) == ["y = com.microsoft.QuickGelu(x, alpha=1)"]


@pytest.mark.parametrize("factor", ["x", "z"], ids=["used elsewhere", "of something else"])
def test_other_gates_stay(factor: str) -> None:
    used = "s" if factor == "x" else "x"
    model = parse(
        "g (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {"
        f" s = Sigmoid (x) z = Neg ({used}) y = Mul ({factor}, s) }}"
    )
    assert [line for line in lowered(model) if "QuickGelu" in line] == []


# A kernel that came out in pieces

FUSED = "y = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, v)"
PIECES = """
    rows = Constant <value_ints = [0, 0, 2, 8]> () joined = Constant <value_ints = [0, 0, 16]> ()
    scale = Constant <value = float {0.35355339}> ()
    q4 = Reshape (q, rows) k4 = Reshape (k, rows) v4 = Reshape (v, rows)
    qh = Transpose <perm = [0, 2, 1, 3]> (q4) kh = Transpose <perm = [0, 2, 3, 1]> (k4)
    vh = Transpose <perm = [0, 2, 1, 3]> (v4) product = MatMul (qh, kh) scores = Mul (product, scale)
    high = ReduceMax <keepdims = 1> (scores, last) less = Sub (scores, high) power = Exp (less)
    sum = ReduceSum <keepdims = 1> (power, last) weights = Div (power, sum)
    attended = MatMul (weights, vh) back = Transpose <perm = [0, 2, 1, 3]> (attended) y = Reshape (back, joined)
"""


def attention(body: str) -> str:
    constants = "last = Constant <value_ints = [-1]> ()" if "last" in body else ""
    return (
        '<ir_version: 11, opset_import: ["" : 23]> g (float[1, n, 16] q, float[1, n, 16] k, float[1, n, 16] v)'
        f" => (float[1, n, 16] y) {{ {constants} {body} }}"
    )


class InPieces(OnnxRuntimeCompiler):
    """An engine that computes attention in pieces, as a plug-in without the kernel does."""

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        for graph in graphs.values():
            save(ir.from_proto(onnx.parser.parse_model(attention(PIECES))), graph.path)
        return super().compile(component, graphs, weights)


class Forgetful(OpenVinoCompiler):
    """OpenVINO, of whose kernels those that are fused cannot be found."""

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        return replace(super().report(path, executed), fused={})


def engine(kind: str, monkeypatch: pytest.MonkeyPatch, *allowed: str) -> Assemble:
    """An engine whose attention is not one kernel."""
    if kind == "onnxruntime":
        monkeypatch.setattr(OnnxRuntimeEngine, "compiler", lambda self: InPieces())
        return Assemble(OnnxRuntimeEngine(), allow_unfused=allowed)
    monkeypatch.setattr(OpenVinoEngine, "compiler", lambda self: Forgetful("fp32", ()))
    return Assemble(OpenVinoEngine(), allow_unfused=allowed)


def run_engine(stage: Assemble, folder: Path) -> Path:
    """The stage, on one graph that asks for one fused attention; what it wrote."""
    onnx.save(onnx.parser.parse_model(attention(FUSED)), folder / "model.onnx")
    source = open_onnx(folder / "model.onnx").files
    (folder / "program").mkdir()
    ExportOnnx({"n": 5}, {}).run({"source": source}, folder / "program", progress=False)
    files = files_of(folder / "program")
    return assembled(stage, {"program": files, "exported": files, "source": source}, folder)


def test_the_pieces_compute_what_the_fused_operator_does() -> None:
    """Otherwise the fault that is planted below would be another one."""
    fused, pieces = (ir.from_proto(onnx.parser.parse_model(attention(body))) for body in (FUSED, PIECES))
    assert_same(fused, pieces, {"n": 1}, {"n": 9})


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_attention_in_pieces_stops_the_build(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_engine(engine(kind, monkeypatch), tmp_path)
    assert caught.value.exit_code == EXIT_REFUSED == 1
    message = render(caught.value)
    assert "model/main asks for 1 fused Attention, and the engine built 0" in message
    assert "hint: if that will do, allow it: engine.allow_unfused: [Attention]" in message
    assert not (tmp_path / "out" / ENGINE_REPORT).exists()


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_attention_in_pieces_may_be_allowed(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = run_engine(engine(kind, monkeypatch, "Attention"), tmp_path)
    assert (out / ENGINE_REPORT).is_file()


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_attention_in_one_piece_needs_no_leave(kind: str, tmp_path: Path) -> None:
    stage = Assemble(OnnxRuntimeEngine() if kind == "onnxruntime" else OpenVinoEngine())
    report = (run_engine(stage, tmp_path) / ENGINE_REPORT).read_text()
    assert '"fused":{"Attention":1}' in report


# OpenVINO's memory


def test_openvino_attends_as_well_after_a_single_row(tmp_path: Path) -> None:
    """By itself it goes wrong at 16 keys and more, whenever the first execution was of a single one (2026.4)."""
    (path,) = run_engine(Assemble(OpenVinoEngine()), tmp_path).rglob("*.xml")
    reference = load(tmp_path / "model.onnx")
    backend = OpenVino(path, 1)
    for rows in (1, 1, 5, 16, 1, 60, 33):
        feeds = {
            name: np.random.default_rng([rows, seed]).normal(size=(1, rows, 16)).astype(np.float32)
            for seed, name in enumerate("qkv")
        }
        assert_close(backend.run(feeds)[0], run(reference, feeds)["y"])
