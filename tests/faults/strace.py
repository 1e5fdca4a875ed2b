"""Striking a build at a chosen system call: strace counts them, kills the process there or makes the call fail."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .prober import run_in_fork
from .project import Project

# What changes names, content or modes. (ftruncate and pwrite64 only write into a lock's file who holds it.)
CHANGES = (
    "openat", "write", "mkdir", "rename", "renameat2", "link", "unlink", "unlinkat", "rmdir", "chmod", "fchmod",
    "utimensat",
)  # fmt: skip
# A kill there leaves what a kill at the next change leaves, but the call may fail.
SYNCS = ("fsync", "fdatasync")


_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)")
_PATHS = re.compile(r'"(/[^"]*)"|<(/[^>]*)>')
# Names that differ from run to run or from file to file. A private directory is swept as a whole, so that all
# that happens inside one is alike; what leaves it has a name of its own.
_ALIKE = (
    (re.compile(r"/tmp/[a-z0-9_]{8}\b"), "/tmp/*"),
    (re.compile(r"\.[a-z0-9_]{8}\.sealing"), ".*.sealing"),
    (re.compile(r"(/tmp/\*|sealing/bundle)/.+"), r"\1/*"),
    (re.compile(r"(/[0-9a-f]{2})?/[0-9a-f]{64}"), "/*"),
    (re.compile(r"/sha256/[0-9a-f]{2}\b"), "/sha256/*"),
    (re.compile(r"/store/(blobs/sha256|blobs|located|actions|refs|locks|quarantine)$"), "/store/+"),
)
# A stage begins when it takes its lock.
_LOCK = re.compile(r"/store/locks/([0-9a-f]{64}|sealing)")


@dataclass(frozen=True)
class Point:
    """The `number`-th call of `syscall` in the main process of a build; `what` says on which files of the output."""

    syscall: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.syscall} {self.number}: {self.what}"


def _lack() -> str:
    """Why processes cannot be traced here; "" where they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "strace is not allowed to trace here" if tried.returncode else ""


needs_strace = pytest.mark.skipif(bool(_lack()), reason=_lack())


def trace(project: Project, output: Path, log: Path) -> list[list[Point]]:
    """Build in a fork of this prober, and return every point that changed something in the output folder, in order.

    The first list is what came before all stages, and then there is one for each stage.
    """
    calls = ("strace", "-qq", "-y", "-e", "signal=none", "-e", f"trace={','.join((*CHANGES, *SYNCS))}", "-o", str(log))
    finished = run_in_fork(project.command(output), *calls)
    replaced = f"{output}/bundles/block: {project.id} in place of {project.before}\n" if project.before else ""
    assert (finished.returncode, finished.stderr) == (0, replaced), finished.stderr
    stages: list[list[Point]] = [[]]
    counts: dict[str, int] = defaultdict(int)
    for line in log.read_text().splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        syscall, arguments, result = call.groups()
        counts[syscall] += 1
        paths = [path for pair in _PATHS.findall(arguments) for path in pair if path.startswith(str(output))]
        if not paths or result.startswith("-") or (syscall == "openat" and "O_CREAT" not in arguments):
            continue
        if syscall == "openat" and any(map(_LOCK.search, paths)):
            stages.append([])
        stages[-1].append(Point(syscall, counts[syscall], " → ".join(_general(path, output) for path in paths)))
    return stages


def distinct(points: list[Point]) -> Iterator[Point]:
    """Of points that differ only in which of many files of one kind they are about, the first and the last."""
    kinds: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        kinds[point.syscall, point.what].append(point)
    for alike in kinds.values():
        yield alike[0]
        if len(alike) > 1:
            yield alike[-1]


def killing(point: Point) -> tuple[str, ...]:
    """The tracer that kills a command when it makes this call, before the call does anything."""
    return _inject(point, "signal=KILL")


def failing(point: Point, error: str) -> tuple[str, ...]:
    """The tracer that makes this call fail with an error such as "ENOSPC"."""
    return _inject(point, f"error={error}")


def _inject(point: Point, fault: str) -> tuple[str, ...]:
    inject = f"inject={point.syscall}:{fault}:when={point.number}"
    return ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={point.syscall}", "-e", inject)


def _general(path: str, output: Path) -> str:
    path = path.removeprefix(str(output))
    for pattern, replacement in _ALIKE:
        path = pattern.sub(replacement, path)
    return path
