"""What a pass is: a named rewrite of one graph that says how often it fired, or why it did not.

Matching is onnxscript's. A `Rewrite` is its rule in three methods: `pattern`, `check`, which refuses with a reason, and
`rewrite`. A pass applies one or more of them, or a pass of a library, to a whole graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult, RewriteRule, RewriteRuleClassBase, RewriteRuleSet

OPSET = 23
"""The version of the standard operators that has Attention, RMSNormalization and RotaryEmbedding."""
OLDEST = 18
"""The first one that can be converted to it; what is older is left in its own words."""


class Refusal(NamedTuple):
    """A place that looked right and was left alone: the name of the value computed there, and why."""

    value: str
    reason: str


@dataclass
class PassOutcome:
    """What a pass did to a graph."""

    fired: int = 0
    refusals: list[Refusal] = field(default_factory=list[Refusal])


@dataclass(frozen=True)
class Pass:
    """One step of `fuse`, or of an engine's lowering.

    `after` names the passes that have to come before this one where both are used: the order is data. A pass that is
    not used `by_default` is one that a recipe has to ask for. `opset` is the first version of the standard operators
    that has what the pass puts in.
    """

    name: str
    summary: str
    apply: Callable[[ir.Model], PassOutcome]
    after: tuple[str, ...] = ()
    by_default: bool = True
    opset: int = 0


class Rewrite(RewriteRuleClassBase):
    """A rule of onnxscript's, matched with the operands of commutative operators in any order if it `commutes`.

    The nodes that the pattern matched go, and a value that something else uses as well is no match; unless the rule
    `keeps_shared_nodes`, which then stay for that.
    """

    commutes = False
    keeps_shared_nodes = False

    def __init__(self) -> None:
        # Without a name: onnxscript would write it into every node that it makes.
        super().__init__(name=None, remove_nodes=not self.keeps_shared_nodes)


def rewriting(*rewrites: Callable[[], Rewrite]) -> Callable[[ir.Model], PassOutcome]:
    """The `apply` of a pass that consists of rewrites."""

    def apply(model: ir.Model) -> PassOutcome:
        outcome = PassOutcome()
        present = operators_of(model)
        rules: list[RewriteRule] = []
        for make in rewrites:
            rewrite = make()
            operators = _operators(rewrite)
            if present.issuperset(operators):
                rules += _rules(rewrite, operators[-1], outcome.refusals)
        if rules:
            outcome.fired = RewriteRuleSet(rules).apply_to_model(model)
        outcome.refusals = list(dict.fromkeys(outcome.refusals))
        return outcome

    return apply


class _Rule(RewriteRule):
    """A rule that looks only at nodes of the operator at its root: most nodes are of another."""

    root: str

    def try_rewrite(self, model: ir.Model, graph_or_function: Any, node: ir.Node, **options: Any) -> Any:
        return super().try_rewrite(model, graph_or_function, node, **options) if node.op_type == self.root else None


class _Recorder:
    """Takes the place of the operators in a pattern and notes which ones it asks for, the root last."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __getattr__(self, op_type: str) -> Callable[..., object]:
        return lambda *_, **__: self.found.append(op_type)


def _operators(rewrite: Rewrite) -> list[str]:
    recorder = _Recorder()
    names = [name for name in inspect.signature(rewrite.pattern).parameters if name != "op"]
    rewrite.pattern(recorder, *names)
    return recorder.found


def _rules(rewrite: Rewrite, root: str, refusals: list[Refusal]) -> list[RewriteRule]:
    def check(context: Any, **bindings: Any) -> MatchResult:
        result = rewrite.check(context, **bindings)
        if not result and result.reason:
            refusals.append(Refusal(str(context.root.outputs[0].name), result.reason))
        return result

    rule = RewriteRule(rewrite.pattern, rewrite.rewrite, check, name=None, remove_nodes=not rewrite.keeps_shared_nodes)
    return [_rooted(entry, root) for entry in (rule.commute() if rewrite.commutes else [rule])]


def apply_of_library(rules: Iterable[RewriteRule], model: ir.Model) -> int:
    """Apply rules of onnxscript's own, which would look at every node; how often they fired."""
    present = operators_of(model)
    fitting: list[RewriteRule] = []
    for rule in rules:
        pattern = rule._target_pattern  # pyright: ignore[reportPrivateUsage]
        if present.issuperset(str(node.op) for node in pattern):
            fitting.append(_rooted(rule, str(pattern.output_node.op)))
    return RewriteRuleSet(fitting).apply_to_model(model) if fitting else 0


def operators_of(model: ir.Model) -> set[str]:
    """The operators of a graph, those of its subgraphs included."""
    return {node.op_type for node in model.graph.all_nodes()}


def _rooted(rule: RewriteRule, root: str) -> RewriteRule:
    rooted: Any = copy(rule)
    rooted.__class__, rooted.root = _Rule, root
    return rooted


def accept() -> MatchResult:
    """What `check` returns where nothing speaks against a rewrite."""
    return MatchResult()


def refuse(reason: str) -> MatchResult:
    """What `check` returns where something does."""
    return MatchResult().fail(reason)


def skip() -> MatchResult:
    """What `check` returns where there is nothing to rewrite, which is no news to anybody."""
    return MatchResult().fail()
