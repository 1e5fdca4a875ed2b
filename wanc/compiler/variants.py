"""Building the variants of a recipe, one after the other, when all of them were looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from wanc.compiler.executor import IN_PROCESS
from wanc.compiler.pipeline import BuildResult, build
from wanc.compiler.preflight import faults_of
from wanc.errors import RecipeError, UserError, render
from wanc.folders import Folders
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.problems import together
from wanc.terminal import TextTable


@dataclass(frozen=True)
class VariantBuild:
    """How the build of one variant ended: with a result, or with the fault that stopped it."""

    loaded: LoadedRecipe
    seconds: float
    result: BuildResult | None = None
    error: UserError | None = None

    def as_json(self) -> dict[str, Any]:
        ended = self.result.as_json() if self.result else {"error": render(self.error) if self.error else None}
        return {**({} if self.loaded.variant is None else {"variant": self.loaded.variant}), **ended}


class VariantsError(UserError):
    """Some variants could not be built, while the others went on; `builds` are all, in order.

    The exit code is that of the first that failed.
    """

    def __init__(self, builds: Sequence[VariantBuild]) -> None:
        failed = [(entry.loaded.variant, entry.error) for entry in builds if entry.error is not None]
        names = ", ".join(str(variant) for variant, _ in failed)
        where = str(builds[0].loaded.files[0])
        super().__init__(
            f"{len(failed)} of {len(builds)} variants were not built: {names}",
            where=where,
            hint="what the others have finished is kept: mend these, and build again",
            exit_code=failed[0][1].exit_code,
        )
        self.builds = builds


def chosen(variants: Sequence[LoadedRecipe], names: Sequence[str]) -> list[LoadedRecipe]:
    """The variants of these names, in the order of the recipe; all of them unless any is named.

    Raises RecipeError for a name that none has.
    """
    known = [loaded.variant for loaded in variants if loaded.variant is not None]
    for name in names:
        if name not in known:
            hint = f"its variants are {', '.join(known)}" if known else "leave --variant out, or write a `matrix`"
            if near := get_close_matches(name, known, n=1):
                hint = f"did you mean {near[0]}? {hint}"
            raise RecipeError(f"the recipe has no variant {name}", where=str(variants[0].files[0]), hint=hint)
    return [loaded for loaded in variants if not names or loaded.variant in names]


def build_variants(
    variants: Sequence[LoadedRecipe],
    folders: Folders,
    *,
    replace: bool = False,
    paranoid: bool = False,
    progress: bool = True,
    keep_going: bool = False,
    on_end: Callable[[VariantBuild], None] = lambda _: None,
    executor: str = IN_PROCESS,
) -> list[VariantBuild]:
    """Build each; `on_end` is told when one has ended.

    What can be found wrong with any of them before anything is made is said before the first is built. With
    `keep_going` a variant that fails does not stop the others, and the end is a VariantsError that has all of them.
    Raises UserError.
    """
    if len(variants) > 1 and not keep_going and (faults := faults_of(variants)):
        raise together(faults)
    builds: list[VariantBuild] = []
    for loaded in variants:
        started = time.perf_counter()
        result, error = None, None
        try:
            result = build(
                loaded,
                folders.output,
                store=folders.store,
                replace=replace,
                paranoid=paranoid,
                progress=progress,
                executor=executor,
            )
        except UserError as fault:
            if not keep_going:
                raise
            error = fault
        builds.append(VariantBuild(loaded, time.perf_counter() - started, result, error))
        on_end(builds[-1])
    if any(entry.error for entry in builds):
        raise VariantsError(builds)
    return builds


def summary(builds: Iterable[VariantBuild]) -> TextTable:
    """One row for each variant."""
    header = ("variant", "id", "seconds", "cached stages", "bundle")
    return TextTable("variants", [_row(entry) for entry in builds], header)


def _row(entry: VariantBuild) -> tuple[str, ...]:
    name, seconds = entry.loaded.variant or entry.loaded.recipe.name, f"{entry.seconds:.1f}"
    if entry.result is None:
        return name, "not built", seconds, "", str(entry.error).partition("\n")[0]
    stages = [run for run in entry.result.stages if run.name != "resolve"]
    cached = f"{sum(run.cached for run in stages)} of {len(stages)}"
    return name, entry.result.id, seconds, cached, str(entry.result.bundle)
