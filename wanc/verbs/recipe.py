"""`wanc recipe`: look at, check and write recipes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wanc.errors import render
from wanc.runtime.streams import complain, print_result
from wanc.verbs.options import Json, Overrides, RecipeFile

recipe_app = typer.Typer(help="Look at, check and write recipes.", no_args_is_help=True, rich_markup_mode=None)


@recipe_app.command("show", epilog="Example: wanc recipe show recipes/tiny-wan.yaml --set sampling.steps=10")
def recipe_show(recipe: RecipeFile, overrides: Overrides = [], as_json: Json = False) -> None:
    """Print a recipe with everything resolved and every default filled in."""
    from wanc.recipe.load import load
    from wanc.recipe.show import to_yaml

    recipes = [loaded.recipe for loaded in load(recipe, overrides)]
    if as_json:
        print_result(json.dumps([entry.model_dump(mode="json") for entry in recipes]))
    else:
        print_result("---\n".join(to_yaml(entry) for entry in recipes), end="")


@recipe_app.command("check", epilog="Example: wanc recipe check recipes/tiny-wan.yaml")
def recipe_check(recipe: RecipeFile, overrides: Overrides = [], as_json: Json = False) -> None:
    """Check a recipe, all of its variants and the files that they name, without building anything."""
    from wanc.compiler.preflight import check_recipe

    checkup = check_recipe(recipe, overrides)
    if as_json:
        print_result(json.dumps(checkup.as_json()))
    elif not checkup.faults:
        print_result(f"ok: {', '.join(checkup.bundles)}")
    for fault in () if as_json else checkup.faults:
        complain(render(fault))
    if checkup.faults:
        raise typer.Exit(checkup.exit_code)


@recipe_app.command("schema", epilog="Example: wanc recipe schema > recipes/recipe.schema.json")
def recipe_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from wanc.recipe.json_schema import json_schema

    print_result(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@recipe_app.command("new", epilog="Example: wanc recipe new checkpoints/my-wan --name my-wan > my-wan.yaml")
def recipe_new(
    source: Annotated[
        str,
        typer.Argument(help="A Wan checkpoint's folder, an ONNX file, or a Python module.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; the source's if unset.", show_default=False)
    ] = None,
    companion: Annotated[
        str | None,
        typer.Option(
            help="Of denoisers alone: the checkpoint with text encoder, tokenizer and VAE.", show_default=False
        ),
    ] = None,
) -> None:
    """Print a commented recipe that fits a model, to be saved in the working directory."""
    from wanc.compiler.new_recipe import new_recipe

    print_result(new_recipe(source, name, companion), end="")
