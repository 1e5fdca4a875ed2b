"""The keys of the real stages: what of wanc's code they depend on, and that nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wanc
from wanc.artifacts.canonical import key_of
from wanc.compiler.engines.stage import EngineStage
from wanc.compiler.fuse import Fuse
from wanc.compiler.planner.survey_stage import SurveyComponent
from wanc.compiler.stages import code_version as module
from wanc.compiler.stages.code_version import reached

from .rewriting import commented, documented, reformatted, without_docstrings
from .test_code_version import fresh
from .test_stage import ENGINES, FIELDS, INPUTS, example, sealed

Rewriting = Callable[[str], str]
ROOT = Path(wanc.__file__).parent
SEAL = "seal"
STAGES = {kind.__module__ for kind in FIELDS}
MODULES = sorted({*STAGES, *(type(engine).__module__ for engine in ENGINES)})
"""What keys digest, together with all that these reach."""
SHARED_PASSES = {"apply", "draws", "fold", "order", "rewrite"}
"""Of the room of passes, what lowering and executing take; the others only make the canonical graph."""
FUSING = {Fuse, SurveyComponent}
"""The stages that make the canonical graph: a survey looks at what a build would fuse."""
ON_THE_HOST = {"int8", "kernels", "masks", "probe"}
KEYS = """
import json
from tests.compiler.test_code_of_stages import documents

print(json.dumps(documents()))
"""


def documents() -> dict[str, Any]:
    """What the keys of every stage are made of, for every engine where it takes one, and that of the seal."""
    found: dict[str, Any] = {SEAL: sealed(Path("/bundle"), {"tools": {}}).key_document(INPUTS["program"])}
    for kind in FIELDS:
        for engine in ENGINES if issubclass(kind, EngineStage) else [None]:
            stage = example(kind, engine=engine) if engine else example(kind)
            found[" ".join([kind.__name__, *([engine.name] if engine else [])])] = stage.key_document(INPUTS)
    return found


def keys(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The keys of all stages, as they are when the code is that under `root`."""
    with monkeypatch.context() as patch, fresh():
        patch.setattr(module, "ROOT", root)
        return {name: key_of(document) for name, document in documents().items()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of wanc that can be changed."""
    return Path(shutil.copytree(ROOT, tmp_path / "wanc", ignore=shutil.ignore_patterns("__pycache__")))


def rewrite(root: Path, *rewritings: Rewriting) -> None:
    for path in root.rglob("*.py"):
        text = written = path.read_text("utf-8")
        for rewriting in rewritings:
            written = rewriting(written)
        # The check of the check: not one file was left out, and each is the same Python as before.
        assert written != text
        assert without_docstrings(written) == without_docstrings(text)
        path.write_text(written, "utf-8")


@pytest.mark.parametrize(
    "rewritings",
    [(documented, commented), (reformatted, documented)],
    ids=["more", "other"],
)
@pytest.mark.slow
def test_no_key_changes_with_how_code_is_written(
    copy: Path, rewritings: tuple[Rewriting, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(ROOT, monkeypatch)
    rewrite(copy, *rewritings)
    assert keys(copy, monkeypatch) == before


@pytest.mark.slow
def test_a_wanc_with_other_comments_and_docstrings_finds_what_was_built(copy: Path) -> None:
    """The real thing, in processes of their own; the seal's key as well, although the runtime's text is in a bundle."""
    before = in_a_process(ROOT.parent)
    rewrite(copy, documented, commented)
    after = in_a_process(copy.parent)
    assert after == before


def in_a_process(folder: Path) -> dict[str, Any]:
    """The documents of a wanc that lies in `folder`."""
    paths = [str(folder), str(Path(__file__).parents[2])]
    finished = subprocess.run(
        [sys.executable, "-c", KEYS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def changed(root: Path, name: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The stages that run again, by name, when one text in one file becomes another."""
    before, path = keys(root, monkeypatch), root / name
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    after = keys(root, monkeypatch)
    return {name for name in before if before[name] != after[name]}


def test_a_constant_of_a_pass_runs_again_what_fuses_and_nothing_else(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = changed(copy, "compiler/passes/rope.py", "length % 2", "length % 4", monkeypatch)
    assert found == {kind.__name__ for kind in FUSING}


def test_a_recipe_s_format_runs_nothing_again_but_the_seal(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = changed(copy, "recipe/checks.py", "LARGEST_SIZE = 2**31 - 1", "LARGEST_SIZE = 2**30", monkeypatch)
    assert found == {"seal"}


def test_a_constant_of_an_engine_s_pass_compiles_nothing_again_for_the_other(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = changed(copy, "compiler/engines/openvino/slices.py", "WIDEST = 4608", "WIDEST = 2304", monkeypatch)
    assert found == {"Compile openvino", "Assemble openvino", "Tables openvino", "CheckBuild openvino"}


@pytest.mark.parametrize("name", MODULES)
def test_no_key_reaches_the_recipe_room_or_the_command_line(name: str) -> None:
    assert not rooms(name) & {"recipe", "cli", "api", "inspection", "doctor", "bench", "terminal"}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in {kind.__module__ for kind in FUSING}])
def test_only_what_fuses_reaches_the_passes_that_make_the_canonical_graph(name: str) -> None:
    assert modules_of(name, "compiler.passes") <= SHARED_PASSES


@pytest.mark.parametrize("name", MODULES)
def test_no_key_reaches_another_engine(name: str) -> None:
    """The host executes on ONNX Runtime: what asks it needs these modules of that engine, whatever it builds for."""
    own = {engine: modules_of(name, f"compiler.engines.{engine}") for engine in ("onnxruntime", "openvino")}
    for engine, found in own.items():
        if not name.startswith(f"wanc.compiler.engines.{engine}."):
            assert found <= (ON_THE_HOST if engine == "onnxruntime" and name in STAGES else set())


def test_stages_reach_the_modules_that_define_graphs() -> None:
    """Imports inside functions, which `wanc --help` is spared, must not be forgotten."""
    found = set(reached("wanc.compiler.export.wan"))
    assert {"wanc.models.wan.vae", "wanc.models.wan.transformer", "wanc.compiler.export.tracing"} <= found
    assert len(modules_of("wanc.compiler.fuse", "compiler.passes")) > 10


def rooms(name: str) -> set[str]:
    """The rooms below wanc that a module reaches."""
    return {found.split(".")[1] for found in reached(name) if "." in found}


def modules_of(name: str, room: str) -> set[str]:
    """The modules of one room that a module reaches, by what they are called there."""
    return {found.removeprefix(f"wanc.{room}.") for found in reached(name) if found.startswith(f"wanc.{room}.")}
