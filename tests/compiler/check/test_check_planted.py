"""Faults planted on the road fail the build, and the step that makes them is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from wanc.compiler.check.stage import CheckBuild
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.stages.worker import CrashError, run_in_worker
from wanc.errors import EXIT_REFUSED, UserError, render
from wanc.models.onnx_file import open_onnx

from ..fusing import files_of
from .planted import PLAIN, CrashingOrigin, PlantedEngine, PlantedFuse, build_with, check_with

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g '
GRAPHS = {
    "alpha dropped": "(float[n, 4] x) => (float[n, 4] y) { y = LeakyRelu <alpha = 0.25> (x) }",
    "axis dropped": "(float[n, 4] x) => (float[n, 4] y) { y = Softmax <axis = 0> (x) }",
    "keepdims dropped": "(float[n, 4] x) => (float[n] y)"
    " { a = Constant <value_ints = [1]> () y = ReduceSum <keepdims = 0> (x, a) }",
    "one element is a scalar": "(float[n] x) => (float[1, n] y) <float[1, 1] c = {3}> { y = Mul (x, c) }",
    "an axis less": "(float[n] x) => (float[1, n] y)"
    " { a = Constant <value_ints = [0]> () w = Unsqueeze (x, a) y = Sin (w) }",
    "a size baked in": "(float[n, 4] x) => (float[m, k] y) { s = Shape (x) c = ConstantOfShape (s) y = Sub (c, c) }",
    "weights swapped": "(float[n, 4] x) => (float[n, 4] y)"
    " <float[4] a = {1, 2, 3, 4}, float[4] b = {5, 6, 7, 8}> { p = Mul (x, a) y = Add (p, b) }",
}


def model_of(folder: Path, graph: str) -> Path:
    """A graph in a file."""
    onnx.save(onnx.parser.parse_model(HEAD + graph), folder / "model.onnx")
    return folder / "model.onnx"


def refusal(model: Path, *, fuse: str = "", engine: PlantedEngine | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        check_with(model, {"n": 3}, fuse=PlantedFuse(None, (), (), fuse) if fuse else PLAIN, engine=engine)
    assert caught.value.exit_code == EXIT_REFUSED
    return render(caught.value).splitlines()


@pytest.mark.parametrize("fault", GRAPHS)
def test_a_fault_of_fuse_is_that_of_the_pass(fault: str, tmp_path: Path) -> None:
    message, hint = refusal(model_of(tmp_path, GRAPHS[fault]), fuse=fault)
    assert message.startswith("error: model/main is not what its source computes: y ")
    assert message.endswith("It differs from the pass planted of fuse on")
    assert hint == "hint: leave it out, and tell us: fuse.skip: [planted]"


@pytest.mark.parametrize("fault", ["alpha dropped", "weights swapped"])
def test_a_fault_of_a_lowering_is_that_of_the_pass(fault: str, tmp_path: Path) -> None:
    message, hint = refusal(model_of(tmp_path, GRAPHS[fault]), engine=PlantedEngine(fault))
    assert message.endswith("It differs from the pass planted of onnxruntime on")
    assert hint == "hint: tell us, and build with another engine.kind until then; engine.check: off builds it as it is"


def test_an_engine_that_gives_another_output_s_values(tmp_path: Path) -> None:
    graph = "(float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = Sin (x) z = Cos (x) }"
    message, _ = refusal(model_of(tmp_path, graph), engine=PlantedEngine("outputs"))
    assert "y differs by " in message and "z differs by " in message
    assert message.endswith("It differs from the engine's kernels on")


def test_weights_that_an_engine_exchanges(tmp_path: Path) -> None:
    path = model_of(tmp_path, "(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }")
    model = onnx.load(path)
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    message, _ = refusal(path, engine=PlantedEngine("weights"))
    assert message.endswith("It differs from the engine's kernels on")


def test_a_size_that_is_baked_in_shows_at_the_other_sizes(tmp_path: Path) -> None:
    message, _ = refusal(model_of(tmp_path, GRAPHS["a size baked in"]), fuse="a size baked in")
    assert "y is float32 [3, 4], and float32 [6, 4] in the source (at {n: 6}, on noise)" in message


def test_a_build_that_differs_makes_no_bundle(tmp_path: Path) -> None:
    model_of(tmp_path, "(float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = Sin (x) z = Cos (x) }")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("wanc: 1\nname: planted\nmodel: {onnx: model.onnx, example: {n: 3}}\n")
    with pytest.raises(UserError, match="the engine's kernels"):
        build_with(recipe, PlantedEngine("outputs"))
    assert not (tmp_path / "bundle").exists()


def test_what_is_not_planted_passes(tmp_path: Path) -> None:
    told = check_with(model_of(tmp_path, GRAPHS["weights swapped"]), {"n": 3})
    assert (told["mode"], told["against"]) == ("on", "onnxruntime, not optimised")
    graph = told["graphs"]["model/main"]
    assert (graph["compared"], graph["random"]) == ({"engine": "float32"}, [])
    assert [(entry["inputs"], entry["sizes"]) for entry in graph["trials"]] == [
        ("noise", {"n": 3}), ("noise", {"n": 6}), ("edges", {"n": 3}),
    ]  # fmt: skip
    assert all(entry["errors"]["engine"] <= 1e-6 for entry in graph["trials"])


def test_a_crash_of_the_source_s_runtime_is_the_stage_s(tmp_path: Path) -> None:
    source = open_onnx(model_of(tmp_path, GRAPHS["alpha dropped"])).files
    for name in ("exported", "out"):
        (tmp_path / name).mkdir()
    ExportOnnx({"n": 3}, {}).run({"source": source}, tmp_path / "exported", progress=False)
    inputs = {"exported": files_of(tmp_path / "exported"), "source": source, "engines": {}}
    stage = CheckBuild(OnnxRuntimeEngine(), CrashingOrigin(), PLAIN)
    with pytest.raises(CrashError, match=r"the process of stage check crashed \(SIGSEGV\)"):
        run_in_worker(stage, inputs, tmp_path / "out", progress=False)
