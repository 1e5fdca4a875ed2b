"""What the engine stage read back from what it had built: kernels by precision, and how many are fused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wanc.inspection.small_file import read_json
from wanc.runtime.strict_json import Fields


def read_report(path: Path | None) -> Fields | None:
    """The report in a file, if there is one. Raises UserError where it cannot be read, BundleError if it is damaged."""
    return Fields(read_json(path), str(path)) if path else None


def kernels_of(report: Fields | None, component: str, graph: str) -> dict[str, Any]:
    """`kernels`: name → precision → count; `fused`: operator → count; both None where the report has none of a graph.

    Raises BundleError where the report is damaged.
    """
    entry = report
    for name in ("components", component, graph):
        entry = entry.object(name) if entry and name in entry.values else None
    # Reports of earlier versions count nodes in place of kernels.
    if entry is None or "kernels" not in entry.values:
        return {"kernels": None, "fused": None}
    kernels = entry.object("kernels")
    counted = {name: _counts(kernels.object(name)) for name in kernels.values}
    return {"kernels": counted, "fused": _counts(entry.object("fused"))}


def _counts(fields: Fields) -> dict[str, int]:
    return {name: fields.integer(name) for name in fields.values}
