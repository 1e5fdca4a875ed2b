"""Mutants of every kind of foreign input: read or refused in words, within limits, and nothing dies of them."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from wanc.errors import UserError

from .runner import Finding, fuzz, mutant, read_in_fork
from .target import Target

# Input → how many of it in every run of the suite, and how many parts of PART there are in the long one.
COUNTS = {
    "onnx": (1200, 20), "inspect": (800, 4), "manifest": (500, 4), "program": (500, 3), "safetensors": (600, 3),
    "recipe": (400, 3), "tokenizer": (400, 2), "golden": (600, 2),
    "card": (200, 1),
}  # fmt: skip
PART = 5000
assert sum(count for count, _ in COUNTS.values()) >= 5000
assert sum(parts for _, parts in COUNTS.values()) * PART >= 200_000
SEED = 1


@functools.cache
def _process() -> ProcessPoolExecutor:
    """A process that has imported what it fuzzes and little else, and has one thread: it forks for every few inputs."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_keep_to_one_thread)


def _keep_to_one_thread() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _fuzzed(name: str, numbers: range) -> list[Finding]:
    from .targets import TARGETS

    return fuzz(TARGETS[name], SEED, numbers)


def assert_nothing_found(name: str, numbers: range) -> None:
    findings = _process().submit(_fuzzed, name, numbers).result()
    assert not findings, "\n".join(map(str, findings))


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_mutants(name: str) -> None:
    assert_nothing_found(name, range(COUNTS[name][0]))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name, (_, parts) in COUNTS.items() for part in range(parts)]
)
def test_many_mutants(name: str, part: int) -> None:
    start = COUNTS[name][0] + part * PART
    assert_nothing_found(name, range(start, start + PART))


# The runner itself: every kind of finding is one that it makes, and what it makes is the same each time.


def read(data: bytes, folder: Path) -> object:
    match data:
        case b"refused":
            raise UserError("no")
        case b"raises":
            raise KeyError("a bug")
        case b"panics":
            raise BaseException("a panic")
        case b"hangs":
            signal.pause()
        case b"crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"takes":
            return len(b"x" * (600 * 2**20))
        case b"forks":
            if not (child := os.fork()):
                os._exit(len(b"x" * (600 * 2**20)) == 0)
            os.waitpid(child, 0)
    return list(folder.iterdir())


def _read(inputs: list[bytes]) -> tuple[int, list[tuple[int, str]]]:
    return read_in_fork(Target("any", list, read), inputs, patience=5 if b"hangs" not in inputs else 0.5)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"refused", None),
        (b"fine", None),
        (b"raises", "KeyError: 'a bug'"),
        (b"panics", "BaseException: a panic"),
        (b"crashes", "killed by SIGSEGV"),
        (b"hangs", "not done after 0.5 s"),
        (b"takes", r"takes \d{3} MiB"),
        (b"forks", r"takes \d{3} MiB"),
    ],
)
def test_what_counts_as_a_finding(data: bytes, what: str | None) -> None:
    read, faults = _process().submit(_read, [b"fine", data, b"fine"]).result()
    assert read == (2 if data in (b"crashes", b"hangs") else 3)
    if what is None:
        assert faults == []
    else:
        ((index, found),) = faults
        assert index == 1 and re.fullmatch(what, found)


def test_the_same_numbers_give_the_same_bytes() -> None:
    seeds = [b"\x08\x0a\x12\x03abc" * 5, b'{"a": [1, 2, {"b": "c"}]}', b"wanc: 1\nname: x\n"]
    first = [mutant(seeds, "any", 1, number) for number in range(300)]
    assert first == [mutant(seeds, "any", 1, number) for number in range(300)]
    assert first != [mutant(seeds, "any", 2, number) for number in range(300)]
    assert len(set(first)) > 250
