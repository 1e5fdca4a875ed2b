"""A checkpoint's source, executed as the check stage does, in a module that a worker's process can import by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wanc.compiler.check.asked import Asked
from wanc.compiler.check.wan_source import WanSource
from wanc.models.graph import concrete
from wanc.models.wan import text_encoder, transformer, vae
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.runtime.memory import peak_rss_bytes


def peak_of(folder: Path, component: str) -> tuple[int, int]:
    """How many trials there are of a component's first graph, and the most memory that this process has held."""
    checkpoint = open_checkpoint(folder)
    config = checkpoint.components[component].config
    if component == "text_encoder":
        graph, *_ = text_encoder.graphs(config)
    elif component == "vae_decoder":
        graph, *_ = vae.graphs(config)
    else:
        graph, *_ = transformer.graphs(config, checkpoint.text_length)
    golden = {
        f"{component}/part/{value.name}": np.ones(concrete(value.shape, graph.example), value.dtype)
        for value in graph.inputs
    }
    asked = Asked(graph.inputs, graph.outputs, graph.example, graph.values, frozenset(), frozenset())
    trials = list(WanSource(checkpoint, golden).trials(component, graph.name, asked))
    return len(trials), peak_rss_bytes()
