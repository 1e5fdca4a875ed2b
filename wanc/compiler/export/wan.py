"""The export stage: a checkpoint → the program, its graphs in standard ONNX with weights by reference.

Everything happens on fake tensors: the largest model costs as much memory as its node list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.models.graph import Graph
from wanc.models.wan.checkpoint import Checkpoint, Component, embedding, open_located
from wanc.models.wan.facts import facts_of
from wanc.models.wan.tokenizer import check_tokenizer
from wanc.runtime.progress import ProgressBar
from wanc.words import CacheFormat, CachePositions

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Export(Stage):
    """Input `source`: the checkpoint's files. Result: `program.json` and `<component>/<graph>.onnx`."""

    name: ClassVar[str] = "export"
    tools: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")

    components: tuple[str, ...]
    cache: CacheFormat | None = None
    """In what a causal model keeps keys and values; None of a model that makes a video at once."""
    positions: CachePositions = "absolute"

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        checkpoint = open_located(inputs["source"], self.components)
        check_tokenizer(checkpoint)
        with ProgressBar(self.name, len(checkpoint.components), enabled=progress) as bar:
            components: dict[str, ProgramComponent] = {}
            traced = Traced(self.cache, self.positions)
            for name, component in checkpoint.components.items():
                components[name] = _export_component(checkpoint, name, component, traced, out)
                bar.advance()
        encoder = checkpoint.components["text_encoder"]
        model, table, twin = facts_of(checkpoint).model, embedding(encoder), encoder.embedding_twin
        Program("text-to-video", model, components, table, embedding_twin=twin).write(out)


def _export_component(
    checkpoint: Checkpoint, name: str, component: Component, traced: Traced, out: Path
) -> ProgramComponent:
    from wanc.compiler.export.tracing import bind
    from wanc.compiler.program.graph_file import save

    graphs: dict[str, ProgramGraph] = {}
    used: set[str] = set()
    (out / name).mkdir()
    for graph, model in traced.graphs(name, component, checkpoint):
        bound = bind(model, component.weights, where=str(checkpoint.path(component.folder)))
        file = f"{name}/{graph.name}.onnx"
        save(bound, out / file)
        used |= bound.graph.initializers.keys()
        interface = (graph.inputs, graph.outputs, graph.example, graph.values)
        graphs[graph.name] = ProgramGraph(file, *interface, named=graph.named)
    weights = {key: weight for key, weight in component.weights.items() if key in used}
    return ProgramComponent(graphs, weights, definitions(name).blocks(component.config))


class Traced:
    """Graphs as traced, without weights. Two components of one configuration, as the experts are, share them."""

    def __init__(self, cache: CacheFormat | None = None, positions: CachePositions = "absolute") -> None:
        self._definitions = partial(definitions, cache=cache, positions=positions)
        self._models: dict[str, list[tuple[Graph, ir.Model]]] = {}

    def graphs(self, name: str, component: Component, checkpoint: Checkpoint) -> list[tuple[Graph, ir.Model]]:
        from wanc.compiler.export.tracing import trace

        key = json.dumps(component.config, sort_keys=True)
        if key not in self._models:
            graphs = self._definitions(name).graphs(component.config, checkpoint)
            self._models[key] = [(graph, trace(graph)) for graph in graphs]
        return self._models[key]


class Definitions(NamedTuple):
    """Where a component's graphs and blocks are defined."""

    graphs: Callable[[Mapping[str, Any], Checkpoint], tuple[Graph, ...]]
    blocks: Callable[[Mapping[str, Any]], tuple[str, ...]]


def definitions(
    component: str, cache: CacheFormat | None = None, positions: CachePositions = "absolute"
) -> Definitions:
    """Those of a component, the others as in `Export`; imported here, because these modules import torch."""
    if component == "text_encoder":
        from wanc.models.wan import text_encoder

        return Definitions(lambda config, _: text_encoder.graphs(config), text_encoder.blocks)
    if component == "vae_decoder":
        from wanc.models.wan import vae

        return Definitions(lambda config, _: vae.graphs(config), vae.blocks)
    if cache is not None:
        from wanc.models.wan import causal

        return Definitions(
            lambda config, checkpoint: causal.graphs(config, checkpoint.text_length, cache, positions), causal.blocks
        )
    from wanc.models.wan import transformer

    return Definitions(
        lambda config, checkpoint: transformer.graphs(config, checkpoint.text_length), transformer.blocks
    )
