"""A bundle of one graph: built from an ONNX file, run on arrays by `wanc run` and by its own run.py."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from wanc.compiler.pipeline import BuildResult, build, rebuild_and_compare
from wanc.errors import UserError
from wanc.recipe.load import load
from wanc.runtime import safetensors
from wanc.runtime.api import open_graph
from wanc.runtime.verify import verify

from ..conftest import Wanc
from ..in_the_way import IN_THE_WAY
from .conftest import RunPy
from .test_standalone import FORBIDDEN, closure

# Odd names and every kind of dtype: what other frameworks write, and what .npz files and safetensors have to carry.
RECIPE = """\
wanc: 1
name: odd
model:
  onnx: model/m.onnx
  example: {rows: 3, cols: 2}
  values: {n: 2}
"""
VIDEO_LIBRARIES = ["av", "ftfy", "tokenizers"]
X = np.arange(20, dtype=np.float16).reshape(5, 4)
FEEDS: dict[str, np.ndarray[Any, Any]] = {"in/x:0": X, "mask é": np.arange(5) % 2 == 0, "n": np.array(3)}


def write_model(folder: Path) -> None:
    """y = x·w where the mask holds, and 0 elsewhere; -inf as what a log gives; weights beside the model."""
    folder.mkdir()
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "g (float16[rows, even] x, bool[rows] mask, int64 n)"
        " => (float16[rows, even] y, bool[rows] not_mask, int64 n2, uint8[rows] small, float[1] low) {"
        " p = Mul (x, w) zero = Constant <value = float16 {0}> () axes = Constant <value_ints = [1]> ()"
        " column = Unsqueeze (mask, axes) y = Where (column, p, zero) not_mask = Not (mask)"
        " n2 = Mul (n, n) small = Cast <to = 2> (mask)"
        " nothing = Constant <value = float[1] {0}> () low = Log (nothing) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.full((1, 1), 2, np.float16), "w"))
    table = numpy_helper.from_array(np.zeros((40, 30), np.float32), "table")
    proto.graph.initializer.append(table)
    proto.graph.node.append(helper.make_node("Shape", ["table"], ["unused"]))
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[1].dim_param = "2*cols"
    rename = {"x": "in/x:0", "mask": "mask é", "y": "out/y:0"}
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = rename.get(value.name, value.name)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [rename.get(name, name) for name in names]
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=1024)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    write_model(folder / "model")
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def build_in(project: Path) -> BuildResult:
    (loaded,) = load(project / "recipe.yaml")
    return build(loaded, project / "out", progress=False)


@pytest.fixture(scope="module")
def bundle(project: Path) -> Path:
    return build_in(project).bundle


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.savez(tmp_path / "in.npz", **FEEDS)
    return tmp_path / "in.npz"


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def assert_computed(path: Path) -> None:
    outputs = read(path)
    expected = {
        "out/y:0": np.where((np.arange(5) % 2 == 0)[:, None], X * np.float16(2), np.float16(0)),
        "not_mask": np.arange(5) % 2 == 1,
        "n2": np.array(9),
        "small": (np.arange(5) % 2 == 0).astype(np.uint8),
        "low": np.array([-np.inf], np.float32),
    }
    assert list(outputs) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array)
        assert outputs[name].dtype == array.dtype


def test_wanc_run_gives_arrays_for_arrays(bundle: Path, wanc: Wanc, inputs: Path, tmp_path: Path) -> None:
    finished = wanc("run", bundle, "--inputs", inputs, "-o", tmp_path / "out.npz")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith(f"{tmp_path / 'out.npz'} (verify ")
    assert_computed(tmp_path / "out.npz")


def test_run_py_gives_the_same(bundle: Path, run_py: RunPy, inputs: Path, tmp_path: Path) -> None:
    finished = run_py(bundle, "--inputs", inputs, "-o", tmp_path / "out.npz", "--json")
    assert (finished.code, finished.err) == (0, "")
    report = json.loads(finished.out)
    assert sorted(report) == ["counters", "outputs", "peak_rss_bytes", "seconds"]
    assert report["outputs"] == str(tmp_path / "out.npz")
    assert list(report["seconds"]) == ["verify", "read", "open", "run", "write"]
    assert sorted(report["counters"]) == ["model/main.bytes", "model/main.executions", "model/main.seconds"]
    assert report["counters"]["model/main.executions"] == 1
    assert_computed(tmp_path / "out.npz")


def test_python_gives_the_same(bundle: Path, inputs: Path) -> None:
    opened, given = open_graph(bundle, threads=1), dict(np.load(inputs))
    found = opened.run(given)
    assert found.keys() == {output.name for output in opened.interface.outputs}
    for name, expected in open_graph(bundle, workers="threads").run(given).items():
        np.testing.assert_array_equal(found[name], expected)
    with pytest.raises(UserError, match="there are no processes of workers: this bundle is placed on one device"):
        open_graph(bundle, workers="processes")


def test_the_bundle_tests_itself(bundle: Path, run_py: RunPy) -> None:
    finished = run_py(bundle, "--selftest")
    assert finished.code == 0
    assert finished.out == "ok   model/main: error 0.0e+00, at most 1e-04\nselftest passed\n"


@pytest.mark.parametrize("name", ["out/y:0", "not_mask", "n2", "small", "low"])
def test_the_selftest_finds_any_output_that_differs(bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no float is compared exactly, and an infinity is not taken for a number."""
    from wanc.runtime.bundle import Bundle
    from wanc.runtime.selftest import selftest
    from wanc.runtime.session import Session

    plain = Session.run

    def wrong(self: Session, arrays: Any) -> dict[str, Any]:
        outputs = plain(self, arrays)
        changed = outputs[name].copy()
        changed.flat[0] = {"low": 0.0}.get(name, ~changed.flat[0] if changed.dtype.kind == "b" else changed.flat[0] + 1)
        return {**outputs, name: changed}

    opened = Bundle.open(bundle)
    (check,) = selftest(opened)
    assert check.ok
    monkeypatch.setattr(Session, "run", wrong)
    (check,) = selftest(opened)
    assert not check.ok


