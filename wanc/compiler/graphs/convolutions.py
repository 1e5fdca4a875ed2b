"""The convolutions of a canonical graph whose weight lies in the checkpoint: Linears of the patches under a window.

A patch is what lies under the window at one place, [channels, *kernel] in a row; zeros stand where it reaches beyond
the edge. Weights are [out, channels, *kernel] as stored, so that each row of them is a patch's as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.linears import SUFFIX, Linear, linears, stored_weight
from wanc.compiler.graphs.values import attribute

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PatchLinear(Linear):
    """A Linear of patches; its `input` is what the window moves over, [batch, channels, *sizes]."""

    @property
    def kernel(self) -> tuple[int, ...]:
        """The sizes of the window."""
        assert self.weight.shape is not None
        return tuple(int(size) for size in self.weight.shape.numpy()[2:])

    @property
    def widths(self) -> tuple[int, int]:
        """Of the result's channels and of a patch."""
        assert self.weight.shape is not None
        out, channels, *kernel = self.weight.shape.numpy()
        return out, channels * prod(kernel)

    @property
    def is_turned(self) -> bool:
        return False

    def places(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How often the window stands along each axis of an input of these sizes."""
        before, behind = self._pads
        padded = (sum(each) for each in zip(before, sizes, behind, strict=True))
        reaches = (step * (length - 1) + 1 for step, length in zip(self._dilations, self.kernel, strict=True))
        steps = zip(padded, reaches, self._strides, strict=True)
        return tuple((size - reach) // stride + 1 for size, reach, stride in steps)

    def patch(self, values: Array, place: Sequence[int]) -> Array:
        """What lies under the window at a place of one picture [channels, *sizes], [channels * prod(kernel)]."""
        axes = zip(place, self._strides, self._pads[0], self._dilations, self.kernel, strict=True)
        indices = [at * stride - pad + step * np.arange(length) for at, stride, pad, step, length in axes]
        there = [(index >= 0) & (index < size) for index, size in zip(indices, values.shape[1:], strict=True)]
        channels = range(len(values))
        found = np.zeros((len(values), *self.kernel), values.dtype)
        seen = (index[mask].tolist() for index, mask in zip(indices, there, strict=True))
        under = (np.flatnonzero(mask).tolist() for mask in there)
        # A list that is empty is one of floats.
        if all(mask.any() for mask in there):
            found[np.ix_(channels, *under)] = values[np.ix_(channels, *seen)]
        return found.reshape(-1)

    @property
    def _pads(self) -> tuple[list[int], list[int]]:
        axes = len(self.kernel)
        pads = list(attribute(self.product, "pads", (0,) * 2 * axes))
        return pads[:axes], pads[axes:]

    @property
    def _strides(self) -> list[int]:
        return list(attribute(self.product, "strides", (1,) * len(self.kernel)))

    @property
    def _dilations(self) -> list[int]:
        return list(attribute(self.product, "dilations", (1,) * len(self.kernel)))


def convolutions(model: ir.Model) -> list[PatchLinear]:
    """Every convolution of the main graph, in its order."""
    found = (convolution_of(node) for node in model.graph)
    return [convolution for convolution in found if convolution is not None]


def linears_and_convolutions(model: ir.Model) -> list[Linear]:
    """All that can be quantised: Linears first."""
    return [*linears(model), *convolutions(model)]


def convolution_of(node: ir.Node) -> PatchLinear | None:
    """The convolution that a node is; None for every other node, and where channels are in groups."""
    if (node.domain, node.op_type) != ("", "Conv") or attribute(node, "group", 1) != 1:
        return None
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    found = stored_weight(node)
    if found is None or found[1] != 1:
        return None
    weight, _ = found
    return PatchLinear(str(weight.name).removesuffix(SUFFIX), node, weight, 0)
