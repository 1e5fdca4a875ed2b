"""Sources that change while a build reads them: nothing of it is kept under the digests that they had before."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compiler.builder import Project as Checkpoint
from wanc import cli
from wanc.compiler.stages import runner

from .prober import call_in_fork, probers, run_in_fork
from .project import Project, assert_resumes, assert_sound, records_of

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def prober() -> Iterator[ProcessPoolExecutor]:
    with probers(1) as pool:
        yield pool


# How a file is another one while a stage runs: what happens before its process begins, and what after it has ended.


def write_over(path: Path) -> None:
    """Other bytes, as many, at once."""
    data = path.read_bytes()
    path.write_bytes(data[:-4] + bytes(byte ^ 0x40 for byte in data[-4:]))


def write_back(path: Path) -> None:
    """The bytes and the times that it had: only its change time tells."""
    times = path.stat()
    write_over(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def exchange(path: Path) -> None:
    """Another file takes its place, and the file itself waits beside it."""
    aside = path.with_name("aside")
    path.rename(aside)
    shutil.copy2(aside, path)
    write_over(path)


def put_back(path: Path) -> None:
    path.with_name("aside").replace(path)


def exchange_folder(path: Path) -> None:
    folder, elsewhere = path.parent, path.parent.with_name("elsewhere")
    folder.rename(elsewhere)
    shutil.copytree(elsewhere, folder)
    write_over(path)


def put_folder_back(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.with_name("elsewhere").rename(path.parent)


def write_same(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def remove(path: Path) -> None:
    path.rename(path.with_name("aside"))


def nothing(path: Path) -> None:
    del path


CHANGES: dict[str, tuple[Change, Change]] = {
    "changed": (write_over, nothing),
    "changed and restored": (write_over, write_back),
    "restored by its own file": (exchange, put_back),
    "replaced": (exchange, nothing),
    "truncated": (truncate, nothing),
    "removed": (remove, nothing),
    "written over with the same": (write_same, nothing),
    "its folder exchanged and put back": (exchange_folder, put_folder_back),
}
CASES = [
    *(("compile", "block.data", name) for name in CHANGES),
    *(("export", "block.onnx", name) for name in ("changed", "changed and restored", "truncated")),
    *(("engine", "block.data", name) for name in ("changed and restored", "replaced")),
]


def build_while(arguments: list[str], stage: str, path: Path, name: str) -> None:
    """`wanc ARGUMENTS` in this process; around the process of one stage, a source is another one."""
    before, after = CHANGES[name]
    run = runner.run_in_worker

    def changing(running, inputs, out, *, progress):  # type: ignore[no-untyped-def]
        if running.name != stage:
            return run(running, inputs, out, progress=progress)
        before(path)
        try:
            return run(running, inputs, out, progress=progress)
        finally:
            after(path)

    runner.run_in_worker = changing
    sys.argv = ["wanc", *arguments]
    cli.main()


def write_model(root: Path) -> Project:
    """A MatMul, whose weight lies in a file beside it."""
    (root / "model").mkdir(parents=True)
    weight = np.random.default_rng(5).random((8, 8), dtype=np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "block",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", 8])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path = root / "model/block.onnx"
    onnx.save(model, path, save_as_external_data=True, location="block.data", size_threshold=0)
    (root / "recipe.yaml").write_text("wanc: 1\nname: block\nmodel: {onnx: model/block.onnx, example: {rows: 2}}\n")
    return Project(root / "recipe.yaml", "")


@pytest.fixture(scope="module")
def undisturbed(prober: ProcessPoolExecutor, quick: Path) -> str:
    """The id of the bundle where nothing changes."""
    project = write_model(quick / "undisturbed")
    finished = prober.submit(run_in_fork, project.command(quick / "undisturbed/output")).result()
    return json.loads(finished.stdout)["id"]


@pytest.fixture
def model(quick: Path, undisturbed: str) -> Iterator[Project]:
    folder = quick / "changing"
    yield replace(write_model(folder), id=undisturbed)
    shutil.rmtree(folder)


def changed_while(
    prober: ProcessPoolExecutor, project: Project, output: Path, stage: str, path: Path, name: str
) -> None:
    """A build that fails, and says why, when `path` changes while a stage runs; then the source is put back."""
    kept = shutil.copytree(path.parent, output.with_name("kept"))
    before = {record.key for record in records_of(output)} if output.exists() else set[str]()
    finished = prober.submit(call_in_fork, partial(build_while, project.command(output), stage, path, name)).result()
    assert (finished.returncode, finished.stdout) == (75, ""), finished.stderr
    assert finished.stderr.splitlines()[0] in {
        f"error: {place}: changed while it was being built" for place in (path, path.parent)
    }
    assert finished.stderr.endswith("hint: build again: what was made of it is not kept\n")
    assert stage not in {record.stage for record in records_of(output) if record.key not in before}
    shutil.rmtree(path.parent.with_name("elsewhere"), ignore_errors=True)
    shutil.rmtree(path.parent)
    shutil.copytree(kept, path.parent)


@pytest.mark.parametrize(("stage", "file", "name"), CASES)
def test_an_onnx_file_with_weights_beside_it(
    prober: ProcessPoolExecutor, model: Project, tmp_path: Path, stage: str, file: str, name: str
) -> None:
    output = tmp_path / "output"
    changed_while(prober, model, output, stage, model.recipe.parent / "model" / file, name)
    checked = prober.submit(call_in_fork, partial(assert_goes_on, model, output)).result()
    assert checked.returncode == 0, checked.stderr


def assert_goes_on(project: Project, output: Path) -> None:
    """Once the sources are what they were, a build goes on to what it would have come to."""
    assert_sound(project, output)
    assert_resumes(project, output, {record.stage for record in records_of(output)})


@pytest.mark.parametrize("name", ["changed", "changed and restored"])
def test_a_checkpoint(prober: ProcessPoolExecutor, project: Checkpoint, tmp_path: Path, name: str) -> None:
    """What compiles the decoder is run anew, and its weights are others meanwhile."""
    copy = project.copy(tmp_path)
    for record in records_of(copy.output):
        segment = record.document.get("parameters", {}).get("segment")  # type: ignore[union-attr]
        if record.stage == "compile" and segment["component"] == "vae_decoder":  # type: ignore[index, call-overload]
            (copy.output / f"store/actions/{record.key}.json").unlink()
    built = Project(copy.recipe, copy.result.id)
    weights = copy.root / "model/vae/diffusion_pytorch_model.safetensors"
    changed_while(prober, built, copy.output, "compile", weights, name)
    again = prober.submit(run_in_fork, built.command(copy.output)).result()
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["id"] == copy.result.id
    assert [stage["name"] for stage in document["stages"] if not stage["cached"]] == ["resolve", "compile"]


MODULE = """
import pathlib
import torch
from package.scale import SCALE

