"""`wanc plan`: where a recipe's model would lie, and how fast that is predicted to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wanc.errors import UserError
from wanc.folders import Folders
from wanc.runtime.streams import print_result
from wanc.runtime.voice import shows_progress
from wanc.verbs.options import Json, Overrides, RecipeFile, StoreFolder, that_speaks

if TYPE_CHECKING:
    from wanc.compiler.planner.recipe_plan import RecipePlan


@that_speaks
def plan(
    recipe: RecipeFile,
    overrides: Overrides = [],
    variants: Annotated[
        list[str], typer.Option("--variant", metavar="NAME", help="Plan this variant of the matrix; may be repeated.")
    ] = [],
    pictures: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="Write a chart and a trace there.", show_default=False),
    ] = None,
    engines: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE", help="Take activations as the engines of this bundle need them.", show_default=False
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Show what this trace of a run says beside the plan; with -o as one picture.",
            show_default=False,
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Plan a recipe: which device executes what, how fast, in how much memory. No weight is read, nothing is built."""
    from wanc.compiler.planner.plan_text import beside_table, device_names, plan_tables, write_beside, write_pictures
    from wanc.compiler.planner.recipe_plan import in_store, plan_recipe
    from wanc.compiler.planner.traced import TracedRun
    from wanc.compiler.variants import chosen
    from wanc.recipe.load import load
    from wanc.terminal import show

    folders, asked = Folders.chosen(None, store), chosen(load(recipe, overrides), variants)
    run = in_store(folders, progress=shows_progress(as_json=as_json))
    activations = _built_activations(engines) if engines is not None else {}
    planned = [plan_recipe(loaded, run, activations) for loaded in asked]
    traced = TracedRun.read(trace, device_names(_only(planned))) if trace is not None else None
    for entry in () if as_json else planned:
        show([*plan_tables(entry), *([beside_table(entry, traced)] if traced else [])])
    if as_json:
        documents = [entry.as_json() for entry in planned]
        is_matrix = len(asked) > 1 or asked[0].variant is not None
        print_result(json.dumps(documents if is_matrix else documents[0]))
    written = [path for entry in planned for path in (write_pictures(entry, pictures) if pictures else ())]
    if traced and pictures:
        written.append(write_beside(planned[0], traced, pictures))
    if written and not as_json:
        print_result("\n".join(map(str, written)))


def _only(planned: list[RecipePlan]) -> RecipePlan:
    """A trace is of one bundle."""
    if len(planned) > 1:
        raise UserError(f"a trace is beside one plan, and there are {len(planned)}", hint="choose one: --variant NAME")
    return planned[0]


def _built_activations(bundle: Path) -> dict[str, int]:
    from wanc.compiler.planner.built_memory import built_activations
    from wanc.compiler.program.program import ENGINE_REPORT
    from wanc.inspection.engine_report import read_report

    report = read_report(bundle / ENGINE_REPORT)
    assert report is not None
    return built_activations(report)
