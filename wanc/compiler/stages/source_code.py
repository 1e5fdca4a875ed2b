"""What the text of a module does, as against how it is written.

Comments, formatting and docstrings do nothing, nor does what stands under `if TYPE_CHECKING`. Annotations stay: a
dataclass reads them, and so does pydantic.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

Import = ast.Import | ast.ImportFrom
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Code:
    """What a module does: the SHA-256 of its statements, and those among them that import.

    `imports` happen when the module is imported, `deferred` ones when a function of it is called.
    """

    digest: bytes
    imports: tuple[Import, ...]
    deferred: tuple[Import, ...]


def read_code(text: bytes) -> Code:
    """The code of a module's text. Raises SyntaxError where it is no Python."""
    reader = _Reader()
    reader.read(ast.parse(text))
    digest = hashlib.sha256("\0".join(reader.words).encode()).digest()
    return Code(digest, tuple(reader.imports), tuple(reader.deferred))


class _Reader:
    """Unlike ast.dump, it says the same in every version of Python: new fields are empty where nobody uses them."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.imports: list[Import] = []
        self.deferred: list[Import] = []
        self._functions = 0

    def read(self, node: object) -> None:
        if not isinstance(node, ast.AST):
            self.words.append(repr(node))
            return
        if isinstance(node, Import):
            (self.deferred if self._functions else self.imports).append(node)
        is_function = isinstance(node, FUNCTIONS)
        self._functions += is_function
        self.words.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                self._read_all(field, cast(list[object], value))
            # Whether a name is read or written follows from where it stands.
            elif value is not None and field != "ctx":
                self.words.append(field)
                self.read(value)
        self.words.append(")")
        self._functions -= is_function

    def _read_all(self, field: str, items: list[object]) -> None:
        if effective := list(_effective(items)):
            self.words.append(field)
            for item in effective:
                self.read(item)


def _effective(items: list[object]) -> Iterator[object]:
    """The statements of a block that do something; the items of any other list."""
    for item in items:
        if isinstance(item, ast.If) and _asks_for_type_checking(item.test):
            yield from _effective([*item.orelse])
        elif not _does_nothing(item):
            yield item


def _asks_for_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _does_nothing(item: object) -> bool:
    # A docstring, of whatever it is one, or an ellipsis.
    is_text = isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)
    return is_text or isinstance(item, ast.Pass)
