"""The house: a folder is a room, and nothing in it leans on what leans on it."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import wanc

ROOT = Path(wanc.__file__).parent
FOLDERS = sorted({path.parent for path in ROOT.rglob("*.py")})
# It is what those see who use wanc from Python.
DOOR = ROOT / "__init__.py"


def name_of(folder: Path) -> str:
    return ".".join(folder.relative_to(ROOT.parent).parts)


@pytest.fixture(scope="module", params=[True, False], ids=["at run time", "with types"])
def imports(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """Who imports whom, as pairs; imports that only serve types are left out, or are there as well.

    Files of one room may know each other's types, rooms may not.
    """
    graph = grimp.build_graph("wanc", exclude_type_checking_imports=request.param, cache_dir=None)
    pairs = [(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)]
    return [pair for pair in pairs if request.param or len({name.rpartition(".")[0] for name in pair}) == 2]


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_what_lies_side_by_side_does_not_import_in_a_circle(folder: Path, imports: list[tuple[str, str]]) -> None:
    inside = f"{name_of(folder)}."
    graph: dict[str, set[str]] = defaultdict(set)
    for one, other in imports:
        if one.startswith(inside) and other.startswith(inside):
            importing, imported = (name.removeprefix(inside).partition(".")[0] for name in (one, other))
            graph[importing] |= {imported} - {importing}
    # Raises CycleError, which names the circle.
    TopologicalSorter(graph).prepare()


def test_importing_a_file_does_not_run_its_room() -> None:
    """Else a stage that needs one file of a room would depend on all of them."""
    assert [path for path in ROOT.rglob("__init__.py") if path.stat().st_size and path != DOOR] == []


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
