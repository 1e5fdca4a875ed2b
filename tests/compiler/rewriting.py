"""Other ways to write the same Python: with comments, docstrings, or another layout."""

from __future__ import annotations

import ast
import io
import tokenize

DOCSTRING = '"""Said by a test."""'
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def commented(text: str) -> str:
    """A comment at the top, and at the end of every line that has none, inside of brackets as well."""
    lines = text.splitlines()
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    for before, token in zip([None, *tokens], tokens, strict=False):
        ends_line = token.type in (tokenize.NEWLINE, tokenize.NL)
        if ends_line and token.string and not (before and before.type == tokenize.COMMENT):
            lines[token.start[0] - 1] += "  # said by a test"
    return "\n".join(["# Said by a test.", *lines, ""])


def documented(text: str) -> str:
    """Another docstring for the module, and one for every class and function that has none."""
    lines, tree = text.splitlines(), ast.parse(text)
    bare = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is None]
    places = [node.body[0] for node in bare if node is not tree]
    for first in sorted(places, key=lambda node: node.lineno, reverse=True):
        top = min([first.lineno, *(found.lineno for found in getattr(first, "decorator_list", []))])
        # What follows `def f():` in its line cannot be documented.
        if not lines[top - 1][: first.col_offset].strip():
            lines.insert(top - 1, " " * first.col_offset + DOCSTRING)
    if ast.get_docstring(tree) is not None:
        del lines[tree.body[0].lineno - 1 : tree.body[0].end_lineno]
    return "\n".join([DOCSTRING, *lines, ""])


def reformatted(text: str) -> str:
    """As Python itself would write it: without comments, with other quotes, in other lines."""
    return ast.unparse(ast.parse(text)) + "\n"


def without_docstrings(text: str) -> str:
    """The tree of all the rest, to compare."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
