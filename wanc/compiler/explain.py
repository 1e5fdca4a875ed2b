"""What a stage did to a model, from what it left in the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wanc.artifacts.store import Store
from wanc.compiler.fuse import REPORT_FILE, Fuse
from wanc.compiler.program.quant_table import FLOAT, TABLES, QuantTable
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.train import Train
from wanc.compiler.stages.runner import StageRun, tree_of
from wanc.compiler.stages.stage import Files
from wanc.errors import UserError
from wanc.terminal import TextTable


def explain(stage: str, runs: tuple[StageRun, ...], output: Path) -> dict[str, Any]:
    """What `fuse` or `quantize` did in a build, as JSON, from the store in `output`. Raises UserError where it is lost.

    For quantize that are the QuantTables of all components; none where nothing was quantised.
    """
    store, found = Store.existing(output / "store"), dict[str, Any]()
    for run in runs:
        if run.name in STAGES[stage]:
            record = store.lookup(str(run.key))
            if record is None:
                raise UserError(f"the result of the stage {run.name} is not in the store any more", hint="build again")
            found |= REPORTS[stage](tree_of(record, store).locate())
    return found


def _fuse_report(files: Files) -> dict[str, Any]:
    return json.loads(files[REPORT_FILE].read_bytes())


def _quant_tables(files: Files) -> dict[str, Any]:
    paths = [path for name, path in files.items() if Path(name).parent.name == TABLES]
    tables = [QuantTable.read(path) for path in paths]
    return {table.component: table.as_json() for table in tables}


STAGES = {Fuse.name: (Fuse.name,), Quantize.name: (Quantize.name, Train.name)}
"""Whose results tell of a stage: what training leaves is what is built."""
REPORTS = {Fuse.name: _fuse_report, Quantize.name: _quant_tables}


def explain_tables(stage: str, report: dict[str, Any]) -> list[TextTable]:
    """What `explain` gave, for people."""
    return _pass_tables(report) if stage == Fuse.name else [_linears(table) for table in report.values()]


def _linears(table: dict[str, Any]) -> TextTable:
    """One row for each Linear."""
    linears = table["linears"]
    quantized = [entry for entry in linears.values() if entry["scheme"] != FLOAT]
    share = sum(entry["flops_share"] for entry in quantized)
    title = (
        f"{table['component']}: {len(quantized)} of {len(linears)} Linears quantised, {share:.1%} of their FLOPs; "
        f"{table['method']}, {table['samples']} samples"
    )
    rows = [
        (
            name,
            entry["scheme"],
            f"{entry['flops_share']:.1%}",
            "" if entry["position"] is None else f"{entry['position']:.2f}",
            "" if entry["sqnr_db"] is None else f"{entry['sqnr_db']:.1f}",
            "" if entry["alpha"] is None else f"{entry['alpha']:g}",
            "" if entry["effect"] is None else f"{entry['effect']:.1e}",
            entry["reason"],
        )
        for name, entry in sorted(linears.items(), key=lambda item: _natural(item[0]))
    ]
    return TextTable(title, rows, ("Linear", "scheme", "of FLOPs", "depth", "SQNR, dB", "alpha", "effect", "why"))


def _natural(name: str) -> list[tuple[int, str]]:
    """`blocks.2` before `blocks.10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _pass_tables(report: dict[str, Any]) -> list[TextTable]:
    """One table for each graph: passes in their order, how often each fired, or why it did not."""
    found: list[TextTable] = []
    for component, graphs in report.get("components", {}).items():
        for graph, entry in graphs.items():
            nodes, parts = entry["nodes"], entry["parts"]
            title = f"{component}/{graph}: {nodes['before']} → {nodes['after']} nodes"
            if len(parts) > 1:
                title += f", cut into {', '.join(f'{name} ({count})' for name, count in parts.items())}"
            rows = [row for applied in entry["passes"] for row in _rows(applied)]
            found.append(TextTable(title, rows, ("pass", "fired", "nodes", "why not")))
    return found


def _rows(applied: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    reasons = [f"{entry['times']} × {entry['reason']} ({entry['example']})" for entry in applied["refused"]]
    if not reasons:
        reasons = [""] if applied["fired"] else ["no match"]
    yield applied["name"], f"{applied['fired']} ×", f"{applied['nodes']:+}", reasons[0]
    for reason in reasons[1:]:
        yield "", "", "", reason
