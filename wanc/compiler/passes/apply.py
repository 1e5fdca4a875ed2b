"""Applying passes to a graph: round after round until nothing fires, checked after each one that did something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from wanc.compiler.passes.fold import remove_unused, weights_hidden
from wanc.compiler.passes.rewrite import OPSET, Pass, Refusal
from wanc.errors import UserError
from wanc.quiet import only_errors

# A rewrite makes the next one possible; the longest chain, from strided writes to merged projections, takes seven.
MOST_ROUNDS = 12
# Their notes are on what they do not fold.
LIBRARIES = ("onnxscript", "onnx_ir")


@dataclass
class Applied:
    """What became of one pass: how often it fired in all rounds, the nodes that came or went by it, and refusals."""

    name: str
    fired: int = 0
    nodes: int = 0
    refusals: list[Refusal] = field(default_factory=list[Refusal])

    def as_json(self) -> dict[str, Any]:
        reasons = Counter(refusal.reason for refusal in self.refusals)
        examples = {refusal.reason: refusal.value for refusal in reversed(self.refusals)}
        refused = [{"reason": reason, "times": times, "example": examples[reason]} for reason, times in reasons.items()]
        return {"name": self.name, "fired": self.fired, "nodes": self.nodes, "refused": refused}


def apply_passes(model: ir.Model, passes: Iterable[Pass], *, where: str) -> list[Applied]:
    """Apply passes in their order to a graph, in place.

    A graph that ONNX's own checker refuses is left alone, with its words as the refusal. Raises UserError, naming
    the pass and the graph by `where`, when one fails: the recipe can leave it out.
    """
    chosen = list(passes)
    applied = {entry.name: Applied(entry.name) for entry in chosen}
    with only_errors(*LIBRARIES):
        if chosen and (fault := _fault(model)):
            for entry in applied.values():
                entry.refusals.append(Refusal(where, f"ONNX's checker refuses the graph: {fault}"))
            return list(applied.values())
        changes, seen = 0, dict.fromkeys(applied, -1)
        for entry in chosen * MOST_ROUNDS:
            if seen[entry.name] != changes:  # else it has looked at this very graph already
                seen[entry.name] = changes
                changes += _apply(entry, model, applied[entry.name], where)
    for noted in (model, model.graph, *model.graph.all_nodes()):
        noted.metadata_props.clear()
    return list(applied.values())


def count_nodes(model: ir.Model) -> int:
    """All nodes of a model, subgraphs included."""
    return sum(1 for _ in model.graph.all_nodes())


def _apply(entry: Pass, model: ir.Model, applied: Applied, where: str) -> int:
    before, opset = count_nodes(model), _opset(model)
    if opset < entry.opset:
        applied.refusals = [Refusal(where, f"it takes graphs of opset {entry.opset}, and this one has opset {opset}")]
        return 0
    leave_out = f"leave it out, and tell us: fuse.skip: [{entry.name}]"
    try:
        outcome = entry.apply(model)
        remove_unused(model)
    except Exception as error:  # whatever a library raises over a foreign graph
        raise UserError(f"the pass {entry.name} fails on {where}", hint=leave_out) from error
    applied.fired += outcome.fired
    applied.nodes += count_nodes(model) - before
    applied.refusals = outcome.refusals
    if outcome.fired:
        _infer_shapes(model)
        if fault := _fault(model):
            raise UserError(f"the pass {entry.name} made {where} invalid: {fault}", hint=leave_out)
    return outcome.fired


def _opset(model: ir.Model) -> int:
    """The oldest version of the standard operators that a graph, or a function of its own, is written in."""
    versions = (scope.opset_imports.get("", OPSET) for scope in (model.graph, *model.functions.values()))
    return min(versions)


def _infer_shapes(model: ir.Model) -> None:
    """Find the shapes of new values. onnx_ir takes a sequence for its tensors, so graphs that have any do without."""
    if not any("Sequence" in node.op_type or "Optional" in node.op_type for node in model.graph.all_nodes()):
        with weights_hidden(model):
            common.ShapeInferencePass()(model)


def _fault(model: ir.Model) -> str | None:
    """What ONNX's checker has against a graph; None if nothing."""
    with weights_hidden(model):
        try:
            common.CheckerPass()(model)
        except Exception as error:  # onnx's ValidationError, or the serializer's over what cannot be written
            return str(error).strip().splitlines()[0]
    return None
