"""From a placed program to engine files: one compile action for each segment, one that assembles, and tables."""

from __future__ import annotations

from collections.abc import Iterable
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
from wanc.compiler.stages.running import Action, Run, RunAll
from wanc.compiler.stages.stage import Tree
from wanc.runtime.model import HIGH, LOW


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

    def run(self, run: Run, run_all: RunAll, program: Tree, exported: Tree, source: Tree) -> tuple[Tree, Action | None]:
        """What the bundle ships of the model, laid out as in the bundle, and what makes the tables that belong to it.

        Nobody but the bundle needs those, so that they can be made beside what comes next; None where there are none.
        `run` and `run_all` yield results of stages: segments do not wait for each other.
        """
        placed = Program.read(program.locate()[FILE])
        assert placed.placement is not None
        inputs = {"program": program, "exported": exported, "source": source}
        asked = [(segment, target) for segment in placed.placement.segments for target in self.targets]
        own = {
            name: component_inputs((name,), program, exported, source)
            for name in dict.fromkeys(segment.component for segment, _ in asked)
        }
        trees = run_all([(self._compile(*one), own[one[0].component]) for one in asked])
        compiled = dict(zip(asked, trees, strict=True))
        named = {f"{segment.component}/{segment.index}/{target}": tree for (segment, target), tree in compiled.items()}
        assembled = run(self.assemble, {**inputs, **named})
        engines = _joined(assembled, compiled.values())
        if self.tables is None:
            return engines, None
        # No other component is asked: a changed decoder tabulates nothing again.
        experts = [name for name in placed.components if name in (HIGH, LOW)]
        theirs = [tree for (segment, _), tree in compiled.items() if segment.component in experts]
        only = _joined(assembled.only(lambda name: name == FILE), theirs)
        return engines, (self.tables, {**component_inputs(experts, program, exported, source), "engines": only})

    def _compile(self, segment: Segment, target: str) -> Compile:
        assemble = self.assemble
        return Compile(self.engine, segment, target, assemble.allow_not_finite, assemble.zeros, self.requests)


def _joined(assembled: Tree, compiled: Iterable[Tree]) -> Tree:
    """What was assembled with the engine files that it names."""
    for tree in compiled:
        assembled = assembled.joined(tree.only(lambda name: name != COMPILED and not name.endswith(NOTES)))
    return assembled
