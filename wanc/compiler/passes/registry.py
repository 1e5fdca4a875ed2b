"""The passes of `fuse`: one rewrite of a graph per file, in an order that is data."""

from __future__ import annotations

from wanc.compiler.passes import (
    activations,
    attention,
    convolution,
    fold,
    linear,
    merge_projections,
    modulate,
    norms,
    opset,
    rope,
    tidy,
)
from wanc.compiler.passes.order import ordered
from wanc.compiler.passes.rewrite import Pass


def all_passes() -> tuple[Pass, ...]:
    """Every pass, each after those that it names."""
    return ordered(
        (
            fold.DEAD,
            opset.PASS,
            fold.FOLD,
            fold.SHARE,
            tidy.PASS,
            rope.WRITES,
            rope.PASS,
            norms.PASS,
            activations.PASS,
            linear.PASS,
            convolution.PASS,
            attention.PASS,
            attention.HEADS,
            modulate.PASS,
            merge_projections.PASS,
        )
    )
