"""What a build is asked when it is compared with its source: graphs that were built wrong, or are not what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compiler.elsewhere import BuildOnly
from wanc.compiler.check.plain import PlainGraph, ReferenceGraph
from wanc.compiler.check.trials import NoKernel, SourceRefuses
from wanc.compiler.engines.openvino.engine import OpenVinoEngine
from wanc.errors import CheckpointError, UserError, render
from wanc.runtime.manifest import Manifest

from ...conftest import Wanc
from .planted import PlantedEngine, PlantedFuse, check_with

HEAD = '<ir_version: 9, opset_import: ["" : 18]> g '
LABELS = {
    "twice as many rows": "(float[batch, 2, 4] x) => (float[batch, 4] y)"
    " { t = Constant <value_ints = [-1, 4]> () y = Reshape (x, t) }",
    "another number": "(float[n, 4] x) => (float[n, 3] y) { y = Sin (x) }",
    "an axis less": "(float[n, 4] x) => (float[n] y)"
    " { t = Constant <value_ints = [-1, 4]> () a = Sin (x) y = Reshape (a, t) }",
    "sizes that change places": "(float[n, m] x) => (float[n, m] y) { y = Transpose <perm = [1, 0]> (x) }",
}


def write(folder: Path, graph: str) -> Path:
    onnx.save(onnx.parser.parse_model(HEAD + graph), folder / "model.onnx")
    return folder / "model.onnx"


def trials(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return told["graphs"]["model/main"]["trials"]


@pytest.mark.parametrize("name", LABELS)
def test_outputs_are_what_they_are_declared_as(name: str, tmp_path: Path) -> None:
    example = {size: 2 + index for index, size in enumerate(("batch", "n", "m")) if f"{size}," in LABELS[name]}
    example |= {"m": 5} if "m]" in LABELS[name] else {}
    with pytest.raises(CheckpointError, match="the output y is declared as float32") as caught:
        check_with(write(tmp_path, LABELS[name]), example)
    assert "hint: write into the file what it computes" in render(caught.value)


def test_mislabelled_outputs_are_refused_for_openvino_too(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"declared as float32 \[batch, 4\], and the model computes float32 \[4, 4\]"
    ):
        check_with(write(tmp_path, LABELS["twice as many rows"]), {"batch": 2}, engine=OpenVinoEngine())


def test_one_tensor_under_two_names_on_openvino(tmp_path: Path) -> None:
    graph = "(float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { b = Relu (x) y = Identity (b) z = Identity (b) }"
    path = write(tmp_path, graph)
    model = onnx.load(path)
    model.opset_import[0].version = 13
    onnx.save(model, path)
    told = check_with(path, {"n": 2}, engine=OpenVinoEngine())
    assert [entry["errors"] for entry in trials(told)] == [{"engine": 0.0}] * 3


def test_an_engine_that_names_its_outputs_otherwise(tmp_path: Path) -> None:
    graph = "(float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { y = Sin (x) z = Cos (x) }"
    with pytest.raises(CheckpointError) as caught:
        check_with(write(tmp_path, graph), {"n": 2}, engine=PlantedEngine("names"))
    assert render(caught.value).splitlines() == [
        "error: model/main: onnxruntime gives no output y, but renamed, z",
        "hint: tell us, and build with another engine.kind until then",
    ]


def padded(folder: Path, op_type: str, gates: int) -> Path:
    """A recurrent network over a batch whose sequences have lengths of their own."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(1, 4 * gates, 5)), "r": random.normal(size=(1, 4 * gates, 4))}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", "w", "r", "", "lens"], ["y", "h"], hidden_size=4)],
        "g",
        [value("x", TensorProto.FLOAT, ["t", "n", 5]), value("lens", TensorProto.INT32, ["n"])],
        [value("y", TensorProto.FLOAT, ["t", 1, "n", 4]), value("h", TensorProto.FLOAT, [1, "n", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize(("op_type", "gates"), [("GRU", 3), ("LSTM", 4), ("RNN", 1)])
def test_lengths_below_the_padding(op_type: str, gates: int, tmp_path: Path) -> None:
    """onnxruntime keeps to them."""
    told = check_with(padded(tmp_path, op_type, gates), {"t": 6, "n": 3})
    assert {"inputs": "edges", "sizes": {"n": 3, "t": 6}, "errors": {"engine": 0.0}} in trials(told)


def test_draws_are_not_compared(tmp_path: Path) -> None:
    graph = (
        "(float[n] x) => (float[n] y, float[n] z) <float r = {0.5}, bool t = {1}>"
        " { a = Dropout (x, r, t) y = Sin (a) z = Sin (x) }"
    )
    told = check_with(write(tmp_path, graph), {"n": 64})
    assert told["graphs"]["model/main"]["random"] == ["y"]


def test_what_does_not_hang_on_a_draw_is_compared(tmp_path: Path) -> None:
    graph = (
        "(float[n] x) => (float[n] y, float[n] z) <float r = {0.5}, bool t = {1}>"
        " { a = Dropout (x, r, t) y = Sin (a) z = LeakyRelu <alpha = 0.25> (x) }"
    )
    with pytest.raises(UserError, match="z differs by"):
        check_with(write(tmp_path, graph), {"n": 64}, fuse=PlantedFuse(None, (), (), "alpha dropped"))


def test_integers_beyond_32_bits(tmp_path: Path) -> None:
    graph = "(int64[n] x) => (int64[n] y) <int64 one = {1}> { y = Add (x, one) }"
    told = check_with(write(tmp_path, graph), {"n": 5})
    assert [entry["inputs"] for entry in trials(told)] == ["noise", "noise", "edges", "wide"]


def test_openvino_says_that_it_takes_none_of_these(tmp_path: Path) -> None:
    graph = "(int64[n] x) => (int64[n] y) <int64 one = {1}> { y = Add (x, one) }"
    told = check_with(write(tmp_path, graph), {"n": 5}, engine=OpenVinoEngine())
    assert trials(told)[-1] == {"inputs": "wide", "sizes": {"n": 5}, "refused_by": "openvino", "errors": {}}


def test_sizes_are_none_of_their_business(tmp_path: Path) -> None:
    """Numbers that become sizes are not drawn beyond 32 bits: that would be an array of gigabytes."""
    graph = "(int64[1] n) => (float[m] y) { y = ConstantOfShape (n) }"
    assert [entry["inputs"] for entry in trials(check_with(write(tmp_path, graph), {}))] == ["noise", "edges"]


def test_sizes_that_the_source_refuses_are_said(tmp_path: Path) -> None:
    """A width of 6, and sizes that have to divide it."""
    graph = (
        "(float[n] x) => (float[a, b] y) <int64[1] six = {6}, int64[1] rest = {-1}>"
        " { n = Shape (x) q = Div (six, n) t = Concat <axis = 0> (n, q) c = ConstantOfShape (six) y = Reshape (c, t) }"
    )
    assert trials(check_with(write(tmp_path, graph), {"n": 2})) == [
        {"inputs": "noise", "sizes": {"n": 2}, "errors": {"engine": 0.0}},
        {"inputs": "noise", "sizes": {"n": 4}, "refused_by": "source"},
        {"inputs": "noise", "sizes": {"n": 3}, "errors": {"engine": 0.0}},
        {"inputs": "edges", "sizes": {"n": 2}, "errors": {"engine": 0.0}},
    ]


def test_an_engine_that_runs_elsewhere_is_compared_up_to_its_graph(tmp_path: Path) -> None:
    path = write(tmp_path, "(float[n, 4] x) => (float[n, 4] y) { y = LeakyRelu <alpha = 0.25> (x) }")
    told = check_with(path, {"n": 3}, engine=BuildOnly())
    assert told["graphs"]["model/main"]["compared"] == {"lowered graph": "float32"}


def test_of_such_an_engine_a_pass_is_found_as_well(tmp_path: Path) -> None:
    path = write(tmp_path, "(float[n, 4] x) => (float[n, 4] y) { y = LeakyRelu <alpha = 0.25> (x) }")
    with pytest.raises(UserError, match="It differs from the pass planted of fuse on"):
        check_with(path, {"n": 3}, fuse=PlantedFuse(None, (), (), "alpha dropped"), engine=BuildOnly())


def test_onnx_s_reference_gives_what_onnxruntime_gives(tmp_path: Path) -> None:
    path = write(tmp_path, "(float[n, 4] x) => (float[n, 4] y, int64[2] z) { y = Sin (x) z = Shape (x) }")
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    plain, reference = (graph(path).run({"x": x}) for graph in (PlainGraph, ReferenceGraph))
    assert list(plain) == list(reference) == ["y", "z"]
    for name, array in plain.items():
        np.testing.assert_allclose(reference[name], array, rtol=1e-6)
        assert reference[name].dtype == array.dtype


def test_where_neither_can_it_is_said(tmp_path: Path) -> None:
    text = (
        '<ir_version: 9, opset_import: ["" : 18, "other" : 1]> g (float[n] x) => (float[n] y) { y = other.Thing (x) }'
    )
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    with pytest.raises(NoKernel):
        PlainGraph(tmp_path / "model.onnx")
    with pytest.raises(SourceRefuses):
        ReferenceGraph(tmp_path / "model.onnx").run({"x": np.ones(3, np.float32)})


@pytest.mark.parametrize("mode", ["on", "off"])
def test_the_manifest_says_whether_a_build_was_checked(mode: str, wanc: Wanc, tmp_path: Path) -> None:
    write(tmp_path, "(float[n, 4] x) => (float[n, 4] y) { y = Sin (x) }")
    recipe = f"wanc: 1\nname: m\nmodel: {{onnx: model.onnx, example: {{n: 3}}}}\nengine: {{check: {mode}}}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    finished = wanc("build", tmp_path / "recipe.yaml", "-o", tmp_path / "out", "--json")
    assert finished.code == 0, finished.err
    stages = [stage["name"] for stage in json.loads(finished.out)["stages"]]
    assert ("check" in stages) == (mode == "on")
    check = Manifest.read(tmp_path / "out/bundles/m").check
    assert check["mode"] == mode
    if mode == "on":
        assert check["against"] == "onnxruntime, not optimised"
        graph = check["graphs"]["model/main"]  # pyright: ignore
        assert graph["compared"] == {"engine": "float32"}  # pyright: ignore
