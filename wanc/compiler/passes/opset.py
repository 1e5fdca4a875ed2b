"""The opset: older graphs are brought to the one that has Attention, RMSNormalization and RotaryEmbedding."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.version_converter import convert_version
from onnxscript.version_converter._version_converter import VersionConverterError

from wanc.compiler.graphs.values import size
from wanc.compiler.passes.fold import weights_hidden
from wanc.compiler.passes.rewrite import ANY, OLDEST, OPSET, Pass, PassOutcome, Refusal

# From here on GroupNormalization has a scale for each channel, where it had one for each group.
CHANNEL_SCALES = 21
# onnxruntime has kernels for their versions up to this one alone.
LAST_WITH_KERNELS = 21
WITHOUT_KERNELS = (
    "Bernoulli", "GlobalLpPool", "MaxRoiPool", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike", "RoiAlign",
)  # fmt: skip
# The first IR version that knows the opset.
IR_VERSION = 11


def convert(model: ir.Model) -> PassOutcome:
    """Convert a graph, or leave it as it is and say why."""
    version = model.graph.opset_imports.get("", OPSET)
    if version >= OPSET:
        return PassOutcome()
    if reason := _obstacle(model, version):
        return PassOutcome(refusals=[Refusal(str(model.graph.name), reason)])
    with weights_hidden(model):
        try:
            # In place, and half done where it fails: first a copy has to show that it can be.
            convert_version(model.clone(), OPSET)
        except VersionConverterError as error:
            return PassOutcome(refusals=[Refusal(str(model.graph.name), str(error))])
        convert_version(model, OPSET)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return PassOutcome(1)


def _obstacle(model: ir.Model, version: int) -> str | None:
    if version < OLDEST:
        return f"opset {version} is older than {OLDEST}, the first that can be converted"
    if model.functions:
        return "it has functions of its own"
    for node in model.graph:
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            return f"the node {node.name or node.outputs[0].name} ({node.op_type}) holds a graph"
        if not node.domain and node.op_type in WITHOUT_KERNELS and version <= LAST_WITH_KERNELS:
            return f"the node {node.name or node.outputs[0].name} ({node.op_type}) can only be executed in old opsets"
        # The converter leaves it as it is then, where another opset means another thing by it.
        sizes = [size(value, axis) for value, axis in zip(node.inputs, (1, 0, 0), strict=False)]
        if (node.domain, node.op_type) == ("", "GroupNormalization") and version < CHANNEL_SCALES and None in sizes:
            return f"the node {node.name or node.outputs[0].name} ({node.op_type}) has an unknown number of channels"
    return None


PASS = Pass("opset", f"bring graphs of opsets {OLDEST} to {OPSET - 1} to {OPSET}", convert, opset=ANY)
