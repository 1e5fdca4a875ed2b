"""`kill -9` at random moments of builds of tiny-wan: they resume where they were, to the same bundle."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from wanc.artifacts.refs import read_ref
from wanc.runtime.manifest import Manifest

from .project import Project, assert_resumes, assert_sound, forget, records_of

STARTING_SECONDS = 0.4
VIDEO_STAGES = ("export", "fuse", "partition", "compile", "engine", "tables", "check", "seal")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that a dead process still held would be an error at once."""
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")


@pytest.fixture
def tiny(tiny_recipe: Path, tiny_bundle: Path) -> Project:
    return Project(tiny_recipe, Manifest.read(tiny_bundle).id, stages=VIDEO_STAGES)


def copied(tiny: Project, tiny_bundle: Path, output: Path) -> dict[str, float]:
    """Copy tiny-wan's finished build, without what other tests build beside it just now; seconds by stage."""
    built = tiny_bundle.parents[1]
    shutil.copytree(built / "store", output / "store", ignore=shutil.ignore_patterns("tmp", "scratch"))
    shutil.copytree(built / "bundles" / tiny.name, output / "bundles" / tiny.name)
    keys = set(read_ref(output / "store/refs" / tiny.name))
    for record in records_of(output):
        if record.key not in keys:
            (output / f"store/actions/{record.key}.json").unlink()
    return {record.stage: float(str(record.meta["seconds"])) for record in records_of(output)}


def kill_somewhere(project: Project, output: Path, seconds: float) -> None:
    """Kill a build and all that it started after so many seconds, then hold it to resuming."""
    with project.start(output) as process:
        try:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    finished = {record.stage for record in records_of(output)}
    assert_sound(project, output)
    assert_resumes(project, output, finished)


@pytest.mark.parametrize(
    ("seed", "stage"),
    [(1, "engine"), (2, "seal"), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((3, "seal"), (4, "fuse")))],
)
def test_a_kill_at_a_random_moment_of_a_stage(
    tiny: Project, tiny_bundle: Path, tmp_path: Path, seed: int, stage: str
) -> None:
    output = tmp_path / "output"
    seconds = copied(tiny, tiny_bundle, output)[stage]
    forget(output, stage)
    kill_somewhere(tiny, output, STARTING_SECONDS + random.Random(seed).random() * (seconds + 1))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(24))
def test_a_kill_at_a_random_moment_of_a_build(tiny: Project, tiny_bundle: Path, tmp_path: Path, seed: int) -> None:
    """Every eighth round is a build of everything; the others run one stage."""
    chance = random.Random(seed)
    output = tmp_path / "output"
    seconds = copied(tiny, tiny_bundle, output)
    turn = seed % (len(tiny.stages) + 1)
    stages = tiny.stages if turn == 0 else (tiny.stages[turn - 1],)
    if stages == tiny.stages:
        shutil.rmtree(output)
    else:
        forget(output, *stages)
    length = sum(seconds[stage] for stage in stages)
    kill_somewhere(tiny, output, STARTING_SECONDS + chance.random() * (length + 1))
