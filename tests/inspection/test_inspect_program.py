"""A program, and a bundle: interfaces as declared, operators from the graphs, weights as referred to."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from wanc.compiler.program.program import ProgramComponent
from wanc.inspection.find import inspect
from wanc.models.weights import Weight
from wanc.runtime.manifest import Manifest

from ..artifacts.builder import CONTENT, write_bundle
from ..conftest import Wanc
from .graphs import PROGRAM, write_graph, write_program

MAIN = {
    "file": "model/main.onnx",
    "segments": 1,
    "inputs": [
        {
            "name": "x",
            "dtype": "float32",
            "shape": ["rows", 4],
            "binding": "request",
            "per": "request",
            "shape_of": None,
            "range": None,
        }
    ],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["rows", 4], "state": None}],
    "example": {"rows": 3},
    "opsets": {"ai.onnx": 21},
    "nodes": 1,
    "operators": {"Add": 1},
    "weights": {
        "count": 1,
        "parameters": 4,
        "bytes": 16,
        "dtypes": {"float32": {"count": 1, "parameters": 4, "bytes": 16}},
    },
    "kernels": None,
    "fused": None,
}
REPORT = {
    "engine": "onnxruntime",
    "components": {"model": {"main": {"kernels": {"Add": {"float": 1}}, "fused": {"Attention": 2}, "bytes": 119}}},
}
WEIGHTS = {
    "count": 2,
    "parameters": 20,
    "bytes": 72,
    "dtypes": {
        "float32": {"count": 1, "parameters": 16, "bytes": 64},
        "bfloat16": {"count": 1, "parameters": 4, "bytes": 8},
    },
}


def test_a_program_is_described_with_its_graphs(tmp_path: Path) -> None:
    path = write_program(tmp_path)
    described = inspect(str(path), tmp_path)
    digest = described.pop("digest")
    assert digest.startswith("sha256:")
    size = (tmp_path / "model/main.onnx").stat().st_size
    assert described == {
        "kind": "program",
        "path": str(path),
        "size": path.stat().st_size,
        "schema": "wanc.program/1.1",
        "task": "graph",
        "model": None,
        "components": {"model": {"graphs": {"main": {**MAIN, "size": size}}, "weights": WEIGHTS}},
        "embedding": None,
    }
    assert inspect(str(tmp_path), tmp_path) == {**described, "digest": digest}, "its folder is the program too"


def test_a_program_alone_still_has_its_interface(tmp_path: Path) -> None:
    path = write_program(tmp_path)
    shutil.rmtree(tmp_path / "model")
    (component,) = inspect(str(path), tmp_path)["components"].values()
    graph = component["graphs"]["main"]
    assert (graph["inputs"], graph["outputs"]) == (MAIN["inputs"], MAIN["outputs"])
    assert [graph[name] for name in ("size", "nodes", "operators", "weights")] == [None] * 4


def test_what_an_engine_is_made_of_comes_from_its_report(tmp_path: Path, wanc: Wanc) -> None:
    path = write_program(tmp_path)
    (tmp_path / "engine_report.json").write_text(json.dumps(REPORT))
    graph = inspect(str(path), tmp_path)["components"]["model"]["graphs"]["main"]
    assert (graph["kernels"], graph["fused"]) == ({"Add": {"float": 1}}, {"Attention": 2})
    people = wanc("inspect", path).out
    assert "\nkernels\n  graph       kernels  fused        most frequent\n" in people
    assert "\n  model/main  1        Attention 2  Add float 1\n" in people


def test_a_report_of_an_earlier_version_is_left_out(tmp_path: Path) -> None:
    path = write_program(tmp_path)
    earlier = {"engine": "onnxruntime", "components": {"model": {"main": {"nodes": {"Add": 1}}}}}
    (tmp_path / "engine_report.json").write_text(json.dumps(earlier))
    graph = inspect(str(path), tmp_path)["components"]["model"]["graphs"]["main"]
    assert (graph["kernels"], graph["fused"]) == (None, None)


def test_an_engine_that_is_no_onnx_file_has_its_size_and_kernels(tmp_path: Path) -> None:
    main = replace(PROGRAM.components["model"].graphs["main"], file="engines/model/main.s0.cpu.xml")
    part = ProgramComponent({"main": main}, {})
    path = write_program(tmp_path, replace(PROGRAM, components={"model": part}))
    (tmp_path / main.file).write_text("<net/>")
    (tmp_path / "engine_report.json").write_text(json.dumps(REPORT))
    graph = inspect(str(path), tmp_path)["components"]["model"]["graphs"]["main"]
    assert (graph["size"], graph["operators"], graph["weights"]) == (6, None, None)
    assert graph["kernels"] == {"Add": {"float": 1}}


def test_the_embedding_table_counts_as_weights_of_its_own(tmp_path: Path) -> None:
    table = Weight("text_encoder/model.safetensors", 0, 80, "BFLOAT16", (10, 4))
    path = write_program(tmp_path, replace(PROGRAM, embedding=table))
    assert inspect(str(path), tmp_path)["embedding"] == {
        "file": "text_encoder/model.safetensors",
        "weights": {
            "count": 1,
            "parameters": 40,
            "bytes": 80,
            "dtypes": {"bfloat16": {"count": 1, "parameters": 40, "bytes": 80}},
        },
    }


def test_a_program_without_weights_has_none(tmp_path: Path) -> None:
    part = ProgramComponent(PROGRAM.components["model"].graphs, {})
    path = write_program(tmp_path, replace(PROGRAM, components={"model": part}))
    weights = inspect(str(path), tmp_path)["components"]["model"]["weights"]
    assert weights == {"count": 0, "parameters": 0, "bytes": 0, "dtypes": {}}


def write_described_bundle(root: Path, **manifest: Any) -> Path:
    """A bundle of one graph, as a build would describe it."""
    work = root.parent / "work"
    program = write_program(work).read_bytes()
    engine = write_graph(work / "engine.onnx").read_bytes()
    lock = {"recipe": {"name": "tiny"}, "inputs": {"a": {"size": 3, "sha256": "sha256:0"}}, "tools": {"onnx": "1"}}
    entry = {"component": "model", "graph": "main", "engine": "onnxruntime", "target": "cpu", "file": "engines/m.onnx"}
    content = {
        "WANC": CONTENT["WANC"],
        "run.py": b"",
        "program.json": program,
        "model/main.onnx": engine,
        "engines/m.onnx": engine,
        "recipe.lock.json": json.dumps(lock).encode(),
    }
    return write_bundle(
        root,
        content,
        topology={"engines": [entry]},
        runtime={"task": "graph", "threads": 0},
        parents=[{"role": "model", "digest": f"sha256:{'1' * 64}"}],
        **manifest,
    )


def test_a_bundle_is_described_from_its_manifest(tmp_path: Path) -> None:
    root = write_described_bundle(tmp_path / "bundle")
    manifest = Manifest.read(root)
    described = inspect(str(root), tmp_path)
    assert {name: described[name] for name in ("kind", "id", "is_verified", "name", "version", "task", "entry")} == {
        "kind": "bundle",
        "id": manifest.id,
        "is_verified": False,
        "name": "tiny",
        "version": "0.1.0",
        "task": "graph",
        "entry": "run.py",
    }
    size = (root / "model/main.onnx").stat().st_size
    assert described["components"] == {"model": {"graphs": {"main": {**MAIN, "size": size}}, "weights": WEIGHTS}}
    assert described["engines"] == manifest.topology["engines"]
    assert described["runtime"] == {"task": "graph", "threads": 0}
    assert described["provenance"] == {
        "recipe_sha256": manifest.recipe_sha256,
        "parents": [{"role": "model", "digest": f"sha256:{'1' * 64}"}],
        "recipe": {"name": "tiny"},
        "inputs": {"a": {"size": 3, "sha256": "sha256:0"}},
        "tools": {"onnx": "1"},
    }
    assert [file["path"] for file in described["files"]] == [file.path for file in manifest.files]
    assert described["size"] == sum(file.size for file in manifest.files)


def test_the_manifest_s_own_path_leads_to_the_bundle(tmp_path: Path) -> None:
    root = write_described_bundle(tmp_path / "bundle")
    assert inspect(str(root / "manifest.json"), tmp_path) == inspect(str(root), tmp_path)


def test_inspect_neither_verifies_nor_claims_to(tmp_path: Path, wanc: Wanc) -> None:
    """A bundle that `verify` refuses is still described: to look into what is damaged is what it is for."""
    root = write_described_bundle(tmp_path / "bundle")
    (root / "run.py").write_bytes(b"import os")
    finished = wanc("inspect", root)
    assert finished.code == 0
    assert "  verified  not verified: `wanc verify` does that\n" in finished.out
    assert wanc("verify", root).code == 1


def stored_bytes(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def test_a_built_bundle_shows_what_was_built(tiny_bundle: Path, wanc: Wanc) -> None:
    finished = wanc("inspect", tiny_bundle, "--json")
    assert (finished.code, finished.err) == (0, "")
    described = json.loads(finished.out)
    assert described["id"] == Manifest.read(tiny_bundle).id
    assert list(described["components"]) == ["denoiser_high", "denoiser_low", "text_encoder", "vae_decoder"]
    sizes = {file["path"]: file["size"] for file in described["files"]}
    report = json.loads((tiny_bundle / "engine_report.json").read_text())["components"]
    for name, part in described["components"].items():
        for graph, entry in part["graphs"].items():
            model = onnx.load_model(tiny_bundle / entry["file"], load_external_data=False)
            operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node)
            assert entry["operators"] == operators, "as they stand in the engine's file"
            assert entry["weights"]["bytes"] == sum(map(stored_bytes, model.graph.initializer))
            assert {key: entry[key] for key in ("kernels", "fused")} == {
                key: report[name][graph][key] for key in ("kernels", "fused")
            }, "as the engine stage read them back"
        (file,) = [path for path in sizes if path.startswith(f"engines/{name}/weights")]
        assert 0 <= sizes[file] - part["weights"]["bytes"] < 4096 * part["weights"]["count"], "aligned to pages"
    assert [shape["name"] for shape in described["runtime"]["shapes"]] == ["64p", "96p-wide"]
    assert {engine["engine"] for engine in described["engines"]} == {"onnxruntime"}
    assert described["provenance"]["tools"]["torch"].startswith("2.")
    people = wanc("inspect", tiny_bundle).out
    assert "  sampling" not in people and "\nsampling\n  fps" in people
    assert "\nkernels\n" in people
    titles = ("weights", "operators", "inputs of graphs", "engines", "shapes", "provenance", "tools", "files")
    for title in ("comparison with the source", *titles):
        assert f"\n{title}\n" in people
    assert described["check"]["mode"] == "on" and described["check"]["graphs"].keys() >= {"denoiser_low/step"}
    assert "  denoiser_low/step " in people.partition("comparison with the source")[2].partition("\n\n")[0]


@pytest.mark.parametrize(
    ("check", "shown"),
    [
        ({"mode": "off"}, "  of\n  mode  off\n"),
        (
            {"mode": "on", "against": "torch", "graphs": {"a/b": {"trials": [{"inputs": "noise"}, 3]}, "c": None}},
            "  of\n  against  torch\n  mode     on\n  a/b      inputs noise\n  a/b\n",
        ),
    ],
)
def test_whatever_a_manifest_says_of_the_comparison_is_shown(
    tmp_path: Path, wanc: Wanc, check: dict[str, Any], shown: str
) -> None:
    finished = wanc("inspect", write_described_bundle(tmp_path / "bundle", check=check))
    assert finished.code == 0
    assert f"\ncomparison with the source\n{shown}\n" in finished.out
