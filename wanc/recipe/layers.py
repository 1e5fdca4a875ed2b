"""How the layers of a recipe become one: deep merge for `extends`, assignments for `matrix` and `--set`.

In every layer a null means absent: it takes away what lower layers gave, so that the default counts again. It stays in
the tree, with its place, until the tree becomes a recipe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wanc.errors import RecipeError
from wanc.recipe.schema import FILE_KEYS
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import KeyPath, Node, TextSource

_DOTTED = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

_LONGEST_SHOWN = 60
_MOST_KEYS = 16


@dataclass(frozen=True)
class Assignment:
    """One `path = value`, of `--set` or of a variant."""

    path: KeyPath
    node: Node


def merge(base: Node, top: Node) -> Node:
    """`top` laid over `base`: mappings merge key by key, anything else replaces."""
    if not isinstance(top.value, dict):
        return top
    merged = dict(base.value) if isinstance(base.value, dict) else {}
    for key, node in top.value.items():
        merged[key] = merge(merged.get(key, _empty_like(node)), node)
    return replace(top, value=merged)


def assign(root: Node, assignment: Assignment) -> Node:
    """`root` with one value replaced; mappings on the way to it are made where they are missing.

    Raises:
        RecipeError: the path leads into a value that is no mapping, or to an item that a list does not have.
    """
    return _assign(root, assignment, 0)


def _assign(node: Node, assignment: Assignment, depth: int) -> Node:
    path, new = assignment.path, assignment.node
    if depth == len(path):
        return new
    key = path[depth]
    if isinstance(node.value, list):
        items = list(node.value)
        index = _index(key, items, assignment, depth)
        items[index] = _assign(items[index], assignment, depth + 1)
        return replace(node, value=items)
    if not isinstance(node.value, dict | None):
        owner = ".".join(map(str, path[:depth]))
        message = f"{'.'.join(map(str, path))} cannot be set: {owner} is not a mapping"
        raise RecipeError(message, where=new.key_at, hint=f"set {owner} itself; it stands at {node.at}")
    children = node.value or {}
    child = _assign(children.get(str(key), _empty_like(new)), assignment, depth + 1)
    return replace(node, value={**children, str(key): child})


def _index(key: str | int, items: list[Node], assignment: Assignment, depth: int) -> int:
    text = str(key)
    if text.isdecimal() and len(text) < 6 and int(text) < len(items):
        return int(text)
    owner = ".".join(map(str, assignment.path[:depth]))
    hint = f"its items are {owner}.0 to {owner}.{len(items) - 1}" if items else f"set {owner} itself: it is empty"
    raise RecipeError(f"the list {owner} has no item {text}", where=assignment.node.key_at, hint=hint)


def without_nulls(node: Node) -> Node:
    """`node` with what its nulls mean: a key of a mapping is absent. In a list a null is an item like any other."""
    if isinstance(node.value, dict):
        kept = {key: without_nulls(child) for key, child in node.value.items() if child.value is not None}
        return replace(node, value=kept)
    if isinstance(node.value, list):
        return replace(node, value=[without_nulls(item) for item in node.value])
    return node


def _empty_like(node: Node) -> Node:
    return replace(node, value={})


def parse_path(dotted: str, where: str) -> KeyPath:
    """The path that a text such as `sampling.steps` names.

    Raises:
        RecipeError: it is no dotted path, or it names a key that only a recipe's file can have.
    """
    if not _DOTTED.fullmatch(dotted):
        hint = "name the keys from the top, joined by dots, such as sampling.steps"
        raise RecipeError(f"{_shorten(dotted)!r} is not a path of keys", where=where, hint=hint)
    path = tuple(dotted.split("."))
    if len(path) > _MOST_KEYS:
        raise RecipeError(f"a path has at most {_MOST_KEYS} keys", where=where, hint="a recipe is a few levels deep")
    if path[0] in FILE_KEYS:
        hint = "write it in the recipe's file"
        raise RecipeError(f"{path[0]} cannot be set from outside the file", where=where, hint=hint)
    return path


def parse_override(text: str) -> Assignment:
    """The assignment that `--set text` asks for. A relative path in its value starts from the working directory.

    Raises:
        RecipeError: `text` is not `path=value`, or its value is not a scalar or a list or mapping in brackets.
    """
    where = f"--set {_shorten(text)}"
    dotted, equals, value = text.partition("=")
    if not equals:
        raise RecipeError("a value is missing", where=where, hint="write --set path=value, such as sampling.steps=8")
    path = parse_path(dotted.strip(), where)
    node = parse(value, TextSource(where, Path.cwd(), is_argument=True))
    if isinstance(node.value, dict | list) and not value.lstrip().startswith(("{", "[")):
        hint = "put quotes around text with ': ' in it; write mappings as {key: value} and lists as [a, b]"
        raise RecipeError("the value reads as a mapping or a list", where=where, hint=hint)
    return Assignment(path, node)


def assign_all(root: Node, assignments: Sequence[Assignment]) -> Node:
    """`root` with all `assignments` made, in order.

    Raises:
        RecipeError: as `assign`.
    """
    for assignment in assignments:
        root = assign(root, assignment)
    return root


def _shorten(text: str) -> str:
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable if len(printable) <= _LONGEST_SHOWN else printable[: _LONGEST_SHOWN - 1] + "…"
