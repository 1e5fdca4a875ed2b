"""What a stage did to a model, from what it left in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.store import Store
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.fuse import REPORT_FILE, Fuse
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.compiler.program.quant_table import FLOAT, TABLES, QuantTable
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.train import Train
from wanc.compiler.stages.runner import StageRun
from wanc.errors import UserError
from wanc.terminal import TextTable, size_text


@dataclass(frozen=True)
class _Told:
    """What tells of a stage: the files of this name in the results of these stages, read and shown as tables."""

    stages: tuple[str, ...]
    file: str
    read: Callable[[Path], dict[str, Any]]
    tables: Callable[[dict[str, Any]], list[TextTable]]


def explain(stage: str, runs: tuple[StageRun, ...], root: Path) -> dict[str, Any]:
    """What a stage did in a build, as JSON, from the store in `root`. Raises UserError where it is lost.

    For fuse and the engine that is their report. For quantize it is the QuantTables of all components; none where
    nothing was quantised.
    """
    store, told, found = Store.existing(root), _told()[stage], dict[str, Any]()
    for run in runs:
        if run.name in told.stages:
            record = store.lookup(str(run.key))
            if record is None:
                raise UserError(f"the result of the stage {run.name} is not in the store any more", hint="build again")
            for name, blob in sorted(record.files.items()):
                if Path(name).match(told.file):
                    found |= told.read(store.path(blob))
    return found


def explain_tables(stage: str, report: dict[str, Any]) -> list[TextTable]:
    """What `explain` gave, for people."""
    return _told()[stage].tables(report)


def _told() -> Mapping[str, _Told]:
    return {
        Fuse.name: _Told((Fuse.name,), REPORT_FILE, _report, _fuse_tables),
        # What training leaves is what is built.
        Quantize.name: _Told((Quantize.name, Train.name), f"{TABLES}/*", _quant_table, _quantize_tables),
        Assemble.name: _Told((Assemble.name,), ENGINE_REPORT, _report, _engine_tables),
    }


def _report(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def _quant_table(path: Path) -> dict[str, Any]:
    table = QuantTable.read(path)
    return {table.component: table.as_json()}


def _fuse_tables(report: dict[str, Any]) -> list[TextTable]:
    return [_passes(where, entry) for where, entry in _graphs(report)]


def _quantize_tables(report: dict[str, Any]) -> list[TextTable]:
    return [shown for table in report.values() for shown in (_linears(table), *_attentions(table))]


def _engine_tables(report: dict[str, Any]) -> list[TextTable]:
    tables: list[TextTable] = []
    for where, entry in _graphs(report):
        tables.append(_passes(where, entry))
        if "kernels" in entry:  # what is built on its target has none yet
            tables.append(_kernels(where, entry))
    return tables


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


def _attentions(table: dict[str, Any]) -> list[TextTable]:
    """One row for each attention; none where a table has no attentions that are rounded."""
    entries = table["attentions"]
    rounded = [name for name, entry in entries.items() if entry["scheme"] != FLOAT]
    if not rounded:
        return []
    scales = ("query_scale", "key_scale", "value_scale", "probability_scale")
    rows = [
        (
            name,
            entry["scheme"],
            *("" if entry[scale] is None else f"{entry[scale]:.3g}" for scale in scales),
            entry["reason"],
        )
        for name, entry in sorted(entries.items(), key=lambda item: _natural(item[0]))
    ]
    title = f"{table['component']}: {len(rounded)} of {len(entries)} attentions quantised"
    return [TextTable(title, rows, ("attention", "scheme", "queries", "keys", "values", "probabilities", "why"))]


def _natural(name: str) -> list[tuple[int, str]]:
    """`blocks.2` before `blocks.10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _graphs(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for component, graphs in report.get("components", {}).items():
        for graph, entry in graphs.items():
            yield f"{component}/{graph}", entry


def _passes(where: str, entry: dict[str, Any]) -> TextTable:
    """Passes in their order, how often each fired, or why it did not."""
    nodes = entry["nodes"]
    rows = [row for applied in entry["passes"] for row in _rows(applied)]
    return TextTable(
        f"{where}: {nodes['before']} → {nodes['after']} nodes", rows, ("pass", "fired", "nodes", "why not")
    )


def _rows(applied: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    reasons = [f"{entry['times']} × {entry['reason']} ({entry['example']})" for entry in applied["refused"]]
    if not reasons:
        reasons = [""] if applied["fired"] or applied["nodes"] else ["no match"]
    yield applied["name"], f"{applied['fired']} ×", f"{applied['nodes']:+}", reasons[0]
    for reason in reasons[1:]:
        yield "", "", "", reason


def _kernels(where: str, entry: dict[str, Any]) -> TextTable:
    """What the engine built, by the engine's own names: how many of each kernel, and in which precision."""
    rows = [
        (kernel, str(count), precision)
        for kernel, counts in entry["kernels"].items()
        for precision, count in counts.items()
    ]
    fused = ", ".join(f"{count} {operator}" for operator, count in entry["fused"].items())
    shares = f"{entry['int8_linear_share']:.1%} of Linears, {entry['int8_total_share']:.1%} of all products"
    if convolutions := entry.get("int8_convolution_share"):
        shares += f", {convolutions:.1%} of convolutions"
    title = (
        f"{where}: {sum(int(count) for _, count, _ in rows)} kernels, fused {fused or 'none'}; INT8 in {shares};"
        f" {size_text(entry['bytes'])}"
    )
    return TextTable(title, rows, ("kernel", "built", "precision"))
