"""A recipe's file and the files that it extends, merged."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from wanc.errors import RecipeError
from wanc.recipe.keys import faulty_assignment, faulty_keys
from wanc.recipe.layers import merge
from wanc.recipe.matrix import expand
from wanc.recipe.paths import path_hint
from wanc.recipe.problems import MOST_EXPLAINED, RecipeProblem
from wanc.recipe.schema import FILE_KEYS
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import Node, TextSource
from wanc.runtime.text_file import Kind, read_text

MAX_FILES = 16
SUFFIXES = (".yaml", ".yml")
RECIPE = Kind("recipe", "recipe.yaml", "a recipe is a few kilobytes of settings", RecipeError)


@dataclass(frozen=True)
class ExtendsChain:
    """What the files of a recipe say together."""

    settings: Node
    matrix: dict[str, Node]
    """The variants, not yet checked; an extending recipe adds to those of its base, or replaces them by name."""
    files: tuple[Path, ...]
    """The recipe's own file, then what it extends, in that order."""
    faulty_keys: tuple[RecipeProblem, ...]
    """What is wrong with the keys of any of them, which merging may have taken away."""


def read_chain(path: Path) -> ExtendsChain:
    """Reads the recipe at `path` and everything that it extends.

    Raises:
        RecipeError: a file cannot be read or parsed, or the files extend one another without end.
    """
    layers: list[_Layer] = []
    files = [path]
    where = str(path)
    while True:
        layers.append(_read_layer(files[-1], where, layers[-1].root.folder if layers else Path()))
        extends = layers[-1].keys.get("extends")
        if extends is None or extends.value is None:
            break
        where = extends.at
        files.append(_base_of(extends))
        _refuse_endless(files, where)
    layers.reverse()
    merged, problems = _merged(layers)
    return ExtendsChain(merged, _matrix(layers), tuple(files), problems)


@dataclass(frozen=True)
class _Layer:
    root: Node
    keys: dict[str, Node]


def _read_layer(path: Path, where: str, folder: Path) -> _Layer:
    try:
        text = read_text(path, where, RECIPE)
    except RecipeError as error:
        error.hint = path_hint(path, folder, *SUFFIXES) or error.hint
        raise
    root = parse(text, TextSource(str(path), path.parent))
    if not isinstance(root.value, dict):
        what = "empty" if root.value is None else "not a mapping"
        hint = "a recipe is a mapping that begins with `wanc: 1`; `wanc recipe new` writes one"
        raise RecipeError(f"the recipe is {what}", where=root.at, hint=hint)
    return _Layer(root, root.value)


def _base_of(extends: Node) -> Path:
    if not isinstance(extends.value, str) or not extends.value:
        hint = "name one recipe's file, such as `extends: base.yaml`"
        raise RecipeError("extends has to be a path", where=extends.at, hint=hint)
    return extends.folder / extends.value


def _refuse_endless(files: list[Path], where: str) -> None:
    # A circle can go through links, so files are told apart by what they really are.
    names = [os.path.realpath(file) for file in files]
    if names[-1] in names[:-1]:
        circle = " → ".join(map(str, files[names.index(names[-1]) :]))
        raise RecipeError(f"the recipes extend one another in a circle: {circle}", where=where, hint="remove one link")
    if len(files) > MAX_FILES:
        hint = "merge some of them into one"
        raise RecipeError(f"more than {MAX_FILES} recipes extend one another", where=where, hint=hint)


def _merged(layers: list[_Layer]) -> tuple[Node, tuple[RecipeProblem, ...]]:
    """The settings of all layers, and what is wrong with the keys of any."""
    merged = replace(layers[-1].root, value={})
    problems: list[RecipeProblem] = []
    for layer in layers:
        problems += islice(faulty_keys(layer.root, merged), MOST_EXPLAINED)
        settings = {key: node for key, node in layer.keys.items() if key not in FILE_KEYS}
        merged = merge(merged, replace(layer.root, value=settings))
        matrix = layer.keys.get("matrix")
        # A higher layer may replace a variant by its name.
        for changes in expand(matrix.value).values() if matrix and isinstance(matrix.value, dict) else ():
            faults = (problem for change in changes for problem in faulty_assignment(change, merged))
            problems += islice(faults, MOST_EXPLAINED)
    return merged, tuple(problems)


def _matrix(layers: list[_Layer]) -> dict[str, Node]:
    variants: dict[str, Node] = {}
    for layer in layers:
        matrix = layer.keys.get("matrix")
        if matrix is None:
            continue
        if matrix.value is None:
            variants = {}
        elif isinstance(matrix.value, dict):
            variants |= matrix.value
        else:
            hint = "write a name and what it sets, such as `matrix: {fast: {sampling.steps: 8}}`"
            raise RecipeError("matrix has to be a mapping of variants", where=matrix.at, hint=hint)
    return variants
