"""Golden inputs and outputs: a build proves itself, a changed weight shows, and NaN never passes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx.parser
import pytest
from numpy.typing import NDArray

from wanc.artifacts.canonical import canonical
from wanc.compiler.bundle.assemble import GOLDEN_PROMPT
from wanc.compiler.bundle.examine import examine
from wanc.compiler.bundle.golden import RELATIVE_TOLERANCE, Golden
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import BundleError, RecipeError
from wanc.models.graph import Input, Output
from wanc.models.weights import Weight
from wanc.runtime import safetensors
from wanc.runtime.execute import SelftestReport, run_selftest
from wanc.runtime.selftest import TEXT
from wanc.runtime.video_bundle import VideoBundle

from .builder import Project

EXPERT_GRAPHS = ("request", "shape", "step", "time")
GRAPHS = [
    *(f"{expert}/{graph}" for expert in ("denoiser_high", "denoiser_low") for graph in EXPERT_GRAPHS),
    "text_encoder/encode",
    "vae_decoder/first",
    "vae_decoder/steady",
]


@pytest.fixture
def bundle(project: Project, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(project.result.bundle, tmp_path / "bundle")


def selftest(bundle: Path) -> SelftestReport:
    return run_selftest(bundle, threads=1)


def attest(bundle: Path) -> None:
    """Make the manifest fit the files: what is planted has to be found by computing, not by a digest."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for entry in manifest["files"]:
        data = (bundle / entry["path"]).read_bytes()
        entry |= {"size": len(data), "sha256": f"sha256:{hashlib.sha256(data).hexdigest()}"}
    path.write_bytes(canonical(manifest))


def change_weight(bundle: Path, component: str, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    weight: Weight = Program.read(bundle / "program.json").components[component].weights[name]
    path = bundle / weight.file
    data = bytearray(path.read_bytes())
    span = slice(weight.offset, weight.offset + weight.length)
    changed = change(np.frombuffer(bytes(data[span]), np.float32).reshape(weight.shape)).astype(np.float32)
    assert changed.nbytes == weight.length
    data[span] = changed.tobytes()
    path.write_bytes(data)


def poisoned(values: NDArray[Any]) -> NDArray[Any]:
    values = values.copy()
    values.flat[0] = np.nan
    return values


def test_the_machine_that_built_passes(project: Project) -> None:
    report = selftest(project.result.bundle)
    assert report.ok
    before, graphs = report.checks[: len(TEXT)], report.checks[len(TEXT) :]
    assert [check.graph for check in graphs] == GRAPHS
    assert report.bundle_id == project.result.id
    assert [(check.graph, check.relative_error, check.tolerance) for check in before] == [(name, 0, 0) for name in TEXT]
    for check in graphs:
        # The same library, machine and number of threads: not one bit differs.
        assert (check.relative_error, check.tolerance) == (0.0, RELATIVE_TOLERANCE["float32"])


@pytest.mark.parametrize(
    ("component", "name", "graphs"),
    [
        ("denoiser_high", "proj_out.bias", ["denoiser_high/step"]),
        ("denoiser_low", "blocks.0.ffn.net.2.bias", ["denoiser_low/step"]),
        ("text_encoder", "encoder.final_layer_norm.weight", ["text_encoder/encode"]),
        ("vae_decoder", "decoder.conv_out.bias", ["vae_decoder/first", "vae_decoder/steady"]),
    ],
)
def test_a_changed_weight_fails_where_it_is_used(bundle: Path, component: str, name: str, graphs: list[str]) -> None:
    """One percent of one small tensor: far more than rounding, far less than anybody would see in a video."""
    change_weight(bundle, component, name, lambda values: values * 1.01)
    attest(bundle)
    report = selftest(bundle)
    assert not report.ok
    assert [check.graph for check in report.checks if not check.ok] == graphs


@pytest.mark.parametrize(
    ("component", "name"), [("denoiser_high", "proj_out.bias"), ("vae_decoder", "decoder.conv_in.bias")]
)
def test_nan_never_passes(bundle: Path, component: str, name: str) -> None:
    change_weight(bundle, component, name, poisoned)
    attest(bundle)
    report = selftest(bundle)
    failed = [check for check in report.checks if not check.ok]
    assert {check.graph.split("/")[0] for check in failed} == {component}
    assert all(check.relative_error == float("inf") for check in failed)
    assert "FAILED" in report.as_text()


def test_nan_does_not_pass_even_where_it_is_expected(bundle: Path) -> None:
    path = bundle / "golden/expected.safetensors"
    expected = {name: np.array(array) for name, array in safetensors.SafetensorsFile(path).items()}
    key = "denoiser_high/step/velocity"
    safetensors.write(path, {**expected, key: np.full_like(expected[key], np.nan)})
    change_weight(bundle, "denoiser_high", "proj_out.bias", lambda values: values * np.nan)
    attest(bundle)
    assert [check.graph for check in selftest(bundle).checks if not check.ok] == ["denoiser_high/step"]


def test_a_graph_without_golden_outputs_is_refused(bundle: Path) -> None:
    path = bundle / "golden/expected.safetensors"
    expected = {name: np.array(array) for name, array in safetensors.SafetensorsFile(path).items()}
    safetensors.write(path, {name: array for name, array in expected.items() if "text_encoder" not in name})
    attest(bundle)
    with pytest.raises(BundleError, match="text_encoder/encode/hidden is missing"):
        selftest(bundle)


def failed(bundle: Path) -> list[str]:
    attest(bundle)
    return [check.graph for check in selftest(bundle).checks if not check.ok]


def rewrite_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), "utf-8")


