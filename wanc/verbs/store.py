"""`wanc store`: look into the store of finished work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wanc.errors import EXIT_REFUSED
from wanc.folders import DEFAULT_OUTPUT, Folders
from wanc.runtime.streams import print_result
from wanc.runtime.voice import say, shows_progress
from wanc.verbs.options import Json, Output, Overrides, RecipeFile, StoreFolder, that_speaks

store_app = typer.Typer(help="Look into the store of finished work.", no_args_is_help=True, rich_markup_mode=None)


@store_app.command("ls", epilog="Example: wanc store ls")
def store_ls(output: Output = Path(DEFAULT_OUTPUT), store: StoreFolder = None, as_json: Json = False) -> None:
    """List what is stored: stage, size, cost and key of every finished action."""
    from wanc.artifacts.listing import list_store

    listing = list_store(Folders.chosen(output, store).store)
    print_result(json.dumps(listing.as_json()) if as_json else listing.as_text())


@store_app.command("why", epilog="Example: wanc store why recipes/tiny-wan.yaml --set sampling.steps=10")
def store_why(
    recipe: RecipeFile,
    output: Output = Path(DEFAULT_OUTPUT),
    store: StoreFolder = None,
    overrides: Overrides = [],
    as_json: Json = False,
) -> None:
    """Say, for each stage of a build, whether it is stored, and if not, what has changed."""
    from wanc.compiler.why import why
    from wanc.recipe.load import load

    answers = [answer for loaded in load(recipe, overrides) for answer in why(loaded, output, store)]
    if as_json:
        print_result(json.dumps([answer.as_json() for answer in answers]))
    else:
        print_result("\n".join(answer.as_text() for answer in answers))


@store_app.command("gc", epilog="Example: wanc store gc --days 30 --dry-run")
@that_speaks
def store_gc(
    output: Output = Path(DEFAULT_OUTPUT),
    store: StoreFolder = None,
    days: Annotated[int, typer.Option(min=1, help="Keep what was used in the last N days.", metavar="N")] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what neither a bundle's last build nor the last days have used."""
    from wanc.artifacts.gc import clean
    from wanc.runtime.progress import ProgressBar

    with ProgressBar("gc", enabled=shows_progress(as_json=as_json)) as bar:
        root = Folders.chosen(output, store).store
        cleaning = clean(root, days=days, dry_run=dry_run, progress=bar.move_to, on_wait=say)
    print_result(json.dumps(cleaning.as_json()) if as_json else cleaning.as_text())


@store_app.command("fsck", epilog="Example: wanc store fsck")
@that_speaks
def store_fsck(output: Output = Path(DEFAULT_OUTPUT), store: StoreFolder = None, as_json: Json = False) -> None:
    """Read everything that is stored, and set aside what is damaged."""
    from wanc.artifacts.fsck import check
    from wanc.runtime.progress import ProgressBar

    with ProgressBar("fsck", enabled=shows_progress(as_json=as_json)) as bar:
        checkup = check(Folders.chosen(output, store).store, progress=bar.move_to, on_wait=say)
    print_result(json.dumps(checkup.as_json()) if as_json else checkup.as_text())
    if not checkup.ok:
        raise typer.Exit(EXIT_REFUSED)
