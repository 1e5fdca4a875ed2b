"""What the tests of this folder share."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wanc.artifacts.store import Store

from .builder import ROOT, Break, RunPython, write_bundle

MUTATING = ("rename", "replace", "fsync", "fchmod", "chmod", "mkdir", "write", "utime", "unlink", "rmdir", "ftruncate")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: on a disk, thousands of fsyncs take a minute."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wanc-test-") as directory:
        yield Path(directory)


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Runs a script in a fresh interpreter that finds wanc, from another directory."""

    def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def break_at(monkeypatch: pytest.MonkeyPatch) -> Break:
    """`break_at(n, strike)` calls `strike` in place of the n-th system call that changes anything.

    Returns a function that takes the wrappers off again and says whether the n-th call was reached.
    """

    def install(number: int, strike: Callable[[], None]) -> Callable[[], bool]:
        count = 0

        def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    strike()
                return function(*arguments, **named)

            return wrapped

        for name in MUTATING:
            monkeypatch.setattr(os, name, wrap(getattr(os, name)))

        def remove() -> bool:
            monkeypatch.undo()
            return count >= number

        return remove

    return install


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "bundles" / "tiny-0.1.0"