def swap_pieces(document: dict[str, Any]) -> None:
    """Two words change places: the vocabulary is as large, and every text as long, as before."""
    pieces = document["model"]["vocab"]
    one, other = (next(i for i, (piece, _) in enumerate(pieces) if piece == word) for word in ("▁A", "▁red"))
    pieces[one][0], pieces[other][0] = pieces[other][0], pieces[one][0]


def without_spaces(document: dict[str, Any]) -> None:
    """A setting of how a text is split, of which the first word alone has its mark of a space."""
    document["pre_tokenizer"]["prepend_scheme"] = "never"


@pytest.mark.parametrize("change", [swap_pieces, without_spaces])
def test_other_tokens_of_a_prompt_show(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As with a library that makes other tokens of a text: every graph still computes what it did."""
    rewrite_json(bundle / "tokenizer/tokenizer.json", change)
    assert failed(bundle) == [TEXT[0]]


def test_other_rows_of_the_embedding_show(bundle: Path) -> None:
    path = bundle / "engines/text_encoder/embedding.safetensors"
    data, table = path.read_bytes(), 96 * 16 * 2  # float16, and behind the header nothing else
    path.write_bytes(data[:-table] + bytes(byte ^ 1 for byte in data[-table:]))
    assert failed(bundle) == [TEXT[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(prompts=[]), "prompts has 0 entries; there are 1 to 64"),
        (lambda document: document["prompts"][0].update(ids=[]), r"prompts\[0\].ids must be 1 to 16 token numbers"),
        (
            lambda document: document["prompts"][0].update(ids=[1] * 17),
            r"prompts\[0\].ids must be 1 to 16 token numbers",
        ),
        (lambda document: document["prompts"][1].update(ids=[0.5]), r"prompts\[1\].ids must be 1 to 16 token numbers"),
        (lambda document: document["prompts"][0].update(ids=[-1]), r"prompts\[0\].ids\[0\] must be at least 0"),
        (lambda document: document["prompts"][0].pop("prompt"), r"prompts\[0\].prompt is missing"),
        (lambda document: document["prompts"][0].update(prompt="a" * 70000), r"prompts\[0\].prompt "),
    ],
)
def test_prompts_that_lie_are_refused_when_the_bundle_is_opened(
    bundle: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite_json(bundle / "golden/prompts.json", change)
    attest(bundle)
    with pytest.raises(BundleError, match=message):
        VideoBundle.open(bundle)


def test_the_record_begins_at_prompts(project: Project) -> None:
    prompts = json.loads((project.result.bundle / "golden/prompts.json").read_text("utf-8"))["prompts"]
    assert [entry["prompt"] for entry in prompts][:2] == [GOLDEN_PROMPT, ""]
    assert {len(entry["ids"]) for entry in prompts} >= {1, 16}, "nothing but an end mark, and as much as is read"
    assert {entry["ids"][-1] for entry in prompts} == {1}
    given = safetensors.SafetensorsFile(project.result.bundle / "golden/inputs.safetensors")
    assert given["text_encoder/encode/embeddings"].shape[1] == len(prompts[0]["ids"])


def write_golden(components: Mapping[str, ProgramComponent], folder: Path) -> None:
    """Record graphs that lie in a folder, as built for ONNX Runtime, and write the record there."""
    golden = Golden()
    for name, component in components.items():
        files = ComponentFiles(name, component, {path.name: path for path in folder.glob("*.onnx")}, {})
        with TemporaryDirectory(dir=folder) as out:
            compiler = OnnxRuntimeCompiler()
            made = compile_segment(compiler, files, whole(files), CPU, Path(out), FiniteCheck(name))
            examine(compiler, files, [made], Path(out), {}, golden)
    golden.write(folder)


@pytest.fixture
def toy(tmp_path: Path) -> dict[str, ProgramComponent]:
    """One component with one graph: y = a + time, of symbolic sizes; and the sum of a mask."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 23]> toy (float[1, rows, N] a, float[1] time, int64[rows] mask)'
        " => (float[1, rows, N] y, int64[M] total) { y = Add (a, time) total = ReduceSum (mask) }"
    )
    onnx.save(model, tmp_path / "toy.onnx")
    inputs = (
        Input("a", (1, "rows", "2*columns"), binding="step", per="request"),
        Input("time", (1,), binding="build", per="expert"),
        Input("mask", ("rows",), binding="request", per="branch", dtype="int64"),
    )
    outputs = (Output("y", (1, "rows", "2*columns")), Output("total", (1,), dtype="int64"))
    graph = ProgramGraph("toy.onnx", inputs, outputs, example={"rows": 3, "columns": 2}, values={"time": 500.0})
    return {"part": ProgramComponent({"toy": graph}, {})}


