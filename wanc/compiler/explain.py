"""What the fuse stage did to a model, from the report that it left in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wanc.artifacts.store import Store
from wanc.compiler.fuse import REPORT_FILE, Fuse
from wanc.compiler.runner import StageRun, tree_of
from wanc.errors import UserError
from wanc.tables import Table


def explain_fuse(runs: tuple[StageRun, ...], output: Path) -> dict[str, Any]:
    """The report of a build's fuse stage as JSON, from the store in `output`. Raises UserError where it is lost."""
    (run,) = [run for run in runs if run.name == Fuse.name]
    store = Store.existing(output / "store")
    record = store.lookup(str(run.key))
    if record is None:
        raise UserError("the result of the stage fuse is not in the store any more", hint="build again")
    return json.loads(tree_of(record, store).locate()[REPORT_FILE].read_bytes())


def explain_tables(report: dict[str, Any]) -> list[Table]:
    """One table for each graph: passes in their order, how often each fired, or why it did not."""
    found: list[Table] = []
    for component, graphs in report.get("components", {}).items():
        for graph, entry in graphs.items():
            nodes, parts = entry["nodes"], entry["parts"]
            title = f"{component}/{graph}: {nodes['before']} → {nodes['after']} nodes"
            if len(parts) > 1:
                title += f", cut into {', '.join(f'{name} ({count})' for name, count in parts.items())}"
            rows = [row for applied in entry["passes"] for row in _rows(applied)]
            found.append(Table(title, rows, ("pass", "fired", "nodes", "why not")))
    return found


def _rows(applied: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    reasons = [f"{entry['times']} × {entry['reason']} ({entry['example']})" for entry in applied["refused"]]
    if not reasons:
        reasons = [""] if applied["fired"] else ["no match"]
    yield applied["name"], f"{applied['fired']} ×", f"{applied['nodes']:+}", reasons[0]
    for reason in reasons[1:]:
        yield "", "", "", reason
