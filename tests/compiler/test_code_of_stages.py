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
from wanc.compiler.bundle import seal as seal_module
from wanc.compiler.fuse import Fuse
from wanc.compiler.stages import code_version as module
from wanc.compiler.stages.code_version import reached
from wanc.compiler.stages.stage import Stage

from .rewriting import commented, documented, reformatted, without_docstrings
from .test_code_version import fresh
from .test_stage import FIELDS, INPUTS, example, sealed

Rewriting = Callable[[str], str]
ROOT = Path(wanc.__file__).parent
SEAL = seal_module.__name__
# What executes models at build time needs these of the room of graph passes; the others only make the canonical graph.
SHARED_PASSES = {"apply", "fold", "rewrite"}
KEYS = """
import json
from tests.compiler.test_code_of_stages import documents

print(json.dumps(documents()))
"""


def documents() -> dict[str, Any]:
    """What the key of every stage is made of, and that of the seal."""
    stages = {f"{kind.__module__}.{kind.__name__}": example(kind).key_document(INPUTS) for kind in FIELDS}
    return {**stages, SEAL: sealed(Path("/bundle"), {"tools": {}}).key_document(INPUTS["program"])}


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


@pytest.mark.parametrize("rewritings", [(documented, commented), (reformatted, documented)], ids=["more", "other"])
def test_no_key_changes_with_how_code_is_written(
    copy: Path, rewritings: tuple[Rewriting, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(ROOT, monkeypatch)
    rewrite(copy, *rewritings)
    assert keys(copy, monkeypatch) == before


def test_a_wanc_with_other_comments_and_docstrings_finds_what_was_built(copy: Path) -> None:
    """The real thing, in processes of their own. Only the bundle carries text: the runtime's, with its comments."""
    before = in_a_process(ROOT.parent)
    rewrite(copy, documented, commented)
    after = in_a_process(copy.parent)
    inputs, others = before[SEAL].pop("inputs"), after[SEAL].pop("inputs")
    assert after == before
    assert {name for name in inputs if inputs[name] != others[name]} == {"runtime"}


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
    return {name.removeprefix("wanc.compiler.") for name in before if before[name] != after[name]}


def test_a_constant_of_a_pass_runs_fuse_again_and_nothing_else(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(copy, "compiler/passes/rope.py", "length % 2", "length % 4", monkeypatch) == {"fuse.Fuse"}


def test_a_recipe_s_format_runs_nothing_again_but_the_seal(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(copy, "recipe/checks.py", "1024 * 16", "512 * 16", monkeypatch) == {"bundle.seal"}


@pytest.mark.parametrize("kind", FIELDS)
def test_no_stage_reaches_the_recipe_room_or_the_command_line(kind: type[Stage]) -> None:
    assert not rooms(kind.__module__) & {"recipe", "cli", "inspection", "doctor", "bench", "terminal"}


@pytest.mark.parametrize("kind", [kind for kind in FIELDS if kind is not Fuse])
def test_only_fuse_reaches_the_passes_that_make_the_canonical_graph(kind: type[Stage]) -> None:
    assert modules_of(kind.__module__, "compiler.passes") <= SHARED_PASSES


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
