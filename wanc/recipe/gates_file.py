"""A file of gates: a YAML mapping of what `evaluate.gates` may hold, for a report whose demands are no recipe's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from wanc.errors import RecipeError
from wanc.recipe.gates import EXAMPLES, gate_hint, unsound
from wanc.recipe.phrases import written
from wanc.recipe.problems import RecipeProblem, as_error
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import Node, TextSource
from wanc.runtime.text_file import Kind, read_text

GATES_FILE = Kind("file of gates", "gates.yaml", "gates are a few lines", RecipeError)
_EXAMPLE = 'write a gate in each line, such as `psnr_db: ">= 30"`'


def read_gates(path: Path) -> Mapping[str, str]:
    """Gate → demand, in the order of the file.

    Raises RecipeError, which tells all faults together, each with its place: the file cannot be read, is no YAML that
    is safe to read, or holds something that is no gate, or none at all.
    """
    root = parse(read_text(path, str(path), GATES_FILE), TextSource(str(path), path.parent))
    if not isinstance(root.value, dict) or not root.value:
        what = "holds no gates" if not root.value and root.value in (None, {}) else "has to be a mapping of gates"
        raise RecipeError(f"the file {what}", where=root.at, hint=_EXAMPLE)
    found = (_problem(name, node) for name, node in root.value.items())
    if problems := [problem for problem in found if problem is not None]:
        raise as_error(problems)
    return {name: cast(str, node.value) for name, node in root.value.items()}


def _problem(name: str, node: Node) -> RecipeProblem | None:
    if (hint := gate_hint(name)) is not None:
        return RecipeProblem(f"{name!r} is no gate", node.key_at, hint)
    if not isinstance(node.value, str):
        kind = "a mapping" if isinstance(node.value, dict) else "a list" if isinstance(node.value, list) else None
        return RecipeProblem(f"{name}: {kind or written(node.value)} is no demand", node.at, EXAMPLES)
    fault = unsound(name, node.value)
    return None if fault is None else RecipeProblem(f"{name}: {fault.message}", node.at, fault.hint)
