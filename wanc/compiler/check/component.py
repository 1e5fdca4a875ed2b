"""One component, compared graph by graph with its source; and where it first differs, if it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wanc.compiler.bundle.built_graph import BuiltGraph
from wanc.compiler.check.asked import Asked
from wanc.compiler.check.bisect import Version, first_wrong
from wanc.compiler.check.built import Together
from wanc.compiler.check.compare import Compared, Difference, compare
from wanc.compiler.check.fault import check_declared, differs
from wanc.compiler.check.randomness import random_outputs
from wanc.compiler.check.steps import Workshop, Written, lowered, lowering, up_to_fuse
from wanc.compiler.check.trials import Arrays, NoKernel, Refused, Source, SourceRefuses, Trial
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.kernels import Precision
from wanc.compiler.host.reference import Reference
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ENGINE_REPORT, FILE, Program
from wanc.compiler.stages.stage import Files
from wanc.errors import RecipeError, UserError
from wanc.runtime.interface import InputError

if TYPE_CHECKING:
    from wanc.compiler.check.stage import CheckBuild

COARSE: tuple[Precision, ...] = ("half", "integer", "float32")


@dataclass(frozen=True)
class Measured:
    """What is compared with a source, how it is executed, and in which precision it multiplies."""

    name: str
    run: Callable[[Arrays], Arrays]
    precision: Precision


@dataclass(frozen=True)
class CheckedComponent:
    """A component as the export left it, as it was compiled, and as it was built; `folder` has its engine files.

    `precisions` are those in which each built graph multiplies, read back from it.
    """

    stage: CheckBuild
    compiler: Compiler
    exported: ComponentFiles
    compiled: ComponentFiles
    built: Mapping[str, BuiltGraph]
    precisions: Mapping[str, Precision]
    folder: Path

    @classmethod
    def of(cls, stage: CheckBuild, name: str, inputs: Mapping[str, Files], folder: Path) -> CheckedComponent:
        """The component of that name among a stage's inputs."""
        compiler, engines = stage.engine.compiler(), Program.read(inputs["engines"][FILE])
        report = json.loads(inputs["engines"][ENGINE_REPORT].read_bytes())["components"][name]
        built = {
            graph: BuiltGraph(compiler, entry, engines.files_of(name, graph), folder, _no_host)
            for graph, entry in engines.components[name].graphs.items()
        }
        exported, compiled = (
            ComponentFiles.read(name, {**inputs, "program": inputs[which]}) for which in ("exported", "program")
        )
        precisions: dict[str, Precision] = {graph: entry["precision"] for graph, entry in report.items()}
        return cls(stage, compiler, exported, compiled, built, precisions, folder)

    def check(self, source: Source, graph: str) -> dict[str, Any]:
        """Compare a graph in all of a source's trials; what the manifest says of it.

        Raises UserError where something differs, with the first step behind which it does, and CheckpointError where
        the source does not compute what it declares.
        """
        model = self.exported.model(graph)
        asked, random = Asked.of(self.exported.component.graphs[graph], model), random_outputs(model)
        measured, told = self._measured(graph), list[dict[str, Any]]()
        for trial in source.trials(self.exported.name, graph, asked):
            entry: dict[str, Any] = {"inputs": trial.kind, "sizes": dict(trial.sizes)}
            told.append(entry)
            if isinstance(trial, Refused):
                entry["refused_by"] = "source"
                continue
            check_declared(asked, trial, f"{self.exported.name}/{graph}")
            at_others, errors = trial.sizes != asked.example, dict[str, float]()
            for one in measured:
                comparison = partial(compare, asked.outputs, trial, precision=one.precision, random=random)
                try:
                    found = comparison(one.run(trial.inputs))
                except (_EngineRefuses, NoKernel) as refusal:
                    refuses = isinstance(refusal, _EngineRefuses)
                    entry["refused_by"] = self.compiler.engine if refuses else "the machine that builds"
                    continue
                except (_DoesNotRunError, SourceRefuses) as error:
                    found = Compared(0.0, [Difference(graph, f"does not run: {error}")])
                if found.differences:
                    raise self._fault(graph, trial, found.differences, comparison, at_others=at_others)
                errors[one.name] = float(f"{found.error:.1e}")
            entry["errors"] = errors
        for part in self.built.values():
            part.close()
        compared = {one.name: one.precision for one in measured}
        return {"compared": compared, "random": sorted(random), "trials": told}

    def _measured(self, graph: str) -> list[Measured]:
        """What is compared: the engine, or where it cannot be executed here what it is made of.

        An engine that computes in halves tells little of a small fault: the graph that it is made of does.
        """
        built = Together(self.built)
        parts = [self.built[part] for part in built.needed(graph)]
        if not all(part.runs_here for part in parts):
            passes, allowed = self.compiler.passes, self.stage.allow_not_finite
            run = lowered(self.compiled, passes, self._workshop(), allowed).run
            return [Measured("lowered graph", partial(run, graph), "float32")]
        precisions = [self.precisions[part.files[0].graph] for part in parts]
        precision: Precision = next(entry for entry in COARSE if entry in precisions)
        engine = Measured("engine", partial(_engine, built, graph), precision)
        if precision != "half":
            return [engine]
        canonical = Written(self.compiled.component.graphs[graph], self.compiled.model(graph), self._workshop())
        return [Measured("graph", canonical.run, "float32"), engine]

    def _fault(
        self,
        graph: str,
        trial: Trial,
        differences: Sequence[Difference],
        comparison: Callable[[Arrays], Compared],
        *,
        at_others: bool,
    ) -> UserError:
        """The error for what differs, with the step from which on it does."""

        def is_wrong(outputs: Arrays | None) -> bool:
            return outputs is None or bool(comparison(outputs).differences)

        culprit = first_wrong(self._steps(graph), trial.inputs, is_wrong)
        return differs(f"{self.exported.name}/{graph}", trial, differences, culprit, at_others=at_others)

    def _steps(self, graph: str) -> Iterator[Version]:
        workshop, stage = self._workshop(), self.stage
        yield from up_to_fuse(self.exported, graph, stage.fuse.chosen(), workshop)
        compiler, allowed = self.compiler, stage.allow_not_finite
        yield from lowering(self.compiled, graph, compiler.passes, compiler.engine, workshop, allowed)

    def _workshop(self) -> Workshop:
        return Workshop(self.folder / "as-written" / self.exported.name, self.compiled.weights)


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