def test_golden_names_can_be_read_anywhere(bundle: Path) -> None:
    """safetensors' other readers take any name; ours takes few characters, so that odd ones are spelt out."""
    names = set(safetensors.SafetensorsFile(bundle / "golden/inputs.safetensors"))
    assert names == {"model/main/in/x-3a0", "model/main/mask-20-c3-a9", "model/main/n"}


def test_the_manifest_tells_the_interface(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["runtime"] == {"task": "graph", "threads": 0}
    described = manifest["topology"]["components"]["model"]["main"]
    assert [(entry["name"], entry["dtype"], entry["shape"]) for entry in described["inputs"]] == [
        ("in/x:0", "float16", ["rows", "2*cols"]),
        ("mask é", "bool", ["rows"]),
        ("n", "int64", []),
    ]
    assert [(entry["name"], entry["dtype"]) for entry in described["outputs"]] == [
        ("out/y:0", "float16"),
        ("not_mask", "bool"),
        ("n2", "int64"),
        ("small", "uint8"),
        ("low", "float32"),
    ]


def test_a_second_build_takes_everything_from_the_store(project: Path, bundle: Path) -> None:
    assert all(run.cached for run in build_in(project).stages if run.name != "resolve")


def test_it_is_bit_identical_wherever_it_is_built(project: Path, bundle: Path, tmp_path: Path) -> None:
    result = build_in(project)
    (loaded,) = load(project / "recipe.yaml")
    assert rebuild_and_compare(result, loaded, progress=False) == []
    moved = Path(shutil.copytree(project, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("out")))
    assert build_in(moved).id == result.id


USAGE = "hint: give --inputs FILE.npz"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "this bundle runs one graph: give --inputs FILE.npz"),
        (("--prompt", "a"), f"--prompt does not apply: this bundle runs one graph\n{USAGE}"),
        (
            ("--inputs", "in.npz", "--seed", "0", "--negative-prompt", "b"),
            "--negative-prompt and --seed do not apply: this bundle runs one graph",
        ),
        (("--steps", "4"), f"--steps does not apply: this bundle runs one graph\n{USAGE}"),
        (
            ("--inputs", "in.npz", "--threads", "-1"),
            "-1 threads\nhint: ask for 1 or more, or 0 for every core",
        ),
    ],
    ids=" ".join,
)
def test_what_a_graph_is_asked_for_with(
    bundle: Path, wanc: Wanc, run_py: RunPy, inputs: Path, tmp_path: Path, given: tuple[str, ...], message: str
) -> None:
    arguments = [str(inputs) if argument == "in.npz" else argument for argument in given]
    for finished in (
        run_py(bundle, *arguments, "-o", tmp_path / "out.npz"),
        wanc("run", bundle, *arguments, "-o", tmp_path / "out.npz"),
    ):
        assert (finished.code, finished.out, finished.err) == (2, "", f"error: {message}\n")
    assert os.listdir(tmp_path) == ["in.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": None}, "the input 'n' is missing\nhint: it is int64 []"),
        (
            {"y": np.zeros(1)},
            "this bundle has no input 'y'\nhint: it takes: in/x:0, mask é, n",
        ),
        (
            {"in/x:0": X.astype(np.float32)},
            "the input 'in/x:0' is float32 [5, 4], and float16 [rows, 2*cols] was expected",
        ),
        (
            {"in/x:0": X[:, :3]},
            "the input 'in/x:0' is float16 [5, 3], and float16 [rows, 2*cols] was expected",
        ),
        (
            {"mask é": np.zeros(4, bool)},
            "the input 'mask é' is bool [4], and bool [rows] was expected: rows is 4 here and 5 in 'in/x:0'",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_inputs_that_do_not_fit(
    bundle: Path, run_py: RunPy, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    arrays = {name: array for name, array in {**FEEDS, **change}.items() if array is not None}
    np.savez(tmp_path / "in.npz", **arrays)
    finished = run_py(bundle, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert (finished.code, finished.out, finished.err) == (65, "", f"error: {tmp_path / 'in.npz'}: {message}\n")
    assert os.listdir(tmp_path) == ["in.npz"]


def test_inputs_that_are_not_there(bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    finished = run_py(bundle, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert (finished.code, finished.err) == (
        66,
        f"error: {tmp_path / 'in.npz'}: no such file\ncaused by: No such file or directory\n",
    )


def test_outputs_are_never_written_into_the_bundle(bundle: Path, run_py: RunPy, inputs: Path) -> None:
    finished = run_py(bundle, "--inputs", inputs, "-o", bundle / "out.npz")
    assert (finished.code, finished.err) == (
        2,
        f"error: {bundle / 'out.npz'}: the output would lie inside the bundle, which is never written to\n"
        "hint: name a file elsewhere\n",
    )
    assert verify(bundle).ok


@pytest.mark.parametrize(
    ("name", "found", "hint"),
    [
        ("out.mp4", "nothing is written as .mp4", "out.npz"),
        ("out.png", "nothing is written as .png", "out.npz"),
        ("out", "the name has no suffix", "out.npz"),
    ],
)
def test_outputs_of_a_graph_are_arrays(
    bundle: Path, run_py: RunPy, inputs: Path, tmp_path: Path, name: str, found: str, hint: str
) -> None:
    finished = run_py(bundle, "--inputs", inputs, "-o", tmp_path / name)
    assert (finished.code, finished.err) == (
        2,
        f"error: {tmp_path / name}: {found}; what can be written here: .npz (the outputs)\nhint: name it {hint}\n",
    )
    assert os.listdir(tmp_path) == ["in.npz"]
    assert run_py(bundle, "--inputs", inputs, "-o", tmp_path / "OUT.NPZ").code == 0
    assert_computed(tmp_path / "OUT.NPZ")


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_in_the_way_of_outputs_is_left_as_it_is(
    bundle: Path, run_py: RunPy, inputs: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "out.npz"
    words = IN_THE_WAY[kind](path)
    before = path.lstat()
    finished = run_py(bundle, "--inputs", inputs, "-o", path)
    assert finished.code == 74
    assert finished.err.startswith(f"error: {path}: ") and words in finished.err
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


def test_standard_output_gets_the_same_outputs(bundle: Path, run_py: RunPy, inputs: Path, tmp_path: Path) -> None:
    assert run_py(bundle, "--inputs", inputs, "-o", tmp_path / "out.npz").code == 0
    command = [sys.executable, bundle / "run.py", "--inputs", inputs, "-o", "-", "--json"]
    finished = subprocess.run(command, capture_output=True, cwd=bundle, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == (tmp_path / "out.npz").read_bytes()
    assert json.loads(finished.stderr)["outputs"] == "-"
    assert verify(bundle).ok


def test_sizes_that_the_graph_cannot_take(run_py: RunPy, tmp_path: Path) -> None:
    """What only the engine can find out is told with the engine's own words."""
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]>'
        "g (float[n] x) => (float[m, k] y) { s = Constant <value_ints = [2, -1]> () y = Reshape (x, s) }"
    )
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "r.yaml").write_text("wanc: 1\nname: halves\nmodel: {onnx: m.onnx, example: {n: 4}}\n")
    (loaded,) = load(tmp_path / "r.yaml")
    bundle = build(loaded, tmp_path / "out", progress=False).bundle
    np.savez(tmp_path / "in.npz", x=np.zeros(5, np.float32))
    finished = run_py(bundle, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert (finished.code, finished.out) == (69, "")
    error, cause = finished.err.split("\ncaused by: ", 1)
    engine = bundle / "engines/model/main.s0.cpu.onnx"
    assert error == f"error: {engine}: onnxruntime cannot execute this graph on these inputs"
    assert "Reshape" in cause
    assert not (tmp_path / "out.npz").exists()


def test_a_damaged_engine_is_never_opened(bundle: Path, run_py: RunPy, inputs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    engine = copy / "engines/model/main.s0.cpu.onnx"
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(bytes(data))
    finished = run_py(copy, "--inputs", inputs, "-o", tmp_path / "out.npz")
    assert finished.code == 1
    assert "engines/model/main.s0.cpu.onnx has sha256:" in finished.err
    assert not (tmp_path / "out.npz").exists()


def test_it_asks_for_numpy_and_onnxruntime_alone(bundle: Path) -> None:
    lines = (bundle / "requirements.txt").read_text().splitlines()
    assert lines == [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime")]


def test_it_runs_where_only_these_are_installed(bundle: Path, inputs: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for distribution in closure((bundle / "requirements.txt").read_text().splitlines()).values():
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def python(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", "-P", *map(str, arguments)],
            env={**environment, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    code = f"from importlib.util import find_spec; print([n for n in {FORBIDDEN + VIDEO_LIBRARIES} if find_spec(n)])"
    assert python("-c", code).stdout == "[]\n"
    done = python(bundle / "run.py", "--inputs", inputs, "-o", tmp_path / "out.npz", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert_computed(tmp_path / "out.npz")
    assert python(bundle / "run.py", "--selftest").stdout.endswith("selftest passed\n")
    assert verify(bundle).ok


def test_a_model_that_is_refused_leaves_no_bundle(wanc: Wanc, tmp_path: Path) -> None:
    """The whole message as the command line shows it: which line of the recipe, which file, what is wrong with it."""
    tensor = TensorProto(name="w", data_type=1, dims=[2**18, 2**18], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[1] x) => (float[1] y) { y = Neg (x) }'
    )
    proto.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "w.bin").write_bytes(bytes(4))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("wanc: 1\nname: bomb\nmodel:\n  onnx: m.onnx\n")
    finished = wanc("build", recipe, "-o", tmp_path / "out")
    assert (finished.code, finished.out) == (65, "")
    assert finished.err.startswith(f"error: {recipe}:4:9: the model cannot be read\ncaused by: ")
    assert "tensor 'w' has 274877906944 bytes, more than the 17179869184 allowed" in finished.err
    assert not (tmp_path / "out" / "bundles").exists()


def test_weights_that_are_not_finite_leave_no_bundle(wanc: Wanc, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[600] x) => (float[600] y) { y = Mul (x, w) }'
    )
    weight = np.ones(600, np.float32)
    weight[[3, 5]] = np.inf, -np.inf
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    recipe = tmp_path / "r.yaml"
    recipe.write_text("wanc: 1\nname: noise\nmodel:\n  onnx: m.onnx\n")
    finished = wanc("build", recipe, "-o", tmp_path / "out")
    assert finished.code == 65
    assert finished.err.endswith(
        f"error: {tmp_path / 'm.onnx'}: model: tensor w holds 2 values that are not finite\n"
        "hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [w]\n"
    )
    assert not (tmp_path / "out" / "bundles").exists()
    allowed = wanc("build", recipe, "-o", tmp_path / "out", "--set", "model.allow_not_finite=[w]")
    assert allowed.code == 0, allowed.err
    misspelt = wanc("build", recipe, "-o", tmp_path / "out2", "--set", "model.allow_not_finite=[w, v]")
    assert misspelt.code == 2
    assert misspelt.err.endswith(
        f"error: {recipe}:4:9: model.allow_not_finite names v, which is no tensor, or one whose values all are finite\n"
        "hint: remove it, or look with wanc inspect what the weights are called\n"
    )
    assert not (tmp_path / "out2" / "bundles").exists()
