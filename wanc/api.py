"""wanc from Python: what `wanc.build`, `wanc.open` and their like are.

The package's `__init__` looks here by name when it is asked, so that `import wanc` loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wanc.compiler.pipeline import BuildResult
from wanc.compiler.pipeline import build as build_recipe
from wanc.errors import RecipeError
from wanc.folders import Folders
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.api import open, open_graph

__all__ = ["BuildResult", "build", "build_variants", "open", "open_graph"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


def build(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    store: str | Path | None = None,
    set: Mapping[str, Any] = NOTHING,
    progress: bool = False,
) -> BuildResult:
    """Build the bundle of a recipe: its folder is the result's `bundle`, its digest the `id`.

    Args:
        recipe: the YAML file.
        output: where `bundles/` is; unless given, the folder in WANC_OUTPUT, or `artifacts`.
        store: where finished work is kept, which is not done again; unless given, the folder in WANC_STORE, or
            `store/` in the output.
        set: values by the recipe's dotted keys, which win over the file's: `{"sampling.steps": 10}`.
        progress: whether to draw bars on stderr.

    Raises:
        UserError: whatever `wanc build` would print; RecipeError where the recipe is a matrix.
    """
    loaded = _load(recipe, set)
    if len(loaded) > 1 or loaded[0].variant is not None:
        names = ", ".join(entry.recipe.name for entry in loaded)
        raise RecipeError(f"it has several variants: {names}", where=str(recipe), hint="call wanc.build_variants")
    folders = Folders.chosen(output, store)
    return build_recipe(loaded[0], folders.output, store=folders.store, progress=progress)


def build_variants(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    store: str | Path | None = None,
    set: Mapping[str, Any] = NOTHING,
    progress: bool = False,
) -> list[BuildResult]:
    """The same for a recipe with a `matrix`: one result for each of its variants, in order. Raises UserError."""
    folders = Folders.chosen(output, store)
    variants = _load(recipe, set)
    return [build_recipe(entry, folders.output, store=folders.store, progress=progress) for entry in variants]


def _load(recipe: str | Path, values: Mapping[str, Any]) -> list[LoadedRecipe]:
    # JSON is YAML, and says of every value of which type it is.
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in values.items()]
    return list(load(Path(recipe), overrides))
