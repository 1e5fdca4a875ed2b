"""From a placed program to engine files: one compile action for each segment, one that assembles, and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.tables import Tables
from wanc.compiler.engines.compiled import FILE as COMPILED
from wanc.compiler.engines.compiled import NOTES
from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.lowered_graph import InputShapes
from wanc.compiler.engines.stage import Compile
from wanc.compiler.program.component_files import component_inputs
from wanc.compiler.program.program import FILE, Program, Segment
from wanc.compiler.stages.stage import Stage, Tree
from wanc.runtime.model import HIGH, LOW

Run = Callable[[Stage, Mapping[str, Tree]], Tree]


@dataclass(frozen=True)
class EngineStages:
    """The stages of one engine; `targets` are what everything is compiled for, and `requests` as in `Compile`."""

    targets: tuple[str, ...]
    assemble: Assemble
    tables: Tables | None
    requests: tuple[InputShapes, ...] = ()

    @property
    def engine(self) -> Engine:
        return self.assemble.engine

    @property
    def tools(self) -> tuple[str, ...]:
        return (*Compile.tools, *self.assemble.tools, *self.engine.tools)

    def run(self, run: Run, program: Tree, exported: Tree, source: Tree) -> Tree:
        """What the bundle ships of the model, laid out as in the bundle; `run` yields the result of one stage."""
        placed = Program.read(program.locate()[FILE])
        assert placed.placement is not None
        inputs = {"program": program, "exported": exported, "source": source}
        compiled: dict[tuple[Segment, str], Tree] = {}
        for segment in placed.placement.segments:
            own = component_inputs((segment.component,), program, exported, source)
            for target in self.targets:
                allowed, zeros = self.assemble.allow_not_finite, self.assemble.zeros
                stage = Compile(self.engine, segment, target, allowed, zeros, self.requests)
                compiled[segment, target] = run(stage, own)
        named = {f"{segment.component}/{segment.index}/{target}": tree for (segment, target), tree in compiled.items()}
        assembled = run(self.assemble, {**inputs, **named})
        engines = _joined(assembled, compiled.values())
        if self.tables is None:
            return engines
        # No other component is asked: a changed decoder tabulates nothing again.
        experts = [name for name in placed.components if name in (HIGH, LOW)]
        own = component_inputs(experts, program, exported, source)
        theirs = [tree for (segment, _), tree in compiled.items() if segment.component in experts]
        only = _joined(assembled.only(lambda name: name == FILE), theirs)
        return engines.joined(run(self.tables, {**own, "engines": only}))


def _joined(assembled: Tree, compiled: Iterable[Tree]) -> Tree:
    """What was assembled with the engine files that it names."""
    for tree in compiled:
        assembled = assembled.joined(tree.only(lambda name: name != COMPILED and not name.endswith(NOTES)))
    return assembled
