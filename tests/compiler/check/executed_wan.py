"""A checkpoint's source, executed as the check stage does, in a module that a worker's process can import by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wanc.compiler.check.asked import Asked
from wanc.compiler.check.trials import Trial
from wanc.compiler.check.wan_source import WanSource
from wanc.models.graph import concrete
from wanc.models.wan import text_encoder, transformer, vae
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.runtime.memory import peak_rss_bytes


def trials_of(folder: Path, component: str) -> list[Trial]:
    """The executions of a component's last graph."""
    checkpoint = open_checkpoint(folder)
    config = checkpoint.components[component].config
    if component == "text_encoder":
        *_, graph = text_encoder.graphs(config)
    elif component == "vae_decoder":
        *_, graph = vae.graphs(config)
    else:
        *_, graph = transformer.graphs(config, checkpoint.text_length)
    golden = {
        f"{component}/part/{value.name}": np.ones(concrete(value.shape, graph.example), value.dtype)
        for value in graph.inputs
    }
    asked = Asked(graph.inputs, graph.outputs, graph.example, graph.values, frozenset(), frozenset())
    return list(WanSource(checkpoint, golden).trials(component, graph.name, asked))


def peak_of(folder: Path, component: str) -> tuple[int, int]:
    """How many executions those are, and the most memory that this process has held."""
    return len(trials_of(folder, component)), peak_rss_bytes()
