"""A model of one MatMul, its recipe, and what must hold of its output folder whatever happened to a build."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from wanc.artifacts.fsck import check
from wanc.artifacts.locks import release, try_lock
from wanc.artifacts.records import ActionRecord
from wanc.compiler.pipeline import BuildResult, build
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.verify import verify

NAME = "block"
RECIPE = f"wanc: 1\nname: {NAME}\nmodel: {{onnx: block.onnx, example: {{rows: 2}}}}\n"
STAGES = ("export", "fuse", "partition", "compile", "engine", "check", "seal")


@dataclass(frozen=True)
class Project:
    """A recipe, the id of its bundle, and that of the one that may stand in its place before."""

    recipe: Path
    id: str
    before: str | None = None
    stages: tuple[str, ...] = STAGES

    @property
    def name(self) -> str:
        return self.load().recipe.name

    def load(self) -> LoadedRecipe:
        (loaded,) = load(self.recipe)
        return loaded

    def command(self, output: Path, overrides: Sequence[str] = ()) -> list[str]:
        """The arguments of `wanc` that build it."""
        changes = [word for override in overrides for word in ("--set", override)]
        return ["build", str(self.recipe), "-o", str(output), "--json", *changes]

    def start(self, output: Path, overrides: Sequence[str] = ()) -> subprocess.Popen[str]:
        """`wanc build` as a user runs it, in a process group of its own."""
        command = [sys.executable, "-m", "wanc", *self.command(output, overrides)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def run(self, output: Path, overrides: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """The same, run to its end."""
        with self.start(output, overrides) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def write_project(root: Path, *, width: int = 4, seed: int = 0) -> Project:
    """A project whose weight is width × width float32, in a file of its own where a proto could not hold it."""
    root.mkdir(parents=True)
    weight = np.random.default_rng(seed).random((width, width), dtype=np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "weight"], ["y"])],
        NAME,
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", width])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", width])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, root / "block.onnx", save_as_external_data=width > 1000, location="block.data")
    (root / "recipe.yaml").write_text(RECIPE)
    project = Project(root / "recipe.yaml", "")
    return replace(project, id=build(project.load(), root / "reference", progress=False).id)


def records_of(output: Path) -> list[ActionRecord]:
    """What is committed, read without the store's help."""
    paths = (output / "store/actions").glob("*.json")
    return [ActionRecord.parse(path.read_bytes(), where=str(path)) for path in paths]


def forget(output: Path, stage: str) -> None:
    """Make the folder one in which this stage was never run, and the others were."""
    records = records_of(output)
    kept = {blob.hex for record in records if record.stage != stage for blob in record.files.values()}
    for record in records:
        if record.stage == stage:
            (output / "store/actions" / f"{record.key}.json").unlink()
            (output / "store/locks" / record.key).unlink(missing_ok=True)
    for path in (output / "store/blobs").rglob("*"):
        if path.is_file() and path.name not in kept:
            path.unlink()
    if stage == "seal":
        shutil.rmtree(output / "bundles")
        shutil.rmtree(output / "store/refs")
        (output / "store/locks/sealing").unlink()


def assert_sound(project: Project, output: Path) -> None:
    """Whatever happened: the store is valid at rest, no lock is held, and who looks sees a whole bundle or none."""
    root = output / "store"
    if (root / "VERSION").exists():
        checkup = check(root)
        assert (checkup.findings, checkup.outdated) == ((), 0)
        assert list((root / "tmp").iterdir()) == []
        for path in (root / "locks").iterdir():
            lock = try_lock(path)
            assert lock is not None, f"{path.name} is still held"
            release(lock)
    if (output / "bundles").exists():
        visible = {path.name for path in (output / "bundles").iterdir() if not path.name.startswith(".")}
        assert visible <= {project.name}
    if os.path.lexists(output / "bundles" / project.name):
        report = verify(output / "bundles" / project.name)
        assert report.ok
        assert report.id in {project.id, project.before}


def assert_resumes(project: Project, output: Path, finished: Iterable[str]) -> BuildResult:
    """The same command goes through, to the same bundle, and runs nothing again that was finished."""
    result = build(project.load(), output, progress=False)
    cached = {run.name for run in result.stages if run.cached}
    assert set(finished) <= cached, f"{set(finished) - cached} ran again"
    assert result.id == project.id
    assert verify(result.bundle).id == project.id
    assert [path.name for path in result.bundle.parent.iterdir()] == [project.name]
    checkup = check(output / "store")
    assert checkup.findings == ()
    assert {record.stage for record in records_of(output)} == set(project.stages)
    return result


def stages_run(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that a `wanc build --json` computed itself."""
    document: dict[str, Any] = json.loads(finished.stdout)
    return [stage["name"] for stage in document["stages"] if not stage["cached"] and stage["name"] in STAGES]