def test_golden_sizes_are_the_examples_and_values_are_the_same_each_time(
    toy: dict[str, ProgramComponent], tmp_path: Path
) -> None:
    write_golden(toy, tmp_path)
    inputs = safetensors.SafetensorsFile(tmp_path / "golden/inputs.safetensors")
    expected = safetensors.SafetensorsFile(tmp_path / "golden/expected.safetensors")
    shapes = {name: array.shape for name, array in inputs.items()}
    assert shapes == {"part/toy/a": (1, 3, 4), "part/toy/time": (1,), "part/toy/mask": (3,)}
    assert inputs["part/toy/time"].tolist() == [500.0]
    assert inputs["part/toy/mask"].tolist() == [1, 1, 1]
    assert len(np.unique(inputs["part/toy/a"])) == 12
    np.testing.assert_array_equal(expected["part/toy/y"], inputs["part/toy/a"] + np.float32(500.0))
    assert json.loads((tmp_path / "golden/tolerances.json").read_text()) == {"part/toy": RELATIVE_TOLERANCE["float32"]}
    first = {path.name: path.read_bytes() for path in (tmp_path / "golden").iterdir()}
    shutil.rmtree(tmp_path / "golden")
    write_golden(toy, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "golden").iterdir()} == first


def test_inputs_of_every_format_are_filled(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 23]> '
        "formats (bool[N] flags, uint8[N] bytes, float16[N] halves, int64 rate) => (float16[N] y) { "
        "as_float = Cast <to = 10> (bytes) added = Add (as_float, halves) "
        "rate_half = Cast <to = 10> (rate) zero = Mul (added, rate_half) y = Where (flags, zero, halves) }"
    )
    onnx.save(model, tmp_path / "formats.onnx")
    inputs = (
        Input("flags", ("n",), "request", "request", "bool"),
        Input("bytes", ("n",), "request", "request", "uint8"),
        Input("halves", ("n",), "request", "request", "float16"),
        Input("rate", (), "request", "request", "int64"),
    )
    graph = ProgramGraph("formats.onnx", inputs, (Output("y", ("n",)),), example={"n": 4}, values={"rate": 3})
    write_golden({"part": ProgramComponent({"main": graph}, {})}, tmp_path)
    fed = dict(safetensors.SafetensorsFile(tmp_path / "golden/inputs.safetensors").items())
    assert {name.rpartition("/")[2]: array.dtype.name for name, array in fed.items()} == {
        entry.name: entry.dtype for entry in inputs
    }
    assert fed["part/main/flags"].all()
    assert fed["part/main/bytes"].tolist() == [1] * 4
    assert fed["part/main/rate"] == 3


