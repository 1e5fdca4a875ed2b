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


@dataclass(frozen=True)
class Code:
    """What a module does: the SHA-256 of its statements, and those among them that import, at any depth of nesting."""

    digest: bytes
    imports: tuple[Import, ...]


def read_code(text: bytes) -> Code:
    """The code of a module's text. Raises SyntaxError where it is no Python."""
    words: list[str] = []
    imports: list[Import] = []
    _write(ast.parse(text), words, imports)
    return Code(hashlib.sha256("\0".join(words).encode()).digest(), tuple(imports))


def _write(node: object, words: list[str], imports: list[Import]) -> None:
    # Unlike ast.dump, this writes the same in every version of Python: new fields are empty where nobody uses them.
    if isinstance(node, ast.AST):
        if isinstance(node, Import):
            imports.append(node)
        words.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                value = list(_effective(cast(list[object], value)))
            if value is not None and value != []:
                words.append(field)
                _write(value, words, imports)
        words.append(")")
    elif isinstance(node, list):
        for item in cast(list[object], node):
            _write(item, words, imports)
        words.append("]")
    else:
        words.append(repr(node))


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
