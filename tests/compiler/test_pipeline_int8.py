"""tiny-wan in INT8, built from its recipe with few clips: what runs, what comes out, and that it comes out again."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path

import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from tests.conftest import ROOT
from wanc.artifacts.store import Store
from wanc.compiler.pipeline import BuildResult, build, differences
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.verify import verify

from .fusing import relative_error

FEW = ("quantize.calibrate.clips=2", "quantize.calibrate.timestep_bins=2", "sampling.steps=6")
QUANTISING = ["texts", "calibrate", "quantize", "calibrate", "quantize"]
STAGES = ["resolve", "export", "fuse", *QUANTISING, "partition", *4 * ["compile"], "engine", "tables", "check", "seal"]
STEPS = 8
# Eight steps of a model whose Linears are off by 1 % each; a fault of a scale gives another picture, off by 1.
MOST_LATENT_ERROR = 0.15
LEAST_SHARE = 0.95


@pytest.fixture(scope="module")
def loaded() -> LoadedRecipe:
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-int8.yaml", ["name=tiny-wan-int8-few", *FEW])
    return loaded


@pytest.fixture(scope="module")
def result(tiny_bundle: Path, loaded: LoadedRecipe) -> BuildResult:
    """Built beside `tiny_bundle`, whose graphs it takes from the store."""
    return build(loaded, tiny_bundle.parents[1], progress=False)


def test_the_stages_of_a_build(result: BuildResult) -> None:
    """Graphs are those of the recipe that does not quantise."""
    assert [run.name for run in result.stages] == STAGES
    assert all(run.cached for run in result.stages[1:3])
    assert verify(result.bundle).ok


def test_a_second_build_computes_nothing(result: BuildResult, tiny_bundle: Path, loaded: LoadedRecipe) -> None:
    again = build(loaded, tiny_bundle.parents[1], progress=False)
    assert again.id == result.id
    assert [run.name for run in again.stages if not run.cached] == ["resolve"]


def test_the_video_is_nearly_the_same(result: BuildResult, tiny_bundle: Path) -> None:
    latents = [
        Pipeline.open(root).generate("A red circle moves to the left.", seed=1, steps=STEPS, frames=5).latents
        for root in (result.bundle, tiny_bundle)
    ]
    assert 1e-4 < relative_error(*latents) < MOST_LATENT_ERROR


@pytest.mark.parametrize("component", [HIGH, LOW])
def test_its_linears_are_integer_kernels(result: BuildResult, component: str) -> None:
    """Of five blocks ten Linears each: the keys and values of the prompt lie in a part of their own."""
    report = json.loads((result.bundle / ENGINE_REPORT).read_bytes())["components"][component]
    kernels = {graph: entry["kernels"].get("MatMulIntegerToFloat", {}) for graph, entry in report.items()}
    assert kernels == {"request": {"float": 10}, "shape": {}, "step": {"float": 40}, "time": {}}


def weights_of(graph: onnx.GraphProto, *op_types: str) -> list[tuple[int, int]]:
    """The shapes of the matrices that nodes of these operators multiply by, as stored."""
    shapes = {entry.name: tuple(entry.dims) for entry in graph.initializer if len(entry.dims) == 2}
    return [shapes[node.input[1]] for node in graph.node if node.op_type in op_types and node.input[1] in shapes]


@pytest.mark.parametrize("component", [HIGH, LOW])
def test_the_share_of_integers_is_what_others_count(result: BuildResult, component: str, tmp_path: Path) -> None:
    """From the shapes in the bundle's file, where every Linear of a step takes the same rows; and all are executed."""
    path = result.bundle / "engines" / component / "step.s0.cpu.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    integer = weights_of(graph, "MatMulIntegerToFloat")
    floats = weights_of(graph, "MatMul", "Gemm", "FusedMatMul")
    counted = sum(map(prod, integer)) / sum(map(prod, integer + floats))
    reported = json.loads((result.bundle / ENGINE_REPORT).read_bytes())["components"][component]["step"]
    assert counted == pytest.approx(reported["int8_linear_share"], rel=1e-9)
    assert counted >= LEAST_SHARE

    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    golden = load_file(result.bundle / "golden" / "inputs.safetensors")
    session.run(None, {entry.name: golden[f"{component}/step/{entry.name}"] for entry in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_bytes())
    executed = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    assert executed.count("MatMulIntegerToFloat") == len(integer) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_comes_out_again_bit_by_bit(
    result: BuildResult, tiny_bundle: Path, loaded: LoadedRecipe, tmp_path: Path
) -> None:
    """From the same graphs, in a store that knows nothing of what became of them."""
    shutil.copytree(tiny_bundle.parents[1] / "store", tmp_path / "store")
    store = Store.open(tmp_path / "store")
    for record in store.records():
        if record.stage not in ("export", "fuse"):
            (store.root / "actions" / f"{record.key}.json").unlink()
    again = build(loaded, tmp_path, progress=False)
    assert [run.name for run in again.stages if run.cached] == ["export", "fuse"]
    assert differences(result.bundle, again.bundle) == []
    assert list((store.root / "scratch").iterdir()) == []
