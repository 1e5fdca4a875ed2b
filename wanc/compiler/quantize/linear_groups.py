"""Which Linears are quantised, and which of them share an input: q, k and v of one attention, say.

What one input's Linears share is decided once for all of them: its step, and how it is smoothed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from wanc.compiler.graphs.convolutions import convolutions
from wanc.compiler.graphs.folds import Fold, find_fold
from wanc.compiler.graphs.linears import Linear, linears
from wanc.compiler.quantize.keep_patterns import fits


@dataclass(frozen=True)
class LinearGroup:
    """Linears of one input, the activation `name`; `fold` is where its channels can be divided, if they can be.

    `linears` are all that use the input; those in `quantized`, by name, are to be quantised.
    """

    name: str
    linears: tuple[Linear, ...]
    quantized: frozenset[str]
    fold: Fold | None

    @property
    def channels(self) -> int:
        return self.linears[0].widths[1]


@dataclass(frozen=True)
class Choice:
    """The groups of a component, why Linears stay in float that do, by name, and all Linears as the graph has them."""

    groups: tuple[LinearGroup, ...]
    kept: Mapping[str, str]
    linears: tuple[Linear, ...]


def choose(model: ir.Model, component: str, patterns: Sequence[str]) -> Choice:
    """Group the Linears of a component's whole graph; those that a keep pattern fits stay in float."""
    found = linears(model)
    products = Counter(linear.name for linear in found)
    kept = {linear.name: reason for linear in found if (reason := _reason(component, linear, patterns, products))}
    by_input: dict[ir.Value, list[Linear]] = {}
    for linear in found:
        by_input.setdefault(linear.input, []).append(linear)
    groups = [_group(activation, members, kept, products) for activation, members in by_input.items()]
    return Choice(tuple(groups), kept, tuple(found))


def choose_convolutions(models: Iterable[ir.Model], component: str, patterns: Sequence[str]) -> Choice:
    """The convolutions of a component's graphs, each once and by itself; those that a keep pattern fits stay in float.

    Names are those of weights: what two graphs have is one. None is smoothed.
    """
    found = {convolution.name: convolution for model in models for convolution in convolutions(model)}
    reasons = {name: _reason(component, convolution, patterns, Counter()) for name, convolution in found.items()}
    kept = {name: reason for name, reason in reasons.items() if reason}
    groups = [
        LinearGroup(name, (convolution,), frozenset({name} - kept.keys()), None) for name, convolution in found.items()
    ]
    return Choice(tuple(groups), kept, tuple(found.values()))


def _reason(component: str, linear: Linear, patterns: Sequence[str], products: Counter[str]) -> str | None:
    for pattern in patterns:
        if fits(pattern, component, linear.name):
            return f"keep pattern {pattern}"
    return "its weight serves several products" if products[linear.name] > 1 else None


def _group(
    activation: ir.Value, members: Sequence[Linear], kept: Mapping[str, str], products: Counter[str]
) -> LinearGroup:
    users = {use.node for use in activation.uses()}
    names = [linear.name for linear in members]
    # All that use the input have to make up for what it is divided by: no other product may have their weights.
    alone = users == {linear.product for linear in members} and not activation.is_graph_output()
    own = all(products[name] == 1 for name in names)
    fold = find_fold(activation, members[0].widths[1]) if alone and own else None
    return LinearGroup(str(activation.name), tuple(members), frozenset(names) - kept.keys(), fold)
