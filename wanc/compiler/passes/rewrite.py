"""What a pass is: a named rewrite of one graph that says how often it fired, or why it did not.

Matching is onnxscript's. A `Rewrite` is its rule in three methods: `pattern`, `check`, which refuses with a reason, and
`rewrite`. A pass applies one or more of them, or a pass of a library, to a whole graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult, RewriteRule, RewriteRuleClassBase, RewriteRuleSet

from wanc.compiler.graphs.values import unread_attribute

OPSET = 23
"""The version of the standard operators that has Attention, RMSNormalization and RotaryEmbedding."""
OLDEST = 18
"""The first one that can be converted to it; what is older is left in its own words."""
ANY = 1
"""What a pass says that puts in no operator of its own."""


Reads = Mapping[str, tuple[str, ...]]
"""The attributes that a rule looks at or hands on, by operator."""
NOTHING: Reads = {}
HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
FLOATS = (ir.DataType.FLOAT, *HALVES)
"""What fused operators are made in: float64 has fewer kernels, and is somebody's wish to have it exactly."""


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
    last: int = 0


class Rewrite(RewriteRuleClassBase):
    """A rule of onnxscript's, matched with the operands of commutative operators in any order if it `commutes`.

    The nodes that the pattern matched go, and a value that something else uses as well is no match; unless the rule
    `keeps_shared_nodes`, which then stay for that.

    What a node says in an attribute of which its rule knows nothing would be lost with it. So a rule `reads`
    attributes, by operator, beside those that its pattern names: it looks at them or hands them on. A node with
    another one, unless that is the operator's default, is refused whatever `check` says. So is a result in other
    numbers than `dtypes`, where the rule puts in what engines have kernels for in these alone.
    """

    commutes = False
    keeps_shared_nodes = False
    reads: ClassVar[Reads] = NOTHING
    dtypes: ClassVar[tuple[ir.DataType, ...]] = ()

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
        if result:
            result = _read_wholly(context, rewrite.reads)
        if result and rewrite.dtypes and context.root.outputs[0].dtype not in rewrite.dtypes:
            names = ", ".join(dtype.name.lower() for dtype in rewrite.dtypes)
            result = refuse(f"its numbers are not known to be {names}")
        if not result and result.reason:
            refusals.append(Refusal(str(context.root.outputs[0].name), result.reason))
        return result

    rule = RewriteRule(rewrite.pattern, rewrite.rewrite, check, name=None, remove_nodes=not rewrite.keeps_shared_nodes)
    return [_rooted(entry, root) for entry in (rule.commute() if rewrite.commutes else [rule])]


def _read_wholly(context: Any, reads: Reads) -> MatchResult:
    """Refuses a match of which a node has an attribute that neither its pattern nor `reads` names."""
    for pattern, node in context._match_result.node_bindings.items():
        if name := unread_attribute(node, (*pattern.attributes, *reads.get(node.op_type, ()))):
            return refuse(f"{node.op_type} has the attribute {name}, which this rewrite knows nothing of")
    return accept()


def apply_of_library(rules: Mapping[RewriteRule, Reads], model: ir.Model, also: Check | None = None) -> int:
    """Apply rules of onnxscript's own, which would look at every node; how often they fired.

    They are held to the same: what a rule `reads` is given with it. `also` is one more check, of the match's context.
    """
    present = operators_of(model)
    fitting: list[RewriteRule] = []
    for rule, reads in rules.items():
        pattern = rule._target_pattern  # pyright: ignore[reportPrivateUsage]
        if present.issuperset(str(node.op) for node in pattern):
            rooted = _rooted(rule, str(pattern.output_node.op))
            rooted._condition_function = _held(rule, reads, also)  # pyright: ignore[reportPrivateUsage]
            fitting.append(rooted)
    return RewriteRuleSet(fitting).apply_to_model(model) if fitting else 0


Check = Callable[[Any], MatchResult]


def _held(rule: RewriteRule, reads: Reads, also: Check | None) -> Callable[..., Any]:
    condition = rule._condition_function  # pyright: ignore[reportPrivateUsage]

    def check(context: Any, **bindings: Any) -> Any:
        result = condition(context, **bindings)
        if result:
            result = _read_wholly(context, reads)
        return also(context) if result and also else result

    return check


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
