"""What is slow is made once: an export takes seconds of a core for each graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.checkpoints import write_checkpoint
from wanc.compiler.export.wan import Traced
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from .tiny_encoder import Encoder, Fused, Quantise


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
def fused_encoder(tiny_bundle: Path) -> Fused:
    """tiny-wan's text encoder before it is quantised."""
    from .tiny_encoder import INT8, fused_with

    return fused_with(tiny_bundle, INT8)


@pytest.fixture(scope="session")
def quantise_encoder(fused_encoder: Fused, tmp_path_factory: pytest.TempPathFactory) -> Quantise:
    """The same behind its quantize stage: once for each scheme, unless the stage has other changes."""
    done: dict[str, Encoder] = {}

    def quantise(scheme: str, **changes: Any) -> Encoder:
        if changes or scheme not in done:
            out = tmp_path_factory.mktemp("quantised") / "out"
            made = fused_encoder.quantised(fused_encoder.stage(scheme=scheme, **changes), out)
            if changes:
                return made
            done[scheme] = made
        return done[scheme]

    return quantise
