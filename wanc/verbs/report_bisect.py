"""`wanc report bisect`: which stage of a build brought a change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from wanc.errors import UserError
from wanc.runtime.streams import print_result
from wanc.runtime.voice import say
from wanc.terminal import TextTable, show

if TYPE_CHECKING:
    from wanc.report.bisect import Bisection


def report_bisect(
    new: Path, baseline: Path, recipe: Path, overrides: Sequence[str], store: Path, *, as_json: bool, progress: bool
) -> None:
    """Print the stages of two builds beside each other; exits with 1 where one of them brought a change.

    Raises UserError.
    """
    from wanc.artifacts.sources import SourceDigests
    from wanc.artifacts.store import Store
    from wanc.compiler.built_stages import BuiltBundle
    from wanc.compiler.make_reference import make_reference
    from wanc.compiler.resolve import resolve
    from wanc.recipe.load import load
    from wanc.report.bisect import bisect
    from wanc.report.document import EXIT_CODES, text
    from wanc.report.reference import ReferenceRecord

    (loaded, *_) = load(recipe, list(overrides))
    if loaded.recipe.model.family == "wan-causal":
        raise UserError("builds of causal models are not compared stage by stage yet", where=str(recipe))
    opened = Store.existing(store)
    source = resolve(loaded, SourceDigests(opened), progress=progress).source.locate()
    with opened.session(on_wait=say):
        builds = [BuiltBundle(opened, path, source).stages for path in (new, baseline)]
        # Behind what is refused: it takes long where it is not made yet.
        record = ReferenceRecord.read(*make_reference(loaded, store, progress=progress))
        found = bisect(new, baseline, builds, record)
    if as_json:
        print_result(text(found).rstrip("\n"))
    else:
        show([_table(found)])
        print_result(found.summary)
    if found.first is not None:
        raise typer.Exit(EXIT_CODES["regression"])


def _table(found: Bisection) -> TextTable:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.2e}"

    rows = [
        (
            one.component,
            one.stage,
            "the same" if one.is_same else number(one.difference),
            number(one.noise),
            number(one.error),
            number(one.baseline_error),
            "not in both" if one.told is None else ", ".join(one.told),
        )
        for one in found.stages
    ]
    title = f"{found.new} beside {found.baseline}: text states, velocities and frames, relative to their size"
    header = ("component", "stage", "between them", "noise", "error", "of the baseline", "told otherwise")
    return TextTable(title, rows, header)


def require_two(bundles: Sequence[Path], baseline: Path | None) -> tuple[Path, Path]:
    """The new bundle and its baseline. Raises UserError where others were named."""
    if len(bundles) != 1 or baseline is None:
        raise UserError(
            "two builds are compared, stage by stage",
            hint="name the new bundle and the other: wanc report bisect NEW --baseline BUNDLE",
        )
    return bundles[0], baseline


def refuse_without_effect(flags: Sequence[str]) -> None:
    """Raises UserError where options were given that are about what a report measures and writes."""
    if flags:
        raise UserError(f"{' and '.join(flags)} would have no effect with bisect", hint="leave it out")
