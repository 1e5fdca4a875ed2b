"""The forms of fused operators that OpenVINO has kernels for; what a model asks for in another comes out in parts."""

from __future__ import annotations

import onnx_ir as ir

from wanc.compiler.graphs.values import attribute, rank

LENGTHS, SCORES = 6, 3
"""Which input of Attention says how many keys there are, and which output gives what the softmax is given or gives."""


def has_kernel(node: ir.Node) -> bool:
    """Whether a standard operator, as far as it is a fused one, is in a form that there is a kernel for."""
    form = _FORMS.get(node.op_type)
    return form is None or form(node)


def _attention(node: ir.Node) -> bool:
    has_lengths = len(node.inputs) > LENGTHS and node.inputs[LENGTHS] is not None
    gives_scores = len(node.outputs) > SCORES and bool(node.outputs[SCORES].name)
    return not has_lengths and not gives_scores and not attribute(node, "softcap", 0.0)


def _norm(node: ir.Node) -> bool:
    """The kernel takes the root mean square of the last axis alone."""
    axis, axes = attribute(node, "axis", -1), rank(node.inputs[0])
    return axis == -1 or (axes is not None and axis == axes - 1)


def _rotation(node: ir.Node) -> bool:
    return not attribute(node, "rotary_embedding_dim", 0)


_FORMS = {"Attention": _attention, "RMSNormalization": _norm, "RotaryEmbedding": _rotation}
