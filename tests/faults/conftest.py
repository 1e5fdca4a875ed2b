"""What the tests of faults share: a place where fsync costs nothing, and small projects."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .project import Project, write_project


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, where there is one: on a disk, hundreds of builds would wait for it most of the time."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("quick")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="wanc-faults-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def block(quick: Path) -> Project:
    """One MatMul of a small weight."""
    return write_project(quick / "block")


@pytest.fixture
def folder(quick: Path) -> Iterator[Path]:
    """A folder of a test's own, where fsync costs nothing."""
    with tempfile.TemporaryDirectory(dir=quick) as path:
        yield Path(path)


@pytest.fixture
def output(block: Project, folder: Path) -> Path:
    """A finished build."""
    return shutil.copytree(block.recipe.parent / "reference", folder / "output")
