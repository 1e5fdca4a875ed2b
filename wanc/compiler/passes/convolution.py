"""Padding in front of a convolution → the convolution's own."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter.pattern import RewriteRuleSet
from onnxscript.rewriter.rules import common

from wanc.compiler.passes.rewrite import OLDEST, Pass, PassOutcome


def absorb_padding(model: ir.Model) -> PassOutcome:
    """Apply onnxscript's rules; they refuse other padding than zeros on spatial axes."""
    rules = RewriteRuleSet([common.normalize_pad_format_conv_rule, common.fuse_pad_into_conv_rule])
    return PassOutcome(rules.apply_to_model(model))


PASS = Pass(
    "padding",
    "zeros around the input of a convolution → its own padding",
    absorb_padding,
    after=("tidy",),
    opset=OLDEST,
)