def test_numbers_outside_of_a_table_are_the_recipes_fault(tmp_path: Path) -> None:
    """An engine may give whatever lies in memory there, and the record would hold that."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 23]> rows (int64[N] ids) => (float[N] y)'
        " <float[2] table = {1, 2}> { y = Gather (table, ids) }"
    )
    onnx.save(model, tmp_path / "rows.onnx")
    inputs = (Input("ids", ("n",), "request", "request", "int64"),)
    graph = ProgramGraph("rows.onnx", inputs, (Output("y", ("n",)),), example={"n": 4}, values={"ids": 2})
    with pytest.raises(RecipeError) as caught:
        write_golden({"part": ProgramComponent({"main": graph}, {})}, tmp_path)
    assert caught.value.message == ("part/main: the input 'ids' holds 2 at [0], and numbers from -2 to 1 were expected")
    assert caught.value.hint == "give numbers that it takes under model.values"
    assert not (tmp_path / "golden").exists()


def test_sizes_that_do_not_work_together_are_the_recipes_fault(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 23]> toy (float[rows] a, float[columns] b)'
        " => (float[N] y) { y = Add (a, b) }"
    )
    onnx.save(model, tmp_path / "toy.onnx")
    inputs = tuple(Input(name, (size,), "request", "request") for name, size in (("a", "rows"), ("b", "columns")))
    graph = ProgramGraph("toy.onnx", inputs, (Output("y", ("N",)),), example={"rows": 3, "columns": 2})
    with pytest.raises(RecipeError) as caught:
        write_golden({"part": ProgramComponent({"toy": graph}, {})}, tmp_path)
    assert caught.value.message == "part/toy does not run at the sizes {columns: 2, rows: 3}"
    assert caught.value.hint is not None and "model.example" in caught.value.hint
    assert not (tmp_path / "golden").exists()


def test_nans_are_the_recipes_fault(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 23]> root (float[N] x) => (float[N] y) { y = Sqrt (x) }'
    )
    onnx.save(model, tmp_path / "root.onnx")
    graph = ProgramGraph(
        "root.onnx", (Input("x", ("n",), "request", "request"),), (Output("y", ("n",)),), example={"n": 8}
    )
    with pytest.raises(RecipeError) as caught:
        write_golden({"part": ProgramComponent({"main": graph}, {})}, tmp_path)
    assert caught.value.message == "part/main: the output y holds NaNs for the example's inputs"
    assert caught.value.hint == "give values for which it does not, under model.values"
    assert not (tmp_path / "golden").exists()
    write_golden({"part": ProgramComponent({"main": replace(graph, values={"x": 4.0})}, {})}, tmp_path)
    expected = safetensors.SafetensorsFile(tmp_path / "golden/expected.safetensors")
    assert expected["part/main/y"].tolist() == [2.0] * 8
