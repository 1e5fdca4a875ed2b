"""`kill -9` at every system call of a build that changes its output: nothing half-done shows, nothing done is lost."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from .prober import call_in_fork, probers, run_in_fork
from .project import STAGES, Project, assert_resumes, assert_sound, forget, records_of, write_project
from .strace import CHANGES, Point, distinct, killing, needs_strace, trace

pytestmark = needs_strace

WIDTH = 300
ADOPT_BYTES = 4 * WIDTH**2 - 1
"""A weight of this width is moved as one of gigabytes is, and copied and hashed hundreds of times at no cost."""


@dataclass(frozen=True)
class Case:
    """A build to be killed at a point, from a folder in which the earlier stages have been run already."""

    start: Path
    point: Point


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with probers(adopt_bytes=ADOPT_BYTES) as pool:
        yield pool


def kill_and_resume(project: Project, case: Case, folder: Path) -> bool:
    """Whether the kill came. Holds the project to everything that must be true afterwards, and then to resuming."""
    output = folder / "output"
    shutil.copytree(case.start, output)
    struck = run_in_fork(project.command(output), *killing(case.point)).returncode == -signal.SIGKILL
    finished = {record.stage for record in records_of(output)}

    def check() -> None:
        assert_sound(project, output)
        assert_resumes(project, output, finished)

    checked = call_in_fork(check)
    assert checked.returncode == 0, f"after a kill at {case.point}: {checked.stderr}"
    shutil.rmtree(folder)
    return struck


def kill_at_all(pool: ProcessPoolExecutor, project: Project, cases: Sequence[Case], folder: Path) -> None:
    folders = [folder / str(number) for number in range(len(cases))]
    struck = list(pool.map(partial(kill_and_resume, project), cases, folders))
    assert sum(struck) >= 0.95 * len(cases), "too few kills came"


def cases_of(project: Project, folder: Path) -> list[Case]:
    """All that a build does: each stage from a folder in which only that one is to be run, and the making of a store.

    What is done more than once, in the same way, is struck where it is done first; renames are struck everywhere.
    """
    start = folder / "empty"
    start.mkdir(parents=True)
    finished = folder / "finished"
    before, *stages = trace(project, finished, folder / "log")
    assert len(stages) == len(STAGES)
    points = {start: before}
    for stage in STAGES:
        start = shutil.copytree(finished, folder / stage)
        forget(start, stage)
        output = shutil.copytree(start, folder / f"traced-{stage}")
        _, *stages = trace(project, output, folder / "log")
        assert len(stages) == 1, "only this one was to run"
        points[start] = stages[0]
    cases: list[Case] = []
    # Compiling and the engine's last action make the most files.
    for name in ("engine", "compile", "seal", "check", "fuse", "partition", "export", "empty"):
        seen = {(case.point.syscall, case.point.what) for case in cases if case.point.syscall != "rename"}
        for point in distinct(points[folder / name]):
            if point.syscall in CHANGES and (point.syscall, point.what) not in seen:
                cases.append(Case(folder / name, point))
    return cases


def covered(cases: Iterable[Case]) -> set[str]:
    return {f"{case.point.syscall} {case.point.what}" for case in cases}


@pytest.mark.slow
def test_a_kill_at_every_system_call(pool: ProcessPoolExecutor, block: Project, quick: Path) -> None:
    folder = quick / "kills"
    cases = pool.submit(cases_of, block, folder).result()
    assert covered(cases) >= {
        "rename /store/tmp/*/* → /store/VERSION",
        "rename /store/tmp/*/* → /store/blobs/sha256/*",
        "rename /store/tmp/*/* → /store/actions/*.json",
        "rename /bundles/.block.*.sealing/bundle → /bundles/block",
        "rename /store/tmp/*/* → /store/refs/block",
    }
    kill_at_all(pool, block, cases, folder)


@pytest.fixture(scope="module")
def engineered(pool: ProcessPoolExecutor, quick: Path) -> tuple[Project, Path]:
    """A project with a weight that a seal moves, and where it is to be sealed in place of another bundle."""
    other = pool.submit(write_project, quick / "large-other", width=WIDTH, seed=1).result()
    project = pool.submit(write_project, quick / "large", width=WIDTH).result()
    folder = quick / "large-kills"
    folder.mkdir()
    *_, sealing = pool.submit(trace, project, folder / "finished", folder / "log").result()
    pool.submit(run_in_fork, project.command(folder / "start"), *killing(sealing[0])).result()
    finished = {record.stage for record in records_of(folder / "start")}
    assert finished == {"export", "fuse", "partition", "compile", "engine", "check"}
    shutil.copytree(other.recipe.parent / "reference/bundles", folder / "start/bundles")
    return replace(project, before=other.id), folder


def test_a_kill_while_large_weights_are_moved(pool: ProcessPoolExecutor, engineered: tuple[Project, Path]) -> None:
    """Between the journal and the note of the seal, the weights are in the store, on their way, or in the bundle."""
    project, folder = engineered
    output = shutil.copytree(folder / "start", folder / "traced")
    *_, sealing = pool.submit(trace, project, output, folder / "log").result()
    what = [f"{point.syscall} {point.what}" for point in sealing]
    first = what.index("rename /store/tmp/*/* → /store/located/*.json")
    last = what.index("rename /store/tmp/*/* → /store/actions/*.json")
    named = ("write", "rename", "renameat2", "rmdir")  # the others were struck above
    points = [point for point in distinct(sealing[first - 1 : last]) if point.syscall in named]
    cases = [Case(folder / "start", point) for point in points]
    assert covered(cases) >= {
        "rename /store/blobs/sha256/* → /bundles/.block.*.sealing/bundle/*",
        "renameat2 /bundles/.block.*.sealing/bundle → /bundles/block",
    }
    kill_at_all(pool, project, cases, folder)
