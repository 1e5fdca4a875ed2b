"""From a placed program to engine files: one compile action for each segment, one that assembles, and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.tables import Tables
from wanc.compiler.engines.compiled import FILE as COMPILED
from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.stage import Compile
from wanc.compiler.program.component_files import component_inputs
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.stages.stage import Stage, Tree

Run = Callable[[Stage, Mapping[str, Tree]], Tree]


@dataclass(frozen=True)
class EngineStages:
    """The stages of one engine; `targets` are what everything is compiled for."""

    targets: tuple[str, ...]
    assemble: Assemble
    tables: Tables | None

    @property
    def engine(self) -> Engine:
        return self.assemble.engine

    @property
    def tools(self) -> tuple[str, ...]:
        return (*Compile.tools, *self.assemble.tools, *self.engine.tools)

    def run(self, run: Run, program: Tree, exported: Tree, source: Tree) -> Tree:
        """What the bundle ships of the model, laid out as in the bundle; `run` yields the result of one stage."""
        placement = Program.read(program.locate()[FILE]).placement
        assert placement is not None
        inputs = {"program": program, "exported": exported, "source": source}
        compiled: dict[str, Tree] = {}
        for segment in placement.segments:
            own = component_inputs(segment.component, program, exported, source)
            for target in self.targets:
                stage = Compile(self.engine, segment, target, self.assemble.allow_not_finite)
                compiled[f"{segment.component}/{segment.index}/{target}"] = run(stage, own)
        engines = run(self.assemble, {**inputs, **compiled})
        for tree in compiled.values():
            engines = engines.joined(tree.only(lambda name: name != COMPILED))
        return engines.joined(run(self.tables, {**inputs, "engines": engines})) if self.tables else engines
