"""Padding in front of a convolution → the convolution's own."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter.rules import common

from wanc.compiler.passes.rewrite import OLDEST, Pass, PassOutcome, apply_of_library

# Of the first rule, which finds out how much auto_pad comes to, dilations are not known: it takes them for 1.
PADDING = {
    common.normalize_pad_format_conv_rule: {"Conv": ("auto_pad", "group", "kernel_shape", "strides")},
    common.fuse_pad_into_conv_rule: {
        "Conv": ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"),
        "Pad": ("mode",),
    },
}


def absorb_padding(model: ir.Model) -> PassOutcome:
    """Apply onnxscript's rules; they refuse other padding than zeros on spatial axes."""
    return PassOutcome(apply_of_library(PADDING, model))


PASS = Pass(
    "padding",
    "zeros around the input of a convolution → its own padding",
    absorb_padding,
    after=("tidy",),
    opset=OLDEST,
)
