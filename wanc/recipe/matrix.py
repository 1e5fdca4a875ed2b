"""The variants of a recipe: each is the recipe with some values set."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wanc.errors import RecipeError
from wanc.recipe.layers import Assignment, parse_path
from wanc.recipe.section import PATTERNS, PROFILE_NAME
from wanc.recipe.tree import Node

MAX_VARIANTS = 16


def expand(matrix: Mapping[str, Node]) -> dict[str | None, list[Assignment]]:
    """What each variant sets, by its name and in the order of the file; a recipe without variants has the one `None`.

    Raises:
        RecipeError: a variant's name or one of its keys is none, or there are too many.
    """
    if len(matrix) > MAX_VARIANTS:
        where = list(matrix.values())[MAX_VARIANTS].key_at
        raise RecipeError(f"the matrix has more than {MAX_VARIANTS} variants", where=where, hint="split the recipe")
    return {name: _changes(name, node) for name, node in matrix.items()} or {None: []}


def _changes(name: str, variant: Node) -> list[Assignment]:
    if not re.fullmatch(PROFILE_NAME, name):
        message = f"matrix.{name[:40]} is no name for a variant"
        raise RecipeError(message, where=variant.key_at, hint=f"it has to be {PATTERNS[PROFILE_NAME]}")
    if not isinstance(variant.value, dict):
        hint = "write what it sets, such as {sampling.steps: 8}, or {} for the recipe as it is"
        raise RecipeError(f"matrix.{name} has to be a mapping", where=variant.at, hint=hint)
    return [Assignment(parse_path(key, node.key_at), node) for key, node in variant.value.items()]
