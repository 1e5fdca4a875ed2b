"""The stage that surveys a model which no survey ships for: some of its blocks are traced and fused as for a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.fuse import Fuse
from wanc.compiler.planner.survey import (
    FILE,
    LAYERS,
    Survey,
    SurveyedGraph,
    SurveyedPart,
    surveyed_blocks,
)
from wanc.compiler.stages.stage import Files, Stage
from wanc.models.wan.checkpoint import Checkpoint, open_located
from wanc.runtime.progress import ProgressBar
from wanc.words import CacheFormat, CachePositions

if TYPE_CHECKING:
    from wanc.compiler.graphs.hoist import HoistedPiece

REQUEST = "request"
"""The part of a denoiser that is executed once for each branch of a request."""
MAIN = {"vae_decoder": "steady", "text_encoder": "encode"}
"""The graph that counts, of components that are no denoisers: all latent frames but the first go through `steady`."""


@dataclass(frozen=True)
class SurveyComponent(Stage):
    """Input `source`: a checkpoint's files, of which headers and configurations are read. Result: `survey.json`."""

    name: ClassVar[str] = "survey"
    tools: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript")

    component: str
    fuse: Fuse
    cache: CacheFormat | None = None
    positions: CachePositions = "absolute"

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        checkpoint = open_located(inputs["source"])
        with ProgressBar(self.label, 1, enabled=progress) as bar:
            survey(checkpoint, self.component, self.fuse, self.cache, self.positions).write(out / FILE)
            bar.advance()


def survey(
    checkpoint: Checkpoint,
    name: str,
    fuse: Fuse,
    cache: CacheFormat | None = None,
    positions: CachePositions = "absolute",
) -> Survey:
    """Trace and fuse some blocks of a component, and look at what became of each; the last two are a causal model's."""
    from wanc.compiler.export.tracing import bind, trace
    from wanc.compiler.export.wan import definitions
    from wanc.compiler.graphs.hoist import hoist
    from wanc.compiler.passes.apply import apply_passes
    from wanc.compiler.planner.observe import heads_of

    component = checkpoint.components[name]
    count = surveyed_blocks(component.config)
    config = {**component.config, LAYERS: count} if count is not None else component.config
    made = definitions(name, cache, positions)
    (graph,) = [entry for entry in made.graphs(config, checkpoint) if entry.name == MAIN.get(name, entry.name)]
    model = bind(trace(graph), component.weights, where=name)
    apply_passes(model, fuse.chosen(), where=f"{name}/{graph.name}")
    hoisted = hoist(graph.name, model, graph.inputs, graph.outputs, graph.example, fuse.hoist, graph.named)
    blocks = made.blocks(config)
    main = _surveyed(hoisted[-1], blocks, keeps_residual=name != "vae_decoder")
    request = [_surveyed(piece, blocks, keeps_residual=False) for piece in hoisted if piece.name == REQUEST]
    per_request = request[0] if request else [None] * len(blocks)
    parts = [SurveyedPart(*found) for found in zip(blocks, (one for one in main if one), per_request, strict=True)]
    return Survey(tuple(parts), heads_of(model) if name.startswith("denoiser") else None)


def _surveyed(piece: HoistedPiece, blocks: Sequence[str], *, keeps_residual: bool) -> list[SurveyedGraph | None]:
    """What each block has of a piece; None where that is nothing."""
    from wanc.compiler.graphs.by_blocks import cut_by_blocks
    from wanc.compiler.planner.observe import observe

    _spell_out(piece)
    declared = {entry.name: entry for entry in piece.inputs}
    cut = cut_by_blocks(piece.model, blocks, range(1, len(blocks)))
    return [part and observe(part.model, declared, keeps_residual=keeps_residual) for part in cut]


def _spell_out(piece: HoistedPiece) -> None:
    """Sizes that got a name of their own where the graph was cut, in the names that a video's size has."""
    import onnx_ir as ir

    nodes = piece.model.graph
    for value in (*nodes.inputs, *(output for node in nodes for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([piece.computed.get(str(size), size) for size in value.shape])
