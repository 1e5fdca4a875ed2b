"""Lowering of dropouts that do nothing: OpenVINO's reader takes them out, and with them the name of what they take."""

from __future__ import annotations

import onnx_ir as ir

from wanc.compiler.engines.openvino.functions import OLDEST
from wanc.compiler.passes.draws import draws
from wanc.compiler.passes.rewrite import Pass, PassOutcome


def to_copies(model: ir.Model) -> PassOutcome:
    """Make copies of dropouts outside of training, whose masks nothing takes."""
    drawing, outcome = draws(model), PassOutcome()
    for node in model.graph.all_nodes():
        is_idle = (node.domain, node.op_type) == ("", "Dropout") and node not in drawing
        if not is_idle or any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
            continue
        node.op_type = "Identity"
        node.attributes.clear()
        node.resize_inputs(1)
        node.resize_outputs(1)
        outcome.fired += 1
    return outcome


DROPOUTS = Pass("dropouts", "dropouts outside of training → copies", to_copies, opset=OLDEST)