class Scaled(torch.nn.Module):
    def forward(self, x):
        return x * SCALE

def make():
    folder = pathlib.Path(__file__).parents[1]
    with (folder / "started").open("w") as started:
        started.write("started")
    (folder / "proceed").read_text()
    return Scaled()
"""
TORCH = """\
wanc: 1
name: scaled
model:
  torch: package.build:make
  inputs: [{name: x, dtype: float32, shape: [rows, 4]}]
  outputs: [y]
  example: {rows: 2}
"""


@pytest.mark.parametrize("change", ["a module", pytest.param("a new file", marks=pytest.mark.slow)])
def test_a_torch_module(tmp_path: Path, change: str) -> None:
    """`wanc build` as a user runs it; the module's own function tells that it is running, and waits."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "build.py").write_text(MODULE)
    (package / "scale.py").write_text("SCALE = 2.0\n")
    (tmp_path / "recipe.yaml").write_text(TORCH)
    for name in ("started", "proceed"):
        os.mkfifo(tmp_path / name)
    project = Project(tmp_path / "recipe.yaml", "")
    with project.start(tmp_path / "output") as process:
        assert (tmp_path / "started").read_text() == "started"
        path = package / ("scale.py" if change == "a module" else "added.py")
        path.write_text("SCALE = 3.0\n")
        (tmp_path / "proceed").write_text("go on")
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (75, "")
    assert err.startswith(f"error: {path}: changed while it was being built\n")
    assert records_of(tmp_path / "output") == []
