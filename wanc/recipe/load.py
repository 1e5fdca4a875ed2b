"""Loading a recipe: its file, what that extends, its variants and `--set`, down to checked objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from wanc.recipe.chain import read_chain
from wanc.recipe.explain import explain
from wanc.recipe.keys import faulty_assignment
from wanc.recipe.layers import Assignment, assign_all, parse_override, without_nulls
from wanc.recipe.matrix import expand
from wanc.recipe.problems import RecipeProblem, as_error, in_order
from wanc.recipe.schema import Recipe
from wanc.recipe.tree import Marks, Node, marks_of, plain

# Values that name files; relative ones start from the folder of the text that they are written in.
_PATHS = (
    ("model", "source"),
    ("model", "companion"),
    ("model", "onnx"),
    ("model", "files", "*"),
    ("quantize", "calibrate", "prompts"),
    ("evaluate", "prompts"),
    ("partition", "profiles", "*"),
)


@dataclass(frozen=True)
class LoadedRecipe:
    """A checked recipe, and where all of it was written."""

    recipe: Recipe
    variant: str | None
    """The entry of `matrix` that this is, if the recipe has one; also the end of the recipe's name."""
    marks: Marks
    files: tuple[Path, ...]
    """All files that were read: the recipe's own, then what it extends, in that order."""


def load(path: Path | str, overrides: Sequence[str] = ()) -> list[LoadedRecipe]:
    """The recipe at `path`, or its variants in the order in which the file has them.

    Args:
        path: the recipe's file.
        overrides: what `--set` got, such as `sampling.steps=8`; they win over the file and its variants.

    Raises:
        RecipeError: the recipe cannot be read, is no YAML that is safe to read, or asks for something impossible.
            Faults of the settings themselves are reported together.
        NotBuiltYetError: all that is wrong with it is that wanc cannot do it yet.
    """
    loaded, problems = load_all(path, overrides)
    if problems:
        raise as_error(problems)
    return loaded


def load_all(path: Path | str, overrides: Sequence[str] = ()) -> tuple[list[LoadedRecipe], list[RecipeProblem]]:
    """The same, with all faults of the settings, each once, in place of the one error that tells the first of them.

    Raises RecipeError: the recipe cannot be read, or is no YAML that is safe to read.
    """
    assignments = [parse_override(text) for text in overrides]
    chain = read_chain(Path(path))
    loaded: list[LoadedRecipe] = []
    problems: list[RecipeProblem] = []
    hidden = [*chain.faulty_keys]
    for variant, changes in expand(chain.matrix).items():
        below = assign_all(chain.settings, changes)
        hidden += (problem for assignment in assignments for problem in faulty_assignment(assignment, below))
        given = [*changes, *assignments]
        tree = _tree_of(chain.settings, variant, given)
        marks = marks_of(tree, (entry.path for entry in given if isinstance(entry.node.value, dict)))
        try:
            recipe = Recipe.model_validate(plain(without_nulls(tree)))
            loaded.append(LoadedRecipe(recipe, variant, marks, chain.files))
        except ValidationError as error:
            problems += explain(error, marks)
    return loaded, in_order([*problems, *hidden])


def _tree_of(settings: Node, variant: str | None, assignments: Sequence[Assignment]) -> Node:
    tree = assign_all(settings, assignments)
    if variant is not None:
        tree = _with_text(tree, ("name",), lambda text, _: f"{text}-{variant}")
    for path in _PATHS:
        tree = _with_text(tree, path, lambda text, folder: os.path.realpath(folder / text))
    return tree


def _with_text(node: Node, path: Sequence[str], change: Callable[[str, Path], str]) -> Node:
    """`node` with the text at `path` changed; what is missing, empty or no text is left for the schema to refuse."""
    if path and isinstance(node.value, dict) and path[0] in node.value:
        return replace(node, value={**node.value, path[0]: _with_text(node.value[path[0]], path[1:], change)})
    if path and path[0] == "*" and isinstance(node.value, list):
        return replace(node, value=[_with_text(item, path[1:], change) for item in node.value])
    if not path and isinstance(node.value, str) and node.value:
        return replace(node, value=change(node.value, node.folder))
    return node
