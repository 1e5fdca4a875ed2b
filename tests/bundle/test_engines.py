"""One model through both engines: what the bundle says and asks for, that it computes the same, and refused kernels."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from wanc.compiler.pipeline import build
from wanc.errors import UserError
from wanc.recipe.load import load
from wanc.runtime.execute import run_selftest
from wanc.runtime.graph_task import run_graph
from wanc.runtime.manifest import Manifest
from wanc.runtime.verify import verify

from ..compiler.check.planted import BelievingEngine, build_with

RECIPE = "wanc: 1\nname: attending\nmodel: {onnx: m.onnx, example: {tokens: 6}}\n"
ATTENDING = """
<ir_version: 10, opset_import: ["" : 23]> attending (DTYPE[1, tokens, 32] x) => (DTYPE[1, tokens, 32] y)
{
  q = MatMul (x, wq)
  k = MatMul (x, wk)
  a = Attention <q_num_heads = 2, kv_num_heads = 2> (q, k, x)
  y = Add (a, x)
}
"""
ENGINES = {
    "onnxruntime": [],
    "openvino": ["engine.kind=openvino"],
    "openvino-bf16": ["engine.kind=openvino", "precision.compute=bf16"],
}
X = np.random.default_rng(1).standard_normal((1, 9, 32), dtype=np.float32)


def write_project(folder: Path, dtype: type = np.float32) -> Path:
    name = {np.float32: "float", np.float64: "double"}[dtype]
    proto = onnx.parser.parse_model(ATTENDING.replace("DTYPE", name))
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((32, 32)).astype(dtype) / 6 for name in ("wq", "wk")}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(proto, folder / "m.onnx")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("engines")
    recipe = write_project(folder)
    built: dict[str, Path] = {}
    for name, overrides in ENGINES.items():
        (loaded,) = load(recipe, [f"name={name}", *overrides])
        built[name] = build(loaded, folder / "out", progress=False).bundle
    return built


def library(name: str) -> str:
    return name.removesuffix("-bf16")


@pytest.mark.parametrize("name", ENGINES)
def test_the_bundle_names_its_engine_and_asks_for_its_library(bundles: dict[str, Path], name: str) -> None:
    manifest = Manifest.read(bundles[name])
    (entry,) = manifest.topology["engines"]  # type: ignore[misc, union-attr]
    suffix = {"onnxruntime": "onnx", "openvino": "xml"}[library(name)]
    memory: Any = entry.pop("memory")  # type: ignore[union-attr]
    assert 0 < memory["opened"] <= memory["opening"]
    assert entry == {
        "component": "model",
        "graph": "main",
        "segment": 0,
        "engine": library(name),
        "target": "cpu",
        "profile": None,
        "device": "cpu",
        "file": f"engines/model/main.s0.cpu.{suffix}",
        "inputs": ["x"],
        "outputs": ["y"],
    }
    assert list(manifest.targets) == [{"backend": library(name), "device": "cpu"}]
    lines = [f"{package}=={importlib.metadata.version(package)}" for package in ("numpy", library(name))]
    assert (bundles[name] / "requirements.txt").read_text().splitlines() == lines


@pytest.mark.parametrize("name", ENGINES)
def test_the_bundle_verifies_and_tests_itself(bundles: dict[str, Path], name: str) -> None:
    assert verify(bundles[name]).ok
    report = run_selftest(bundles[name], threads=1)
    assert [(check.graph, check.relative_error) for check in report.checks] == [("model/main", 0.0)]


@pytest.mark.parametrize("name", ENGINES)
def test_the_report_tells_the_one_kernel_of_attention(bundles: dict[str, Path], name: str) -> None:
    report = json.loads((bundles[name] / "engine_report.json").read_text())
    assert report["engine"] == library(name)
    assert report["components"]["model"]["main"]["fused"] == {"Attention": 1}


def attended(bundle: Path, folder: Path) -> NDArray[np.float32]:
    np.savez(folder / "in.npz", x=X)
    run_graph(bundle, folder / "out.npz", inputs=folder / "in.npz", threads=1)
    with np.load(folder / "out.npz") as file:
        return file["y"]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    # Sums in another order are single roundings of float32; bfloat16 keeps 8 bits of what goes into a product.
    [("openvino", 1e-6), ("openvino-bf16", 2**-8)],
)
def test_the_engines_agree(bundles: dict[str, Path], tmp_path: Path, name: str, tolerance: float) -> None:
    expected = attended(bundles["onnxruntime"], tmp_path)
    actual = attended(bundles[name], tmp_path)
    assert np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)
    assert np.abs(expected - X).max() > 0.1, "attention has made no difference"


def test_attention_in_a_type_without_a_kernel_is_computed_by_its_parts(tmp_path: Path) -> None:
    """onnxruntime has no kernel for attention in float64, so that a model that asks for it gets what its parts give."""
    (loaded,) = load(write_project(tmp_path, np.float64))
    assert_in_pieces(build(loaded, tmp_path / "out", progress=False).bundle)


def test_a_fused_operator_that_came_out_in_pieces_stops_the_build(tmp_path: Path) -> None:
    recipe, believing = write_project(tmp_path, np.float64), BelievingEngine("")
    with pytest.raises(UserError) as caught:
        build_with(recipe, believing)
    assert caught.value.message == "model/main asks for 1 fused Attention, and the engine built 0"
    assert caught.value.hint == "if that will do, allow it: engine.allow_unfused: [Attention]"
    assert not (tmp_path / "bundle").exists()
    recipe.write_text(RECIPE + "engine: {allow_unfused: [Attention]}\n")
    build_with(recipe, believing)
    assert_in_pieces(tmp_path / "bundle")


def assert_in_pieces(bundle: Path) -> None:
    report = json.loads((bundle / "engine_report.json").read_text())["components"]["model"]["main"]
    assert report["fused"] == {}
    assert report["kernels"]["Softmax"] == {"double": 1}
