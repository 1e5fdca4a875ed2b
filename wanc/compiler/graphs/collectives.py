"""The operator with which the ranks of a graph exchange values, as TensorRT's parser takes it, and nodes around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

RANKS_DOMAIN = "wanc.ranks"
"""The domain: the parser goes by the operator's name alone, and ONNX's checker leaves domains alone that it has not."""
COLLECTIVE = "DistCollective"

Exchange = Literal["all_to_all", "all_gather"]
Size = int | ir.SymbolicDim


class NodeWriter:
    """Puts nodes in front of another one, or at the end of a graph. Nodes and values are named below `stem`.

    Shapes are those of the results; None is a size that is not known.
    """

    def __init__(self, graph: ir.Graph, stem: str, user: ir.Node | None) -> None:
        self._graph, self._stem, self._user = graph, stem, user

    def node(
        self, op_type: str, inputs: Sequence[ir.Value], shape: Sequence[Size | None], suffix: str, **attributes: Any
    ) -> ir.Value:
        """What a node of the standard operators gives, of the type of its first input."""
        return self._put(ir.node(op_type, inputs, attributes), shape, suffix, inputs[0].type)

    def reshape(self, value: ir.Value, sizes: list[int], shape: Sequence[Size | None], suffix: str) -> ir.Value:
        """A value with these sizes, as a Reshape has them: -1 is what is left, 0 the size that it has."""
        return self.node("Reshape", [value, self.constant(np.array(sizes, np.int64), f"{suffix}.sizes")], shape, suffix)

    def constant(self, array: np.ndarray[Any, Any], suffix: str) -> ir.Value:
        """Numbers that stand in the graph itself."""
        tensor = ir.tensor(array)
        node = ir.node("Constant", [], {"value": tensor})
        return self._put(node, array.shape, suffix, ir.TensorType(tensor.dtype))

    def exchange(self, kind: Exchange, value: ir.Value, shape: Sequence[Size | None], ranks: int) -> ir.Value:
        """What a rank has when blocks of a value along dimension 0 were exchanged, in the order of the ranks.

        all_to_all: block i goes to rank i, and what rank i sent is in its place. all_gather: what every rank has.
        """
        attributes = {"collective_operation": kind, "reduce_op": "none", "root": -1, "nb_rank": ranks}
        return self._put(ir.node(COLLECTIVE, [value], attributes, domain=RANKS_DOMAIN), shape, kind, value.type)

    def _put(self, node: ir.Node, shape: Sequence[Size | None], suffix: str, kind: ir.TypeProtocol | None) -> ir.Value:
        (result,) = node.outputs
        node.name = result.name = f"{self._stem}.{suffix}"
        result.shape, result.type = ir.Shape(shape), kind
        if self._user is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(self._user, node)
        return result
