"""Faults planted among the passes of each place: who is told what, in `fuse` and in the engines' lowering."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.fuse import Fuse
from wanc.compiler.passes import registry
from wanc.compiler.passes.apply import PassError
from wanc.compiler.passes.order import ordered
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.compiler.program.program import Segment
from wanc.compiler.stages.stage import Stage
from wanc.errors import UserError, render
from wanc.models.onnx_file import open_onnx

from .fusing import files_of

WHOLE = Segment("model", 0, 0, 0, "cpu")
PLACES: dict[str, Stage] = {
    "fuse": Fuse(None, (), ()),
    "onnxruntime": Compile(OnnxRuntimeEngine(), WHOLE, "cpu"),
    "openvino": Compile(OpenVinoEngine(), WHOLE, "cpu"),
}
LEAVE_OUT = "leave it out, and tell us: fuse.skip: [planted]"
ANOTHER_ENGINE = "tell us, and build with another engine.kind until then"
GRAPH = '<ir_version: 11, opset_import: ["" : 23]> g (float[n, 4] x) => (float[n, 4] y) { a = Cos (x) y = Sin (a) }'


def becoming(old: str, new: str) -> Callable[[ir.Model], PassOutcome]:
    """Turns one operator into another."""

    def apply(model: ir.Model) -> PassOutcome:
        found = [node for node in model.graph if node.op_type == old]
        for node in found:
            node.op_type = new
        return PassOutcome(len(found))

    return apply


def fail(model: ir.Model) -> PassOutcome:
    raise ZeroDivisionError("division by zero")


def run(place: str, monkeypatch: pytest.MonkeyPatch, folder: Path, *planted: Pass) -> None:
    """The stage, on one graph, with passes more."""
    if place == "fuse":
        passes = registry.all_passes()
        monkeypatch.setattr(registry, "all_passes", lambda: ordered((*passes, *planted)))
    else:
        compiler = {"onnxruntime": OnnxRuntimeCompiler, "openvino": OpenVinoCompiler}[place]
        monkeypatch.setattr(compiler, "passes", ordered((*compiler.passes, *planted)))
    onnx.save(onnx.parser.parse_model(GRAPH), folder / "model.onnx")
    source = open_onnx(folder / "model.onnx").files
    for name in ("program", "out"):
        (folder / name).mkdir()
    ExportOnnx({"n": 3}, {}).run({"source": source}, folder / "program", progress=False)
    files = files_of(folder / "program")
    inputs = {"program": files, "exported": files, "source": source}
    PLACES[place].run(inputs, folder / "out", progress=False)


@pytest.mark.parametrize("place", PLACES)
def test_one_that_fails_is_told_with_what_can_be_done(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run(place, monkeypatch, tmp_path, Pass("planted", "", fail))
    assert render(caught.value).splitlines() == [
        "error: the pass planted fails on model/main",
        "caused by: division by zero",
        f"hint: {LEAVE_OUT if place == 'fuse' else ANOTHER_ENGINE}",
    ]


@pytest.mark.parametrize("place", PLACES)
def test_one_that_makes_the_graph_invalid_is_a_bug(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(PassError, match="the pass planted made model/main invalid: No Op registered for Cosine"):
        run(place, monkeypatch, tmp_path, Pass("planted", "", becoming("Cos", "Cosine")))
    assert list((tmp_path / "out").glob("*report.json")) == []


@pytest.mark.parametrize("place", PLACES)
def test_two_that_undo_each_other_are_a_bug(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there, back = Pass("there", "", becoming("Cos", "Tan")), Pass("back", "", becoming("Tan", "Cos"), ("there",))
    with pytest.raises(PassError, match="on model/main these passes fire again and again: there, back"):
        run(place, monkeypatch, tmp_path, back, there)
