"""The rows as a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

GIB = 2**30
HEAD = (
    "row", "segments", "seconds (CPU)", "load", "peak of a builder, GiB", "engines, GiB", "activation, GiB", "Linears",
    "fused attentions",
)  # fmt: skip


def table(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    rows, where = report["rows"], report["machine"]
    built = [(name, row) for name, row in rows.items() if "segments" in row]
    hosted = [(name, row) for name, row in rows.items() if "sqnr_db" in row]
    versions = ", ".join(f"{tool} {version}" for tool, version in where["tools"].items())
    return "\n\n".join(
        [
            "# What is built of Wan2.2-T2V-A14B",
            _lines(HEAD, (_built(name, row) for name, row in built)),
            "Graphs of the rows with one segment:",
            _lines(
                ("row", "graph", "seconds (CPU)", "peak, GiB", "engine, MiB", "activation, MiB", "kernels"),
                (
                    _graph(name, graph, figures)
                    for name, row in built
                    if len(row["segments"]) == 1
                    for graph, figures in row["segments"][0]["graphs"].items()
                ),
            ),
            "Segments within `engine.max_build_memory`:",
            _lines(
                ("row", "allowed, GiB", "blocks", "predicted, GiB", "measured, GiB"),
                (_within(name, row, one) for name, row in built if "allowed_bytes" in row for one in row["segments"]),
            ),
            "Lowered graphs executed by the host at a small size, against the canonical ones in float32:",
            _lines(
                ("row", "sizes", "seconds (CPU)", "peak, GiB", "dB, graph by graph"),
                (
                    (name, _pairs(row["sizes"]), _seconds(row), _gib(row["peak_rss_bytes"]), _pairs(row["sqnr_db"]))
                    for name, row in hosted
                ),
            ),
            "Made by `python bench/engines.py`, for SM89, with distinct random weights and, in INT8, drawn codes. The "
            "peak is that of the largest process of a compile action, builders included; load is the machine's over a "
            f"minute, and what is above its cores waited. {where['processor']}, {where['cores']} cores; {versions}.",
            "",
        ]
    )


def _lines(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [tuple(head), *map(tuple, rows)]
    cells.insert(1, ("---",) * len(cells[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _built(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    graphs = [graph for segment in row["segments"] for graph in segment["graphs"].values()]
    linears: Counter[str] = Counter()
    for graph in graphs:
        linears.update({numbers: len(names) for numbers, names in graph["linears"].items()})
    return (
        name,
        str(len(row["segments"])),
        _seconds(row),
        str(row["load"]),
        _gib(row["peak_rss_bytes"]),
        _gib(row["engine_bytes"]),
        _gib(row["activation_bytes"]),
        _pairs(linears),
        str(sum(len(graph["fused"]) for graph in graphs)),
    )


def _graph(name: str, graph: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    kernels = {kind: sum(by_type.values()) for kind, by_type in figures["kernels"].items() if any(by_type)}
    return (
        name,
        graph,
        _seconds(figures),
        _gib(figures["peak_rss_bytes"]),
        f"{figures['engine_bytes'] / 2**20:,.0f}",
        f"{figures['activation_bytes'] / 2**20:,.0f}",
        _pairs(kernels),
    )


def _within(name: str, row: Mapping[str, Any], segment: Mapping[str, Any]) -> tuple[str, ...]:
    first, stop = segment["blocks"]
    measured, predicted = segment["peak_rss_bytes"], segment["predicted_bytes"]
    return (name, _gib(row["allowed_bytes"]), f"{first}–{stop - 1}", _gib(predicted), _gib(measured))


def _seconds(row: Mapping[str, Any]) -> str:
    return f"{row['seconds']:.0f} ({row['cpu_seconds']:.0f})"


def _gib(count: int) -> str:
    return f"{count / GIB:.2f}"


def _pairs(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{value} {name}" for name, value in found.items())
