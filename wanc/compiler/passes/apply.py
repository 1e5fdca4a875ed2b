"""Applying passes to a graph: round after round until nothing fires, checked after each one that did something.

A pass that raises has met a graph that it was not made for, and its user can do something about that. One that makes a
graph invalid, or passes that undo each other, are a bug of ours whatever the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import common

from wanc.compiler.graphs.values import OWN_DOMAIN, WRITTEN_OUT
from wanc.compiler.passes.fold import remove_unused, weights_hidden
from wanc.compiler.passes.rewrite import OPSET, Pass, Refusal
from wanc.errors import UserError
from wanc.quiet import only_errors

# A rewrite makes the next one possible. What is long may take a round for every link, as computed shapes do, but then
# the graph gets smaller in each; of other rounds, models have had two in succession.
MOST_ROUNDS_IN_VAIN = 12
# Their notes are on what they do not fold.
LIBRARIES = ("onnxscript", "onnx_ir")
TELL_US = "tell us what graph it is"
OUR_BUG = "This is a bug of wanc: please tell us, with the lines above."


class PassError(Exception):
    """A bug of a pass. It is no UserError, so that it keeps its traceback."""


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


OnFired = Callable[[str], None]
"""Told the name of a pass when it has changed the graph, and no other has yet."""


def ignore(name: str) -> None:
    """Nobody wants to know."""
    del name


def apply_passes(
    model: ir.Model, passes: Iterable[Pass], *, where: str, hint: str = TELL_US, on_fired: OnFired = ignore
) -> list[Applied]:
    """Apply passes in their order to a graph, in place, until none of them fires.

    A graph that ONNX's own checker refuses is left alone, with its words as the refusal. Raises UserError, naming the
    pass and the graph by `where`, when one fails; `hint` says what can be done then, and {name} in it is the pass.
    Raises PassError when one makes the graph invalid, or when they do not come to rest.
    """
    chosen = list(passes)
    applied = {entry.name: Applied(entry.name) for entry in chosen}
    with only_errors(*LIBRARIES):
        if chosen and (fault := _fault(model)):
            for entry in applied.values():
                entry.refusals.append(Refusal(where, f"ONNX's checker refuses the graph: {fault}"))
            return list(applied.values())
        if any(value.shape is None for node in model.graph for value in node.outputs):
            _infer_shapes(model)
        _apply_all(model, chosen, applied, where, hint, on_fired)
    for noted in (model, model.graph, *model.graph.all_nodes()):
        keeps = isinstance(noted, ir.Node) and noted.op_type == "Attention" and WRITTEN_OUT in noted.metadata_props
        noted.metadata_props.clear()
        if keeps:
            noted.metadata_props[WRITTEN_OUT] = ""
    return list(applied.values())


def passes_report(before: int, after: int, applied: Iterable[Applied]) -> dict[str, Any]:
    """What passes did to one graph that had so many nodes, as a stage's report tells it."""
    return {"nodes": {"before": before, "after": after}, "passes": [entry.as_json() for entry in applied]}


def joined_reports(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the same passes did to the pieces of one graph, as if it were in one piece."""
    passes: list[dict[str, Any]] = []
    for of_pass in zip(*(report["passes"] for report in reports), strict=True):
        refused: dict[str, dict[str, Any]] = {}
        for refusal in (refusal for entry in of_pass for refusal in entry["refused"]):
            known = refused.setdefault(refusal["reason"], {**refusal, "times": 0})
            known["times"] += refusal["times"]
        counts = {key: sum(entry[key] for entry in of_pass) for key in ("fired", "nodes")}
        passes.append({"name": of_pass[0]["name"], **counts, "refused": list(refused.values())})
    nodes = {key: sum(report["nodes"][key] for report in reports) for key in ("before", "after")}
    return {"nodes": nodes, "passes": passes}


def count_nodes(model: ir.Model) -> int:
    """All nodes of a model, subgraphs included."""
    return sum(1 for _ in model.graph.all_nodes())


def _apply_all(
    model: ir.Model,
    passes: list[Pass],
    applied: Mapping[str, Applied],
    where: str,
    hint: str,
    on_fired: OnFired,
) -> None:
    changes, seen = 0, dict.fromkeys(applied, -1)
    smallest, in_vain = count_nodes(model), 0
    firing: list[str] = []
    while in_vain < MOST_ROUNDS_IN_VAIN:
        firing = []
        for entry in passes:
            if seen[entry.name] != changes:  # else it has looked at this very graph already
                seen[entry.name] = changes
                if fired := _apply(entry, model, applied[entry.name], where, hint):
                    changes += fired
                    firing.append(entry.name)
                    on_fired(entry.name)
        if not firing:
            return
        size = count_nodes(model)
        smallest, in_vain = (size, 0) if size < smallest else (smallest, in_vain + 1)
    raise PassError(f"on {where} these passes fire again and again: {', '.join(firing)}. {OUR_BUG}")


def _apply(entry: Pass, model: ir.Model, applied: Applied, where: str, hint: str) -> int:
    before = count_nodes(model)
    if reason := _other_opset(entry, model):
        applied.refusals = [Refusal(where, reason)]
        return 0
    try:
        outcome = entry.apply(model)
        remove_unused(model)
    except Exception as error:  # whatever a library raises over a foreign graph
        raise UserError(f"the pass {entry.name} fails on {where}", hint=hint.format(name=entry.name)) from error
    applied.fired += outcome.fired
    applied.nodes += count_nodes(model) - before
    applied.refusals = outcome.refusals
    if outcome.fired:
        _infer_shapes(model)
        if fault := _fault(model) or lingering(model, may_be_carried_out=True):
            raise PassError(f"the pass {entry.name} made {where} invalid: {fault}. {OUR_BUG}")
    return outcome.fired


def _other_opset(entry: Pass, model: ir.Model) -> str | None:
    """Why a pass is not for the version of the standard operators that a graph or one of its functions is in."""
    versions = [scope.opset_imports.get("", OPSET) for scope in (model.graph, *model.functions.values())]
    if min(versions) < entry.opset:
        return f"it takes graphs of opset {entry.opset}, and this one has opset {min(versions)}"
    if entry.last and max(versions) > entry.last:
        return f"it takes graphs up to opset {entry.last}, and this one has opset {max(versions)}"
    return None


def lingering(model: ir.Model, *, may_be_carried_out: bool = False) -> str | None:
    """What is wrong with an operator of wanc's own in a graph, for no engine has one; None where there is none.

    One that `may_be_carried_out`, where the weights are written, stands on a weight of the main graph that nothing
    else uses.
    """
    for node in model.graph.all_nodes():
        if node.domain != OWN_DOMAIN:
            continue
        weight = node.inputs[0]
        is_stored = weight is not None and weight.is_initializer() and not weight.is_graph_output()
        users = [use.node for use in weight.uses()] if weight is not None else []
        alone = node.graph is model.graph and all(user.domain == OWN_DOMAIN for user in users)
        if not (may_be_carried_out and is_stored and alone):
            return f"{OWN_DOMAIN}:{node.op_type} is left, which is carried out on weights alone"
    return None


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
