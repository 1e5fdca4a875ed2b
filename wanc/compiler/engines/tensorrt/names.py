"""Lowering of names: a product is called after its Linear, and an attention after its module.

TensorRT's build log says of each kernel which nodes it was made of. So a kernel is found by `blocks.0.attn1.to_q`, and
what the log says of it can be compared with what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from wanc.compiler.graphs.attentions import attentions
from wanc.compiler.graphs.linears import linears
from wanc.compiler.graphs.quantized_linears import quantized_linears
from wanc.compiler.passes.rewrite import Pass, PassOutcome


def name_nodes(model: ir.Model) -> PassOutcome:
    """Call products and attentions after the modules that they are of; a second of one name has a number."""
    taken = {str(node.name) for node in model.graph}
    outcome = PassOutcome()
    for node, stem in _named(model):
        if re.fullmatch(rf"{re.escape(stem)}(\.\d+)?", str(node.name)):
            continue
        names = (stem, *(f"{stem}.{count}" for count in range(2, len(taken) + 3)))
        node.name = next(name for name in names if name not in taken)
        taken.add(str(node.name))
        outcome.fired += 1
    return outcome


def _named(model: ir.Model) -> Iterator[tuple[ir.Node, str]]:
    for linear in (*linears(model), *quantized_linears(model)):
        yield linear.product, linear.name
    for attention in attentions(model):
        yield attention.node, attention.name


NAMES = Pass("names", "products and attentions → called after their modules, as the build's log shows them", name_nodes)
