"""Lowering of functions that a model brings along, which OpenVINO does not read: their nodes in the place of calls."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from wanc.compiler.passes.rewrite import Pass, PassOutcome

OLDEST = 7
"""The opset from which on wanc takes models: nothing newer is put in."""


def inline(model: ir.Model) -> PassOutcome:
    """Put the nodes of each function where it is called, and leave no function."""
    called = sum(node.op_identifier() in model.functions for node in model.graph.all_nodes())
    if model.functions:
        InlinePass()(model)
    return PassOutcome(called)


FUNCTIONS = Pass("functions", "calls of a model's own functions → their nodes", inline, opset=OLDEST)
