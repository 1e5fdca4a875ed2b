"""`wanc report`: whether a bundle may ship, and if not, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanc import completion
from wanc.errors import UserError
from wanc.folders import Folders
from wanc.runtime.streams import print_result
from wanc.runtime.voice import shows_progress
from wanc.verbs.options import Json, Overrides, StoreFolder, that_speaks
from wanc.verbs.report_bisect import refuse_without_effect, report_bisect, require_two
from wanc.words import Against

if TYPE_CHECKING:
    from wanc.recipe.load import LoadedRecipe
    from wanc.report.document import ExternalScores, ReportDocument

BISECT = "bisect"
"""Before the new bundle: a folder of that name is ./bisect."""
Bundles = Annotated[
    list[Path],
    typer.Argument(
        metavar="[bisect] NEW [OTHER]...",
        help="The new bundle's folder, and those that are shown beside it. With `bisect` before it nothing is "
        "written: which stage of the two builds brought the change that the text encoder, a denoiser or the decoder of "
        "the new one is beside the baseline's?",
        show_default=False,
        autocompletion=completion.bundles,
    ),
]


@that_speaks
def report(
    bundles: Bundles,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE", help="An earlier bundle, which the new one is compared with.", show_default=False
        ),
    ] = None,
    against: Annotated[
        Against | None,
        typer.Option(
            help="What gates are about: with `reference` the baseline is shown, and none is about it.",
            show_default="baseline where there is one",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE",
            help="The recipe whose `evaluate` says what is made; the new bundle's own if unset.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = [],
    gates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML of gates and demands, in place of the recipe's `evaluate.gates`.",
            show_default=False,
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="VBench's *_eval_results.json of the new bundle's videos, for the gates external.*",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure no times.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Where it is written; reports/ where bundles/ are if unset.",
            show_default=False,
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with the untouched model, and with an earlier bundle: a page, and a verdict as exit code."""
    from wanc.recipe.gates_file import read_gates
    from wanc.recipe.load import load
    from wanc.report.document import text
    from wanc.report.external import read_scores

    progress = shows_progress(as_json=as_json)
    if str(bundles[0]) == BISECT:
        idle = {"--against": against, "--gates": gates, "--scores": scores, "--quick": quick, "--output": output}
        refuse_without_effect([flag for flag, value in idle.items() if value])
        _bisect(bundles[1:], baseline, recipe, overrides, store, as_json=as_json)
        return
    for bundle in (*bundles, *([baseline] if baseline else [])):
        _require_bundle(bundle)
    if against == "baseline" and baseline is None:
        raise UserError("no baseline was given that gates could be about", hint="name it: --baseline BUNDLE")
    demanded = read_gates(gates) if gates else None
    scored = read_scores(scores) if scores else None
    new, *others = bundles
    folders = Folders.chosen(new.absolute().parent.parent, store)
    folder = output or folders.output / "reports" / new.absolute().name
    (loaded, *_) = load(recipe or _own_recipe(new, folders.store), overrides)
    made, written = _reported(
        loaded,
        [new],
        others,
        baseline,
        folders.store,
        folder,
        against=against or "baseline",
        gates=demanded,
        scores=scored,
        quick=quick,
        progress=progress,
    )
    if as_json:
        print_result(text(made).rstrip("\n"))
    else:
        print_result("\n".join([made.verdict.summary, *map(str, written)]))
    if code := made.exit_code:
        raise typer.Exit(code)


def report_on_builds(
    loaded: Sequence[LoadedRecipe], bundles: Sequence[Path], folders: Folders, *, progress: bool
) -> tuple[Path, ReportDocument] | None:
    """The page about what was built, and all that it says, where the recipe has `evaluate`.

    Of several variants the first is what the others are compared with. Raises UserError.
    """
    if loaded[0].recipe.evaluate is None:
        return None
    name = loaded[0].files[0].stem if loaded[0].variant is not None else loaded[0].recipe.name
    folder = folders.output / "reports" / name
    new, baseline = (bundles[1:], bundles[0]) if len(bundles) > 1 else (bundles, None)
    made, written = _reported(loaded[0], new, [], baseline, folders.store, folder, quick=False, progress=progress)
    return written[-1], made


def _reported(
    loaded: LoadedRecipe,
    new: Sequence[Path],
    others: Sequence[Path],
    baseline: Path | None,
    store: Path,
    folder: Path,
    *,
    against: Against = "baseline",
    gates: Mapping[str, str] | None = None,
    scores: ExternalScores | None = None,
    quick: bool,
    progress: bool,
) -> tuple[ReportDocument, list[Path]]:
    from wanc.artifacts.store import Store
    from wanc.compiler.make_reference import make_reference
    from wanc.compiler.stages.code_version import code_version
    from wanc.report import make
    from wanc.report.history import ReportHistory
    from wanc.report.model_card import read_card
    from wanc.report.reference import ReferenceRecord
    from wanc.report.shown import with_media
    from wanc.report.unfinished import Unfinished
    from wanc.report.write import require_report, write_report

    require_report(folder)
    record = ReferenceRecord.read(*make_reference(loaded, store, progress=progress))
    evaluate = loaded.recipe.evaluate
    assert evaluate is not None, "a reference was made"
    with Unfinished.opened(Store.open(store), code_version(make.__name__)) as unfinished:
        request = make.ReportRequest(
            title=loaded.files[0].stem if len(new) > 1 else loaded.recipe.name,
            new=new,
            others=others,
            baseline=baseline,
            record=record,
            model=str(loaded.recipe.model.source and loaded.recipe.model.source.name),
            gates=evaluate.gates if gates is None else gates,
            pairs=0 if quick else evaluate.pairs,
            against=against,
            scores=scores,
            card=read_card(loaded.recipe.model.source),
            store=store,
            unfinished=unfinished,
        )
        made = with_media(make.make_report(request, progress=progress), record, folder)
        history = ReportHistory(store)
        made = made.model_copy(update={"trend": history.trend(made)})
        written = write_report(made, folder, folder)
        history.add(made)
        unfinished.finish()
    return made, written


def _bisect(
    bundles: Sequence[Path],
    baseline: Path | None,
    recipe: Path | None,
    overrides: list[str],
    store: Path | None,
    *,
    as_json: bool,
) -> None:
    new, other = require_two(bundles, baseline)
    for bundle in (new, other):
        _require_bundle(bundle)
    root = Folders.chosen(new.absolute().parent.parent, store).store
    recipe = recipe or _own_recipe(new, root)
    progress = shows_progress(as_json=as_json)
    report_bisect(new, other, recipe, overrides, root, as_json=as_json, progress=progress)


def _require_bundle(path: Path) -> None:
    """Raises UserError where there is none: before the reference is made, which takes long."""
    from wanc.runtime.manifest import MANIFEST

    if not (path / MANIFEST).is_file():
        reason = "is no bundle" if path.exists() else "there is no such bundle"
        raise UserError(
            reason, where=str(path), hint="give the folder that wanc build named, such as artifacts/bundles/wan"
        )


def _own_recipe(bundle: Path, store: Path) -> Path:
    """The file that a bundle was built of last. Raises UserError where the store does not know it."""
    from wanc.artifacts.refs import recipe_of

    found = [Path(name) for name in recipe_of(store, bundle)]
    places = [*found[:1], *(store / path for path in found[1:])]
    for path in places:
        if path.is_file():
            return path
    raise UserError(
        "the store does not know which recipe this bundle was built of",
        where=str(bundle),
        hint="say it: --recipe RECIPE; or which store has built it: --store FOLDER",
    )
