"""Small checkpoints in the diffusers layout, and copies of them that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("single"), seed=1)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sharded"), seed=2, dtype=torch.bfloat16, shards=3)


@pytest.fixture
def model(single: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(single, tmp_path / "model")


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sharded, tmp_path / "shards")
