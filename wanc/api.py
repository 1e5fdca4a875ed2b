"""wanc from Python: what `wanc.build`, `wanc.open` and their like are.

The package's `__init__` looks here by name when it is asked, so that `import wanc` loads nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from wanc.compiler.executor import IN_PROCESS
from wanc.compiler.pipeline import BuildResult
from wanc.compiler.pipeline import build as build_recipe
from wanc.compiler.variants import VariantsError, chosen
from wanc.compiler.variants import build_variants as build_each
from wanc.errors import RecipeError
from wanc.folders import Folders
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.api import Limits, Quota, open, open_graph, open_service

__all__ = [
    "BuildResult",
    "Limits",
    "Quota",
    "VariantsError",
    "build",
    "build_variants",
    "open",
    "open_graph",
    "open_service",
]

NOTHING: Mapping[str, Any] = MappingProxyType({})


def build(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    store: str | Path | None = None,
    set: Mapping[str, Any] = NOTHING,
    progress: bool = False,
    variant: str | None = None,
    replace: bool = False,
    executor: str = IN_PROCESS,
) -> BuildResult:
    """Build the bundle of a recipe: its folder is the result's `bundle`, its digest the `id`.

    Args:
        recipe: the YAML file.
        output: where `bundles/` is; unless given, the folder in WANC_OUTPUT, or `artifacts`.
        store: where finished work is kept, which is not done again; unless given, the folder in WANC_STORE, or
            `store/` in the output.
        set: values by the recipe's dotted keys, which win over the file's: `{"sampling.steps": 10}`.
        progress: whether to draw bars on stderr.
        variant: which one of a recipe with a `matrix`.
        replace: whether a bundle of the same name may give way that another recipe's file, or another store, made.
        executor: where stages run: in-process, ray, or ray:HOST:PORT.

    Raises:
        UserError: whatever `wanc build` would print; RecipeError where the recipe is a matrix, and no variant is named.
    """
    folders = Folders.chosen(output, store)
    loaded = chosen(_load(recipe, set), [variant] if variant is not None else [])
    if variant is None and (len(loaded) > 1 or loaded[0].variant is not None):
        names = ", ".join(entry.recipe.name for entry in loaded)
        raise RecipeError(
            f"it has several variants: {names}",
            where=str(recipe),
            hint="name one as variant, or call wanc.build_variants",
        )
    return build_recipe(
        loaded[0], folders.output, store=folders.store, replace=replace, progress=progress, executor=executor
    )


def build_variants(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    store: str | Path | None = None,
    set: Mapping[str, Any] = NOTHING,
    progress: bool = False,
    variants: Sequence[str] = (),
    keep_going: bool = False,
    replace: bool = False,
    executor: str = IN_PROCESS,
) -> list[BuildResult]:
    """The same for a recipe with a `matrix`: one result for each of its variants, in order, or of those named.

    With `keep_going` a variant that fails does not stop the others; the end is then a VariantsError, whose `builds`
    tell of each. Raises UserError.
    """
    folders, picked = Folders.chosen(output, store), chosen(_load(recipe, set), variants)
    builds = build_each(picked, folders, replace=replace, progress=progress, keep_going=keep_going, executor=executor)
    return [entry.result for entry in builds if entry.result is not None]


def _load(recipe: str | Path, values: Mapping[str, Any]) -> list[LoadedRecipe]:
    # JSON is YAML, and says of every value of which type it is.
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in values.items()]
    return list(load(Path(recipe), overrides))
