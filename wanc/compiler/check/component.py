"""One component, compared graph by graph with its source; and where it first differs, if it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wanc.compiler.bundle.built_graph import BuiltGraph
from wanc.compiler.check.asked import Asked
from wanc.compiler.check.bisect import SPLIT, Culprit, Version, first_wrong
from wanc.compiler.check.built import Part, Recorded, Together
from wanc.compiler.check.compare import Coarseness, Compared, Difference, compare
from wanc.compiler.check.fault import check_declared, differs
from wanc.compiler.check.origin import MOST_EXECUTED_BYTES
from wanc.compiler.check.pieces import by_pieces
from wanc.compiler.check.randomness import random_outputs
from wanc.compiler.check.ranked import Ranked
from wanc.compiler.check.steps import Lowering, Workshop, Written, lowered, lowering, up_to_fuse
from wanc.compiler.check.trials import Arrays, NoKernel, Refused, Source, SourceRefuses, Trial
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.kernels import Precision
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.graphs.quantized_linears import has_quantized_convolutions
from wanc.compiler.host.reference import Reference
from wanc.compiler.passes.rewrite import Pass
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program
from wanc.compiler.stages.stage import Files
from wanc.errors import RecipeError
from wanc.runtime.denoise import GRAPH
from wanc.runtime.golden import EXPECTED, INPUTS, named
from wanc.runtime.golden import FOLDER as GOLDEN
from wanc.runtime.interface import InputError
from wanc.runtime.safetensors import SafetensorsFile

if TYPE_CHECKING:
    from wanc.compiler.check.stage import CheckBuild

COARSE: tuple[Precision, ...] = ("half", "integer convolutions", "integer", "float32")


@dataclass(frozen=True)
class Measured:
    """What is compared with a source, how it is executed, and in which precision it multiplies."""

    name: str
    run: Callable[[Arrays], Arrays]
    precision: Coarseness


@dataclass(frozen=True)
class Side:
    """Two that have to be equal: what is measured, and what is expected of it. `steps` lead to what is measured.

    `unrounded` is what the expected would be but for its own rounding, where a build may be off by some of that.
    """

    measured: Measured
    expected: Trial
    steps: Callable[[], Iterable[Version]]
    unrounded: Arrays | None = None


@dataclass(frozen=True)
class CheckedComponent:
    """A component as the export left it, as it was compiled, and as it was built; `folder` has its engine files.

    `precisions` are those in which each built graph multiplies, read back from it, and `here` is whether this machine
    executes all of them. `fused` is what was quantised, None where nothing was; `ranks` are the devices that split the
    step, 0 where one executes it.
    """

    stage: CheckBuild
    compiler: Compiler
    exported: ComponentFiles
    compiled: ComponentFiles
    fused: ComponentFiles | None
    built: Mapping[str, Part]
    precisions: Mapping[str, Precision]
    here: bool
    ranks: int
    folder: Path

    @classmethod
    def of(cls, stage: CheckBuild, name: str, inputs: Mapping[str, Files], folder: Path) -> CheckedComponent:
        """The component of that name among a stage's inputs."""
        engines = Program.read(inputs["engines"][FILE])
        compiler = stage.engine.compiler(engines.targets[0])
        report = json.loads(inputs["engines"][ENGINE_REPORT].read_bytes())["components"][name]
        given, gave = (SafetensorsFile(inputs["engines"][f"{GOLDEN}/{file}"]) for file in (INPUTS, EXPECTED))
        built = {
            graph: Recorded(
                BuiltGraph(compiler, entry, engines.files_of(name, graph), folder, _no_host),
                named(given, name, graph),
                named(gave, name, graph),
            )
            for graph, entry in engines.components[name].graphs.items()
        }
        exported, compiled, fused = (
            ComponentFiles.read(name, {**inputs, "program": inputs[which]}) if which in inputs else None
            for which in ("exported", "program", "fused")
        )
        assert exported is not None and compiled is not None
        precisions: dict[str, Precision] = {graph: entry["precision"] for graph, entry in report.items()}
        here = all(entry["executed"] for entry in report.values())
        quantised = fused if name in stage.quantized else None
        ranks = max(len(file.ranks) for file in engines.engines if file.component == name)
        return cls(stage, compiler, exported, compiled, quantised, built, precisions, here, ranks, folder)

    def check(self, source: Source, graph: str) -> dict[str, Any]:
        """Compare a graph in all of a source's trials; what the manifest says of it.

        Raises UserError where something differs, with the first step behind which it does, and CheckpointError where
        the source does not compute what it declares.
        """
        model = self.exported.model(graph)
        asked, random = Asked.of(self.exported.component.graphs[graph], model), random_outputs(model)
        measured, told, compared = self._measured(graph), list[dict[str, Any]](), dict[str, str]()
        ranked = self._ranked(graph, measured)
        for trial in source.trials(self.exported.name, graph, asked):
            entry: dict[str, Any] = {"inputs": trial.kind, "sizes": dict(trial.sizes)}
            told.append(entry)
            if isinstance(trial, Refused):
                entry["refused_by"] = "source"
                continue
            check_declared(asked, trial, f"{self.exported.name}/{graph}")
            at_others, errors = entry["sizes"] != told[0]["sizes"], entry.setdefault("errors", dict[str, float]())
            for side in (*self._sides(graph, trial, measured), *self._over_ranks(graph, trial, measured, ranked)):
                try:
                    found = self._error(graph, side, asked, random, at_others=at_others)
                except (_EngineRefuses, NoKernel) as refusal:
                    refuses = isinstance(refusal, _EngineRefuses)
                    entry["refused_by"] = self.compiler.engine if refuses else "the machine that builds"
                    continue
                errors[side.measured.name] = float(f"{found:.1e}")
                compared[side.measured.name] = side.measured.precision
        for part in self.built.values():
            part.close()
        return {"compared": compared, "random": sorted(random), "trials": told}

    def _sides(self, graph: str, trial: Trial, measured: Measured | None) -> Iterator[Side]:
        """What is compared with what: the build with its source, in two halves where numbers are coarse between them.

        An engine that computes in fewer bits tells little of a small fault: the graph that it is made of does. Nothing
        is `measured` where neither the engine nor the lowered graph can be executed here.
        """
        before, behind = partial(self._up_to_fuse, graph), partial(self._lowering, graph)
        whole = partial(self._steps, graph)
        if self.fused is not None:
            yield Side(Measured("graph", self._by_host(self.fused, graph), "float32"), trial, before)
            trial = self._with_states(self.fused, graph, trial)
            given = self._by_host(self.compiled, graph)(trial.inputs)
            measured = measured or Measured("program", lambda _: given, "quantised")
            rounded = replace(trial, outputs=given, moved=lambda: given)
            unrounded = trial.outputs if has_quantized_convolutions(self.compiled.model(graph)) else None
            yield Side(replace(measured, name="program"), rounded, behind, unrounded)
            if trial.kind != "edges":  # which are far from all that it was calibrated on
                yield Side(replace(measured, precision="quantised"), trial, whole)
            return
        if measured is None or measured.precision == "half":
            yield Side(Measured("graph", self._by_host(self.compiled, graph), "float32"), trial, before)
        if measured is not None:
            yield Side(measured, trial, whole)

    def _with_states(self, fused: ComponentFiles, graph: str, trial: Trial) -> Trial:
        """A trial whose states are those that another graph leaves, where one does: codes are made for no others."""
        graphs = fused.component.graphs
        taken = {entry.name for entry in graphs[graph].inputs}
        for name, other in graphs.items():
            own = {entry.name for entry in other.inputs}
            left = {output.state: output.name for output in other.outputs if output.state in taken - own}
            if not left:
                continue
            outputs = self._by_host(fused, name)({entry: trial.inputs[entry] for entry in own})
            inputs = {**trial.inputs, **{state: outputs[output] for state, output in left.items() if state}}
            expected = self._by_host(fused, graph)(inputs)
            return replace(trial, inputs=inputs, outputs=expected, moved=lambda expected=expected: expected)
        return trial

    def _over_ranks(self, graph: str, trial: Trial, measured: Measured | None, ranked: Ranked | None) -> Iterator[Side]:
        """What devices give that split the tokens of a trial, if they can."""
        if ranked is None or measured is None or not ranked.takes(trial.sizes):
            return
        precision: Coarseness = "quantised" if self.fused is not None else measured.precision

        def steps() -> Iterator[Version]:
            yield from self._steps(graph)
            yield Culprit(SPLIT), ranked.run

        if self.fused is None or trial.kind != "edges":
            yield Side(Measured("ranks", ranked.run, precision), trial, steps)

    def _error(self, graph: str, side: Side, asked: Asked, random: Collection[str], *, at_others: bool) -> float:
        """How far one side is from the other. Raises as `check`, and where nothing here executes what is measured."""
        trial, measured = side.expected, side.measured
        comparison = partial(
            compare, asked.outputs, trial, precision=measured.precision, random=random, unrounded=side.unrounded
        )
        try:
            found = comparison(measured.run(trial.inputs))
        except NoKernel:
            raise
        except (_DoesNotRunError, SourceRefuses) as error:
            found = Compared(0.0, [Difference(graph, f"does not run: {error}")])
        if not found.differences:
            return found.error

        def is_wrong(outputs: Arrays | None) -> bool:
            return outputs is None or bool(comparison(outputs).differences)

        culprit = first_wrong(side.steps(), trial.inputs, is_wrong)
        at_others = at_others and self.stage.origin.has_sizes
        raise differs(f"{self.exported.name}/{graph}", trial, found.differences, culprit, at_others=at_others)

    def _measured(self, graph: str) -> Measured | None:
        built = Together(self.built)
        precisions = [self.precisions[part] for part in built.needed(graph)]
        precision: Precision = next(entry for entry in COARSE if entry in precisions)
        if self.here:
            return Measured("engine", partial(_engine, built, graph), precision)
        if not self._is_small:
            return None
        parts = lowered(lowerable(self.compiled), *self._as_lowered())
        return Measured("lowered graph", partial(Together(parts).run, graph), precision)

    def _ranked(self, graph: str, measured: Measured | None) -> Ranked | None:
        """The step as several devices split it, where it can be executed here as they would, and the engine was not."""
        if not self.ranks or graph != GRAPH or measured is None or self.here:
            return None
        return Ranked.of(self.ranks, *self._as_lowered())

    def _as_lowered(self) -> tuple[ComponentFiles, Lowering, Workshop, tuple[str, ...]]:
        return self.compiled, self._passes, self._workshop(), self.stage.allow_not_finite

    @property
    def _is_small(self) -> bool:
        """Whether a graph may be executed whole."""
        return sum(4 * prod(weight.shape) for weight in self.compiled.component.weights.values()) <= MOST_EXECUTED_BYTES

    def _by_host(self, files: ComponentFiles, graph: str) -> Callable[[Arrays], Arrays]:
        """What executes a graph in float32: as it is written, or piece by piece where there is more to it."""
        entry = files.component.graphs[graph]
        if self._is_small and self.fused is None:
            return Written(entry, files.model(graph), self._workshop()).run
        return partial(by_pieces, files, graph, self.folder / "pieces", self.stage.allow_not_finite)

    def _steps(self, graph: str) -> Iterator[Version]:
        yield from self._up_to_fuse(graph)
        yield from self._lowering(graph)

    def _up_to_fuse(self, graph: str) -> Iterator[Version]:
        return up_to_fuse(self.exported, graph, self.stage.fuse.chosen(), self._workshop())

    def _lowering(self, graph: str) -> Iterator[Version]:
        allowed = self.stage.allow_not_finite
        return lowering(self.compiled, graph, self._passes, self.compiler.engine, self._workshop(), allowed)

    def _passes(self, part: str) -> tuple[Pass, ...]:
        return self.compiler.lowering(self.exported.name, part)

    def _workshop(self) -> Workshop:
        folder = self.folder / "as-written" / self.exported.name
        return Workshop(folder, self.compiled.weights, elsewhere=not self.here)


class _EngineRefuses(Exception):
    """An engine that says of these numbers that it would take them for others."""


class _DoesNotRunError(Exception):
    """An engine that does not run where the source does."""


def _engine(built: Together, graph: str, inputs: Arrays) -> Arrays:
    try:
        return built.run(graph, inputs)
    except RecipeError as error:  # of a built graph, which takes inputs for the recipe's
        if isinstance(error.__cause__, InputError):
            raise _EngineRefuses from error
        raise _DoesNotRunError(_innermost(error)) from error


def _innermost(error: BaseException) -> str:
    """The first line of what is at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _no_host() -> Reference:
    raise AssertionError("a built graph that is not executed here is not asked to run")
