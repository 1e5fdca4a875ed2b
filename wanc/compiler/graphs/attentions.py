"""The attentions of a canonical graph, each known by its module: `blocks.3.attn1`.

One that is quantised takes queries, keys and values that pass a QuantizeLinear and a DequantizeLinear in front of it,
each with one scale. Its probabilities are rounded as well, in steps of `PROBABILITY_STEP`, inside of what engines make
of it: they are at most 1 whatever the samples were, and in the graph they have no place of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from wanc.calibration.weights import LARGEST_FP8
from wanc.compiler.graphs.quantized_linears import FORMATS
from wanc.compiler.graphs.quantizers import round_input
from wanc.compiler.graphs.values import attention_heads, constant, producer

PARAMETER = re.compile(r"(\.weight(\.(codes|scales))?|\.bias|\.input\.(scale|zero))$")
"""What a parameter's name ends with behind its module's, codes and what rounds included."""
PROBABILITY_STEP = 1 / LARGEST_FP8
SIDES = ("queries", "keys", "values")


class AttentionScales(NamedTuple):
    """What a code of 1 stands for in what an attention takes."""

    queries: float
    keys: float
    values: float


@dataclass(frozen=True)
class NamedAttention:
    """`node` is an Attention, `name` the module that it is of."""

    name: str
    node: ir.Node

    @property
    def is_plain(self) -> bool:
        """Whether it has no mask and nothing else besides, on [batch, tokens, heads · size]."""
        return attention_heads(self.node) > 0

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Queries, keys and values before they are rounded, if they are."""
        return tuple(_unrounded(value) for value in self.node.inputs[:3] if value is not None)

    @property
    def numbers(self) -> str:
        """The format that all three are rounded to, such as `fp8`; `float` where one of them is not."""
        pairs = [pair for pair in map(rounding_of, self.node.inputs[:3]) if pair is not None]
        dtypes = {pair.quantize.outputs[0].dtype for pair in pairs}
        found = {FORMATS.get(dtype, "float") for dtype in dtypes if dtype is not None}
        return found.pop() if len(pairs) == len(SIDES) and len(found) == 1 else "float"

    @property
    def scales(self) -> AttentionScales | None:
        """Those that it is rounded to FP8 with; None where it is not, or to other codes."""
        if self.numbers != "fp8":
            return None
        pairs = map(rounding_of, self.node.inputs[:3])
        return AttentionScales(*(pair.scale for pair in pairs if pair is not None))


class Rounding(NamedTuple):
    """What rounds a value to codes of one scale, and back."""

    quantize: ir.Node
    dequantize: ir.Node
    scale: float


def rounding_of(value: ir.Value | None) -> Rounding | None:
    """The pair that gives a value; None where it is not rounded, or otherwise than by one scale that is known."""
    dequantize = producer(value, "DequantizeLinear")
    quantize = producer(dequantize.inputs[0], "QuantizeLinear") if dequantize else None
    scale = constant(quantize.inputs[1]) if quantize else None
    if dequantize is None or quantize is None or scale is None or scale.size != 1:
        return None
    if list(quantize.inputs[1:]) != list(dequantize.inputs[1:]):
        return None
    return Rounding(quantize, dequantize, float(scale))


def attentions(model: ir.Model) -> list[NamedAttention]:
    """All of the main graph whose queries come from a module's parameters, in its order."""
    found = ((node, _module_behind(node.inputs[0])) for node in model.graph if _is_attention(node))
    return [NamedAttention(name, node) for node, name in found if name is not None]


def round_attentions(model: ir.Model, scales: Mapping[str, AttentionScales]) -> int:
    """Round what attentions take to FP8, by their names, in place. Returns how many that were.

    Raises KeyError where a name is that of no attention: a decision that is not carried out must not pass unnoticed.
    """
    found = {attention.name: attention for attention in attentions(model)}
    for name, steps in scales.items():
        attention = found[name]
        for index, (side, value) in enumerate(zip(SIDES, attention.inputs, strict=True)):
            rounded = round_input(attention.node, value, f"{name}.{side}", "fp8", steps[index])
            attention.node.replace_input_with(index, rounded)
    return len(scales)


def _is_attention(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == ("", "Attention")


def _unrounded(value: ir.Value) -> ir.Value:
    pair = rounding_of(value)
    taken = pair.quantize.inputs[0] if pair else value
    assert taken is not None
    return taken


def _module_behind(queries: ir.Value | None) -> str | None:
    """What the nearest parameter among the queries' ancestors is part of: `blocks.0.attn1` of `….attn1.norm_q`."""
    waiting = [_unrounded(queries)] if queries is not None else []
    seen = set(waiting)
    while waiting:
        value = waiting.pop(0)
        if "." in str(value.name) and value.is_initializer():
            layer = PARAMETER.sub("", str(value.name))
            return layer.rpartition(".")[0] or layer
        node = value.producer()
        for source in reversed(node.inputs) if node else ():  # parameters stand behind what they are applied to
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return None
