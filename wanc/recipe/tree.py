"""The tree that a YAML text becomes before it is a recipe: plain values that remember where they were written.

Layers of a recipe (its bases, a variant, `--set`) are merged as trees, so that an error in the merged result still
points at the line that it came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Scalar = str | int | float | bool | None
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class TextSource:
    """What a text was read from: a file, or one argument of the command line."""

    name: str
    folder: Path
    """What relative paths in the text are relative to."""
    is_argument: bool = False
    """An argument has no lines and columns that would help anyone."""

    def at(self, line: int, column: int) -> str:
        """A place in the text; lines and columns count from 1."""
        return self.name if self.is_argument else f"{self.name}:{line}:{column}"


@dataclass(frozen=True)
class Node:
    """A value, where it begins, and where its key begins; without a key, that is the value's own place."""

    value: Scalar | dict[str, Node] | list[Node]
    at: str
    key_at: str
    folder: Path


@dataclass(frozen=True)
class Mark:
    """The places of a value and of its key, and the folder that a path in the value starts from."""

    key: str
    value: str
    folder: Path


@dataclass(frozen=True)
class Marks:
    """Where every key and value of a recipe was written."""

    by_path: Mapping[KeyPath, Mark]
    replaced: frozenset[KeyPath] = frozenset()
    """The sections that a variant or `--set` gives as a whole, in place of what stood there."""

    def mark(self, path: KeyPath) -> Mark:
        """The mark of `path` or, where the text does not have it (a default), of what encloses it."""
        while path and path not in self.by_path:
            path = path[:-1]
        return self.by_path[path]

    def where(self, dotted: str) -> str:
        """The place of a value: `marks.where("shapes.0.height")` is `file:line:column`, or the `--set` that gave it."""
        return self.mark(_path(dotted)).value

    def folder(self, dotted: str) -> Path:
        """The folder that a relative path in a value starts from."""
        return self.mark(_path(dotted)).folder


def _path(dotted: str) -> KeyPath:
    return tuple(int(key) if key.isdecimal() else key for key in dotted.split("."))


def plain(node: Node) -> object:
    """The bare data: dicts, tuples and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return tuple(plain(child) for child in node.value)
    return node.value


def marks_of(root: Node, replaced: Iterable[KeyPath] = ()) -> Marks:
    """The marks of every node under `root`, and of `root` itself under the empty path."""
    by_path = {path: Mark(node.key_at, node.at, node.folder) for path, node in _walk(root, ())}
    return Marks(by_path, frozenset(replaced))


def _walk(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, Node]]:
    yield path, node
    children = node.value.items() if isinstance(node.value, dict) else ()
    items = enumerate(node.value) if isinstance(node.value, list) else ()
    for key, child in (*children, *items):
        yield from _walk(child, (*path, key))
