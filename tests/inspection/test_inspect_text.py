"""What people see of a description: all of its kinds, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.artifacts.store import Store
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.inspection.find import inspect
from wanc.inspection.text import tables
from wanc.models.graph import Input, Output
from wanc.terminal import as_text

from ..conftest import Wanc
from .graphs import BRANCHING, store_action, tree_digest, write_graph, write_program


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_graph(wanc: Wanc) -> None:
    path = write_graph(Path("branching.onnx"), BRANCHING)
    finished = wanc("inspect", path)
    described = inspect(str(path), Path())
    assert (finished.code, finished.err) == (0, "")
    assert (
        finished.out
        == f"""\
graph
  path        branching.onnx
  size        {described["size"]} B
  digest      {described["digest"]}
  ir_version  10
  producer    tests
  nodes       7
  subgraphs   2

operator sets
  ai.onnx      21
  com.example  1

inputs of graphs
  input  dtype    shape
  x      float32  [batch, 4, ?]
  flag   bool     []

outputs of graphs
  output  dtype    shape
  y       float32  [batch, 2*rows, 3]
  z       float32  []

operators
  nodes  most frequent
  7      Add 2, Constant 1, If 1, MatMul 1, ReduceSum 1, com.example.Twice 1

weights
  of         dtype    tensors  parameters  size
  weights    float32  1        12          48 B
  weights    int64    1        2           16 B
  weights    float16  1        3           6 B
  constants  float32  1        1           4 B
"""
    )


def test_an_action(wanc: Wanc) -> None:
    store = Store.open(Path("artifacts/store"))
    export = store_action(store, "export", {"a": b"123"}, {})
    engine = store_action(store, "engine", {"b": b"12"}, {"program": tree_digest(export)}, depth=2)
    store.set_ref("tiny", [engine.key])
    (store.path(engine.files["b"])).unlink()
    finished = wanc("inspect", engine.key[:12])
    assert (finished.code, finished.err) == (0, "")
    assert (
        finished.out
        == f"""\
action
  path      artifacts/store/actions/{engine.key}.json
  stage     engine
  key       {engine.key}
  platform  Linux-x86_64
  code      sha256:{"c" * 64}
  size      2 B

inputs
  input    digest
  program  {tree_digest(export)}  made by export {export.key[:16]}

parameters
  depth  2

tools
  onnx  1.23.2

cost
  peak_rss_bytes  1.0 GiB
  seconds         1.5

kept for
  tiny

files
  file  size
  b     2 B   missing
"""
    )


def test_long_lists_are_cut_for_people_only() -> None:
    caches = tuple(Input(f"cache_{index}", (1,), "chunk", "request") for index in range(20))
    graph = ProgramGraph("model/main.onnx", caches, (Output("y", (1,)),), example={})
    write_program(Path(), Program("graph", None, {"model": ProgramComponent({"main": graph}, {})}, None))
    described = inspect(".", Path())
    assert len(described["components"]["model"]["graphs"]["main"]["inputs"]) == 20
    lines = as_text(tables(described)).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("  model/main") and "cache" in line] == [
        f"cache_{index}" for index in range(6)
    ]
    assert "  model/main  14 others" in lines


def test_names_of_files_cannot_write_to_the_terminal(wanc: Wanc) -> None:
    path = write_graph(Path("a.onnx"))
    path.write_bytes(path.read_bytes().replace(b"Add", b"\x1b[J"))
    finished = wanc("inspect", path)
    assert finished.code == 0
    assert "\x1b" not in finished.out
    assert "1      \\x1b[J 1" in finished.out


@pytest.mark.parametrize("braces", ["{}", "{0}", "{x}"])
def test_braces_in_names_are_names(braces: str) -> None:
    values = tuple(Output(f"y{index}", (1,)) for index in range(20))
    graph = ProgramGraph("model/main.onnx", (), values, example={})
    write_program(Path(), Program("graph", None, {"model": ProgramComponent({braces: graph}, {})}, None))
    assert f"  model/{braces}" in as_text(tables(inspect(".", Path())))
