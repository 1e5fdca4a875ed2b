"""What is slow is made once: an export takes seconds of a core for each graph."""

from __future__ import annotations

import pytest

from tests.checkpoints import write_checkpoint
from wanc.compiler.export.wan import Traced
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint


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
