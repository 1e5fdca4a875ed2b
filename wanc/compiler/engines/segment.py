"""Compiling one segment of a component: its graphs are cut, lowered, and made into engine files.

This is the only place where a graph is cut for its target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wanc.compiler.engines.compiled import Compiled
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.lowered_graph import InputShapes, lowered_graph
from wanc.compiler.engines.split import split
from wanc.compiler.graphs.by_blocks import shared_weights
from wanc.compiler.graphs.by_exchanges import ExchangedPiece, cut_by_exchanges
from wanc.compiler.graphs.lowerable import lowerable, piece_of
from wanc.compiler.graphs.pieces import Piece
from wanc.compiler.passes.apply import OUR_BUG, PassError, apply_passes, count_nodes, lingering, passes_report
from wanc.compiler.passes.rewrite import Pass
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import Segment
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import WeightFile
from wanc.runtime.denoise import GRAPH
from wanc.runtime.engine_file import EngineFile

FOLDER = "engines"
"""Where engine files lie in a bundle, each component's in a folder of its name."""
CPU = "cpu"
NO_WAY_AROUND = "tell us, and build with another engine.kind until then"


def whole(files: ComponentFiles) -> Segment:
    """A component in one piece, on this machine's processor."""
    return Segment(files.name, 0, 0, len(files.component.blocks), CPU)


def compile_segment(
    compiler: Compiler,
    files: ComponentFiles,
    segment: Segment,
    target: str,
    out: Path,
    finite: FiniteCheck,
    requests: Sequence[InputShapes] = (),
) -> Compiled:
    """Compile what a segment executes of every graph into `out/engines/<component>/`, for some kinds of `requests`.

    All files have the segment's number, those that a graph is cut into for its ranks as well, which are in the order of
    their execution: what they are in the bundle is known where all segments are (see `numbered`).

    Raises RecipeError where its ranks cannot split it, and CheckpointError where `finite` refuses the values of a
    weight, or the engine does not take a graph.
    """
    graphs, blocks = lowerable(files), files.component.blocks
    if segment.ranks:
        graphs = split(graphs, len(segment.ranks), requests, is_exchanged_for=not compiler.has_collectives)
    pieces = {name: piece_of(entry.model, blocks, segment) for name, entry in graphs.items()}
    present = {name: piece for name, piece in pieces.items() if piece is not None}
    is_whole = segment.first == 0 and segment.stop == len(blocks)
    shared = shared_weights([] if is_whole else [entry.model for entry in graphs.values()], blocks)
    ends, folder = f"s{segment.index}.{target}", out / FOLDER / files.name
    folder.mkdir(parents=True)
    lowered: dict[str, dict[str, Any]] = {}
    parts: dict[str, tuple[str, ExchangedPiece]] = {}
    written: dict[str, Path] = {}
    path, turns = folder / f"weights.{ends}.bin", compiler.turns_weights
    with WeightFile(path, files.weights, finite, shared, turns) as stored:
        for name, piece in present.items():
            lowered[name] = _lower(compiler.lowering(files.name, name), f"{files.name}/{name}", piece, stored)
            whole = [ExchangedPiece(piece)]
            for index, part in enumerate(whole if compiler.has_collectives else cut_by_exchanges(piece.model)):
                stem = f"{name}-{index}" if index else name
                parts[stem], written[stem] = (name, part), folder / f"{stem}.{ends}.onnx"
                save(part.piece.model, written[stem])
    if stored.path not in stored.files:
        stored.path.unlink()
    lowered_graphs = {stem: lowered_graph(path, graphs[parts[stem][0]], requests) for stem, path in written.items()}
    made = compiler.compile(files.name, lowered_graphs, stored.files)
    return Compiled(
        tuple(_engine_file(compiler, *parts[stem], segment, target, made[stem], out) for stem in written),
        {name: entry.graph for name, entry in graphs.items()},
        lowered,
        {
            key: replace(weight, file=f"{FOLDER}/{files.name}/{weight.file}")
            for key, weight in stored.entries.items()
            if (folder / weight.file).exists()
        },
        tuple(sorted(finite.found)),
    )


def _engine_file(
    compiler: Compiler, graph: str, part: ExchangedPiece, segment: Segment, target: str, path: Path, out: Path
) -> EngineFile:
    return EngineFile(
        component=segment.component,
        graph=graph,
        segment=segment.index,
        engine=compiler.engine,
        target=target,
        profile=None,
        device=segment.device,
        # Of what they do not split, all ranks would compute the same, and where the runtime exchanges it hands it on.
        ranks=segment.ranks if compiler.has_collectives or graph == GRAPH else (),
        file=path.relative_to(out).as_posix(),
        inputs=tuple(part.piece.inputs),
        outputs=tuple(part.piece.outputs),
        built=compiler.built,
        memory=compiler.memory(path),
        exchanges=part.exchanges,
    )


def _lower(passes: tuple[Pass, ...], where: str, piece: Piece, stored: WeightFile) -> dict[str, Any]:
    before = count_nodes(piece.model)
    # The names that a segment is known by: a pass may call a value otherwise.
    names = (piece.inputs, piece.outputs)
    applied = apply_passes(piece.model, passes, where=where, hint=NO_WAY_AROUND)
    assert names == (piece.inputs, piece.outputs), f"a pass has renamed what {where} takes or gives"
    report = passes_report(before, count_nodes(piece.model), applied)
    stored.absorb(piece.model)
    if fault := lingering(piece.model):
        raise PassError(f"in {where} {fault}. {OUR_BUG}")
    return report
