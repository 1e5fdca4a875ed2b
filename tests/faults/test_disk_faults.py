"""A failing or full disk at a step of a commit: one plain error, nothing changed, and it works when the disk does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from .prober import call_in_fork, probers, run_in_fork
from .project import STAGES, Project, assert_resumes, assert_sound, forget, records_of
from .strace import Point, failing, needs_strace, trace

pytestmark = needs_strace

FAULTS = [
    ("export", "EIO", "fsync /store/tmp/*/*"),
    ("export", "ENOSPC", "mkdir /store/tmp/*"),
    ("export", "EIO", "rename /store/tmp/*/* → /store/blobs/sha256/*"),
    ("fuse", "ENOSPC", "write /store/tmp/*/*"),
    ("fuse", "EIO", "rename /store/tmp/*/* → /store/actions/*.json"),
    ("engine", "EIO", "fsync /store/blobs/sha256/*"),
    ("engine", "ENOSPC", "write /store/tmp/*/*"),
    ("engine", "EIO", "rename /store/tmp/*/* → /store/actions/*.json"),
    ("engine", "EIO", "fsync /store/+"),
    ("seal", "ENOSPC", "mkdir /bundles/.block.*.sealing/bundle/*"),
    ("seal", "ENOSPC", "write /bundles/.block.*.sealing/bundle/*"),
    ("seal", "EIO", "fsync /bundles/.block.*.sealing/bundle"),
    ("seal", "EIO", "rename /bundles/.block.*.sealing/bundle → /bundles/block"),
    ("seal", "EIO", "rename /store/tmp/*/* → /store/refs/block"),
]
REASONS = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}


@pytest.fixture(scope="module")
def prober() -> Iterator[ProcessPoolExecutor]:
    with probers(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def stages(prober: ProcessPoolExecutor, block: Project, quick: Path) -> dict[str, tuple[Path, list[Point]]]:
    """For each stage, a folder in which only it is to be run, and the points of doing so."""
    folder = quick / "disk-faults"
    folder.mkdir()
    found: dict[str, tuple[Path, list[Point]]] = {}
    prober.submit(trace, block, folder / "finished", folder / "log").result()
    for stage in STAGES:
        start = shutil.copytree(folder / "finished", folder / stage)
        forget(start, stage)
        output = shutil.copytree(start, folder / f"traced-{stage}")
        *_, points = prober.submit(trace, block, output, folder / "log").result()
        found[stage] = (start, points)
    return found


@pytest.mark.parametrize(("stage", "error", "what"), FAULTS, ids=lambda value: value.replace("/", "-"))
def test_a_fault_of_the_disk(
    prober: ProcessPoolExecutor,
    block: Project,
    quick: Path,
    stages: dict[str, tuple[Path, list[Point]]],
    stage: str,
    error: str,
    what: str,
) -> None:
    start, points = stages[stage]
    point = next(point for point in points if f"{point.syscall} {point.what}" == what)
    output = shutil.copytree(start, quick / "fault")
    try:
        before = {record.stage for record in records_of(output)}
        failed = prober.submit(run_in_fork, block.command(output), *failing(point, error)).result()
        assert (failed.returncode, failed.stdout) == (74, "")
        assert re.fullmatch(message(output, error), failed.stderr), failed.stderr
        # Nothing of its own is left, before anybody has swept.
        assert list((output / "store/tmp").iterdir()) == []
        assert [path for path in output.glob("bundles/*") if path.name != "block"] == []
        finished = {record.stage for record in records_of(output)}
        # A record may be there already when its folder cannot be made durable; then the stage is done.
        assert before <= finished <= before | {stage}
        assert_sound(block, output)
        resumed = prober.submit(call_in_fork, partial(assert_resumes, block, output, finished)).result()
        assert resumed.returncode == 0, resumed.stderr
    finally:
        shutil.rmtree(output)


def message(output: Path, error: str) -> str:
    """Everything on stderr: a path of the output folder, what is wrong with it, and what to do."""
    where = rf"error: {re.escape(str(output))}[\w./-]*: "
    cause = f"caused by: {REASONS[error]}\n"
    if error == "EIO":
        return rf"{where}cannot be written\n{cause}"
    hint = "hint: free some space, or choose a directory on another file system\n"
    return rf"{where}no space left: \d+ bytes needed, \d+ bytes free\n{cause}{hint}"
