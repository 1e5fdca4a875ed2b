"""Which attentions are quantised, and the scales of what they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from wanc.calibration.weights import LARGEST_FP8
from wanc.compiler.graphs.attentions import SIDES, AttentionScales, attentions
from wanc.compiler.quantize.keep_patterns import fits
from wanc.errors import UserError
from wanc.words import AttentionFormat


@dataclass(frozen=True)
class AttentionChoice:
    """`inputs` has the names of queries, keys and values of each attention that is quantised, by its own name; `kept`
    says of the others why they stay in float.
    """

    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    kept: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def values(self) -> list[str]:
        """All that ranges have to be known of, each once."""
        return [*dict.fromkeys(name for names in self.inputs.values() for name in names)]

    def scales(self, peaks: Mapping[str, float]) -> dict[str, AttentionScales]:
        """Of each attention, so that the largest magnitude of what it takes is the largest code.

        Raises UserError where there was nothing but zeros.
        """
        found: dict[str, AttentionScales] = {}
        for name, values in self.inputs.items():
            if still := [side for side, value in zip(SIDES, values, strict=True) if not peaks[value]]:
                raise UserError(
                    f"the {still[0]} of {name} were 0 in all samples: there is nothing to calibrate on",
                    hint=f"calibrate on more samples, or keep it in float: quantize.keep.patterns: [{name}]",
                )
            found[name] = AttentionScales(*(peaks[value] / LARGEST_FP8 for value in values))
        return found


def choose_attentions(
    model: ir.Model, component: str, patterns: Sequence[str], asked: AttentionFormat
) -> AttentionChoice:
    """The attentions of a component's whole graph; those that a keep pattern fits stay in float.

    `asked` is a recipe's.
    """
    inputs: dict[str, tuple[str, ...]] = {}
    kept: dict[str, str] = {}
    found = attentions(model)
    names = Counter(attention.name for attention in found)
    for attention in found:
        pattern = next((pattern for pattern in patterns if fits(pattern, component, attention.name)), None)
        if asked == "float":
            kept[attention.name] = "quantize.attention is float"
        elif pattern is not None:
            kept[attention.name] = f"keep pattern {pattern}"
        elif not attention.is_plain:
            kept[attention.name] = "it has a mask, or does more"
        elif names[attention.name] > 1:
            kept[attention.name] = "its module has several"
        else:
            inputs[attention.name] = tuple(str(value.name) for value in attention.inputs)
    return AttentionChoice(inputs, kept)
