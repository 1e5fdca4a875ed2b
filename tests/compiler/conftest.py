"""What is slow is made once: an export takes seconds of a core for each graph."""

from __future__ import annotations

import pytest
import torch

from tests.checkpoints import write_checkpoint
from wanc.compiler.export.wan import Traced
from wanc.compiler.pipeline import build
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.recipe.load import load

from .builder import RECIPE, Project


@pytest.fixture(scope="session")
def traced() -> Traced:
    """Traces of all configurations so far."""
    return Traced()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A checkpoint in float32, with the VAE of Wan 2.1 but for its width."""
    folder = tmp_path_factory.mktemp("model")
    return open_checkpoint(
        write_checkpoint(folder, seed=1, vae_mult=(1, 2, 4, 4), vae_temporal=(False, True, True), text_heads=3)
    )


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished build, for looking at: tests that change something take a copy."""
    folder = tmp_path_factory.mktemp("project")
    write_checkpoint(folder / "root" / "model", seed=4, dtype=torch.bfloat16, shards=2)
    (folder / "root" / "recipe.yaml").write_text(RECIPE)
    (loaded,) = load(folder / "root" / "recipe.yaml")
    return Project(folder / "root", folder / "output", build(loaded, folder / "output", progress=False))
