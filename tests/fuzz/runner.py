"""Feeding mutants to a reader, in forks: what is no value and no UserError, takes too long or too much, is a finding.

Input `number` of a target under a seed is always the same bytes, so that these three are enough to have it again.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import re
import resource
import select
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from wanc.errors import UserError
from wanc.linux import private_bytes

from .mutator import mutated
from .target import Target

MOST_SECONDS = 5.0
"""Of the processor, for one input; forks of the reader count as well."""
MOST_BYTES = 500 * 2**20
"""Resident at once, in the reader or a fork of it."""
HANG_SECONDS = 120.0
"""By the clock: a machine that others use as well has been seen to stand still for half a minute."""
SAFE_BYTES = 2 * 2**30
"""What a fork can take at all: what takes more is a finding, not the end of the machine."""
BATCH = 200
"""Inputs that one fork reads."""
_NOW = struct.Struct("<qd")


@dataclass(frozen=True)
class Finding:
    """An input that was not read as it should be, in hexadecimal digits, and what happened."""

    target: str
    seed: int
    number: int
    what: str
    data: str

    def __str__(self) -> str:
        return f"{self.target} {self.seed}/{self.number}: {self.what}\n  bytes.fromhex({self.data!r})"


def fuzz(target: Target, seed: int, numbers: range) -> list[Finding]:
    """What was found among these inputs of a target. To be called in a process of one thread."""
    seeds = target.seeds()
    findings: list[Finding] = []
    position = numbers.start
    while position < numbers.stop:
        batch = [mutant(seeds, target.name, seed, number) for number in numbers[position - numbers.start :][:BATCH]]
        read, faults = read_in_fork(target, batch)
        for index, what in faults:
            findings.append(Finding(target.name, seed, position + index, what, batch[index].hex()))
        position += read
    return findings


def mutant(seeds: Sequence[bytes], name: str, seed: int, number: int) -> bytes:
    """An input of the target of this name."""
    return mutated(seeds, Random(f"{name} {seed} {number}"))


def read_in_fork(
    target: Target, inputs: Sequence[bytes], patience: float = HANG_SECONDS
) -> tuple[int, list[tuple[int, str]]]:
    """How many of the inputs a fork has read, in their order, and what was wrong with which; the last may kill it."""
    with mmap.mmap(-1, _NOW.size) as now, tempfile.TemporaryFile() as report, tempfile.TemporaryDirectory() as folder:
        _NOW.pack_into(now, 0, 0, time.monotonic())
        child = os.fork()
        if not child:
            code = 1
            try:
                _read_all(target, inputs, Path(folder) / "input", now, report.fileno())
                code = 0
            finally:
                os._exit(code)
        death = _ending(child, now, patience)
        index, _ = _NOW.unpack_from(now)
        faults = [_fault(line) for line in (report.seek(0), report.read().decode().splitlines())[1]]
    return (len(inputs), faults) if death is None else (index + 1, [*faults, (index, death)])


def _fault(line: str) -> tuple[int, str]:
    index, _, what = line.partition(" ")
    return int(index), what


def _ending(child: int, now: mmap.mmap, patience: float) -> str | None:
    """Waits for a fork; how it died, if it did."""
    watched = os.pidfd_open(child)
    try:
        while not select.select([watched], [], [], min(patience, 1.0))[0]:
            if time.monotonic() - _NOW.unpack_from(now)[1] > patience:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"not done after {patience:g} s"
    finally:
        os.close(watched)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code <= 0, "what went wrong is no reader's fault"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else None


def _read_all(target: Target, inputs: Iterable[bytes], folder: Path, now: mmap.mmap, report: int) -> None:
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a library that panics prints
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = (private_bytes() or 0) + SAFE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    for index, data in enumerate(inputs):
        _NOW.pack_into(now, 0, index, time.monotonic())
        folder.mkdir()
        if what := _wrong(target, data, folder):
            os.write(report, f"{index} {what}\n".encode(errors="replace"))
        shutil.rmtree(folder)


def _wrong(target: Target, data: bytes, folder: Path) -> str | None:
    """What is wrong with how an input is read."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    seconds, forks = sum(os.times()[:4]), _peak_of_forks()
    try:
        target.read(data, folder)
    except UserError:
        pass
    except BaseException as error:  # a panic of a library in Rust is no Exception
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if (taken := sum(os.times()[:4]) - seconds) > MOST_SECONDS:
        return f"takes {taken:.1f} s of the processor"
    if (most := max(_peak(), _peak_of_forks() if _peak_of_forks() > forks else 0)) > MOST_BYTES:
        return f"takes {most // 2**20} MiB"
    return None


def _peak() -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii"), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _peak_of_forks() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
