"""The steps that a graph goes through from its export to its engine, each of which can be executed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from wanc.compiler.check.bisect import CUT, EXPORT, WEIGHTS, Culprit, Version
from wanc.compiler.check.built import Together
from wanc.compiler.check.plain import PlainGraph, TypedGraph
from wanc.compiler.check.trials import Arrays
from wanc.compiler.engines.onnxruntime.masks import stretch_masks
from wanc.compiler.graphs.lowerable import LowerableGraph, lowerable
from wanc.compiler.graphs.values import Place, place_of
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.passes.rewrite import HALVES, Pass
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import ProgramGraph
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.weight_file import WeightFile, stored_bytes

Array = np.ndarray[Any, Any]
COPIED = "copied.bin"
Lowering = Callable[[str], Collection[Pass]]
"""The passes of an engine that lower a part of a component."""


class Workshop:
    """A folder in which graphs are executed as they are written, with one copy of the weights that they name.

    They are copied, not linked: to link a file of the user's changes when it was changed last. What is lowered for
    `elsewhere`, another machine, may compute in 16 bits, for which onnxruntime has no kernels on this one.
    """

    def __init__(self, folder: Path, sources: Files, *, elsewhere: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._sources, self._elsewhere = folder, sources, elsewhere
        self._offsets: dict[Place, int] = {}

    def session(self, model: ir.Model) -> PlainGraph | TypedGraph:
        """A graph, opened. Raises NoKernel."""
        copy, path = self.copied(model), self.folder / "as-written.onnx"
        if self._elsewhere and _is_in_16_bits(copy):
            return TypedGraph(copy, self.folder)
        stretch_masks(copy)
        save(copy, path)
        return PlainGraph(path)

    def copied(self, model: ir.Model) -> ir.Model:
        """A copy of a graph whose weights lie in the folder."""
        copy = model.clone()
        with (self.folder / COPIED).open("ab") as stream:
            for graph in (copy.graph, *copy.graph.subgraphs()):
                for value in graph.initializers.values():
                    if isinstance(value.const_value, ir.ExternalTensor):
                        value.const_value = self._own(value.const_value, stream)
        return copy

    def _own(self, tensor: ir.ExternalTensor, stream: BinaryIO) -> ir.ExternalTensor:
        if str(tensor.location) not in self._sources:  # it lies here already
            return tensor
        if (place := place_of(tensor)) not in self._offsets:
            self._offsets[place] = stream.tell()
            stored: Any = stored_bytes(tensor, self._sources)
            stream.write(stored)
        return ir.ExternalTensor(
            COPIED, self._offsets[place], tensor.nbytes, tensor.dtype, shape=tensor.shape, name=str(tensor.name)
        )


def _is_in_16_bits(model: ir.Model) -> bool:
    """Whether something but a cast computes in them."""
    computing = (node for node in model.graph if node.op_type not in ("Cast", "Constant"))
    return any(value.dtype in HALVES for node in computing for value in node.outputs)


@dataclass(frozen=True)
class Written:
    """A graph that is executed as it is written."""

    graph: ProgramGraph
    model: ir.Model
    workshop: Workshop

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Raises NoKernel, and SourceRefuses where it does not run on these inputs."""
        taken = [str(value.name) for value in self.model.graph.inputs]
        return self.workshop.session(self.model).run({name: inputs[name] for name in taken})

    def close(self) -> None:
        """Nothing is open behind a run."""


def up_to_fuse(exported: ComponentFiles, graph: str, passes: Iterable[Pass], workshop: Workshop) -> Iterator[Version]:
    """The exported graph, and that behind each pass of `fuse` that fires."""
    entry, model = exported.component.graphs[graph], exported.model(graph)
    yield Culprit(EXPORT), Written(entry, model.clone(), workshop).run
    for name, behind in _behind_passes(model, passes, f"{exported.name}/{graph}"):
        yield Culprit(name, "fuse"), Written(entry, behind, workshop).run


def lowering(
    compiled: ComponentFiles,
    graph: str,
    passes: Lowering,
    engine: str,
    workshop: Workshop,
    allowed: Collection[str],
) -> Iterator[Version]:
    """The graph as it is cut, behind each pass of an engine's lowering that fires, and with its weights written.

    Weights of the names in `allowed` may hold NaNs and infinities.
    """
    parts = lowerable(compiled)

    def together(models: Mapping[str, ir.Model]) -> Together:
        return Together({name: Written(parts[name].graph, model, workshop) for name, model in models.items()})

    models = {name: entry.model for name, entry in parts.items()}
    needed = together(models).needed(graph)
    if len(needed) > 1:
        yield Culprit(CUT), partial(together(dict(models)).run, graph)
    for part in needed:
        for name, behind in _behind_passes(models[part], passes(part), f"{compiled.name}/{part}"):
            models[part] = behind
            yield Culprit(name, engine), partial(together(dict(models)).run, graph)
    with WeightFile(
        workshop.folder / "as-written.bin", compiled.weights, FiniteCheck(compiled.name, allowed)
    ) as stored:
        for part in needed:
            stored.absorb(models[part])
    yield Culprit(WEIGHTS), partial(together(dict(models)).run, graph)


def lowered(
    parts: Mapping[str, LowerableGraph],
    compiled: ComponentFiles,
    passes: Lowering,
    workshop: Workshop,
    allowed: Collection[str],
    file: str = "lowered.bin",
) -> dict[str, Written]:
    """The parts of a component as an engine is given them, executed here: for an engine that cannot be.

    What they were is gone. Their weights lie in the workshop, in a `file` of their own; those of the names in `allowed`
    may hold NaNs and infinities.
    """
    with WeightFile(workshop.folder / file, compiled.weights, FiniteCheck(compiled.name, allowed)) as stored:
        for name, entry in parts.items():
            apply_passes(entry.model, passes(name), where=f"{compiled.name}/{name}")
            stored.absorb(entry.model)
    return {name: Written(entry.graph, entry.model, workshop) for name, entry in parts.items()}


def _behind_passes(model: ir.Model, passes: Iterable[Pass], where: str) -> list[tuple[str, ir.Model]]:
    """The graph behind each pass that fires, in the order in which they do."""
    found: list[tuple[str, ir.Model]] = []
    apply_passes(model, passes, where=where, on_fired=lambda name: found.append((name, model.clone())))
    return found
