"""What engines that were built need in activations, as their report has it from the build's log."""

from __future__ import annotations

from wanc.errors import UserError
from wanc.runtime.strict_json import Fields

NEEDED = "activation_bytes"


def built_activations(report: Fields) -> dict[str, int]:
    """The most that a graph of each component needs, in bytes, of an `engine_report.json`.

    Raises BundleError where the report is damaged, UserError where it says nothing of memory.
    """
    components = report.object("components")
    found: dict[str, int] = {}
    for name in components.values:
        graphs = [components.object(name).object(graph) for graph in components.object(name).values]
        needed = [graph.integer(NEEDED) for graph in graphs if NEEDED in graph.values]
        if needed:
            found[name] = max(needed)
    if not found:
        raise UserError(
            f"{report.values.get('engine')}'s report says nothing of memory",
            hint="name a bundle whose engines are for GPUs: their build logs say what they need",
        )
    return found
