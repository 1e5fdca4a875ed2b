"""Constants: what depends on no input and is small is computed now; what nobody uses goes.

A large constant is never made: weights, whose bytes lie elsewhere, are out of reach here, and the tables that would
exceed the limits below are left to the engine.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass, Replacement
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import COMPUTED, attribute, integers, rank
from wanc.compiler.passes.draws import draws, draws_told_apart
from wanc.compiler.passes.rewrite import ANY, OLDEST, Pass, PassOutcome, Reads, Rewrite, accept, refuse, rewriting

# In elements. The largest constant that a rewrite looks at is a row of a model's width; a rope table has 131,072.
INPUT_LIMIT = OUTPUT_LIMIT = 2**15
MOST_ROUNDS = 8
FLOATING = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point())


class StaticSize(Rewrite):
    """Gather(Shape(x), i) → a number of i's rank, where that size is one. onnxscript folds only lists of indices."""

    keeps_shared_nodes = True
    # A shape has one axis, which Gather takes along whatever it says.
    reads: ClassVar[Reads] = {"Shape": ("start", "end"), "Gather": ("axis",)}

    def pattern(self, op, x, index):  # pyright: ignore
        return op.Gather(op.Shape(x, _outputs=["shape"]), index)

    def check(self, context, x, index, shape) -> MatchResult:  # pyright: ignore
        self._size, self._index = _size(x, shape.producer(), index), index
        return accept() if self._size is not None else refuse("the size changes from request to request")

    def rewrite(self, op, **_):  # pyright: ignore
        if not rank(self._index):
            return op.Constant(value_int=self._size)
        return op.Constant(value=ir.tensor(np.full([1] * (rank(self._index) or 0), self._size, np.int64)))


def _size(x: ir.Value, node: ir.Node, index: ir.Value) -> int | None:
    position = integers(index)
    if x.shape is None or position is None or len(position) != 1 or rank(index) is None:
        return None
    found = x.shape[attribute(node, "start", 0) : attribute(node, "end")]
    (position,) = position
    size = found[position] if -len(found) <= position < len(found) else None
    return size if isinstance(size, int) else None


class CopyElimination(common.IdentityEliminationPass):
    """onnx_ir's, which makes one of two results of a graph, and takes a branch's result from outside of it."""

    def _try_eliminate_identity_node(self, node: ir.Node) -> bool:
        source = node.inputs[0] if node.inputs else None
        if node.outputs[0].is_graph_output() and source is not None:
            own = source.producer() is not None and source.graph is node.graph
            if source.is_graph_output() or not own:
                return False
        return super()._try_eliminate_identity_node(node)


class Folding(FoldConstantsPass):
    """onnxscript's, which fails on constants that are strings, and would draw once for all.

    What is computed here may hold infinities, as a mask does. It is marked, so that nobody takes it for a damaged
    weight; and nothing is computed of such a weight, which is found later.
    """

    def __init__(self, random: Collection[ir.Node]) -> None:
        super().__init__(
            shape_inference=True,
            input_size_limit=INPUT_LIMIT,
            output_size_limit=OUTPUT_LIMIT,
            should_fold=lambda node: False if node in random or _takes_damaged(node) else None,
        )

    def process_node(self, node: ir.Node, is_function: bool) -> Replacement | None:
        if any(value is not None and value.dtype == ir.DataType.STRING for value in node.inputs):
            return None
        return super().process_node(node, is_function)

    def _prepare_folded_tensor(self, node: ir.Node, output_name: str, output_array: Any) -> ir.Tensor | None:
        tensor = super()._prepare_folded_tensor(node, output_name, output_array)
        if tensor is not None:
            tensor.metadata_props[COMPUTED] = ""
        return tensor


def _takes_damaged(node: ir.Node) -> bool:
    """Whether a node takes a constant that was not computed here, of several values of which some are not finite."""
    tensors = (value.const_value for value in node.inputs if value is not None)
    return any(tensor is not None and _is_damaged(tensor) for tensor in tensors)


def _is_damaged(tensor: ir.TensorProtocol) -> bool:
    if tensor.size > INPUT_LIMIT or tensor.dtype not in FLOATING or COMPUTED in tensor.metadata_props:
        return False
    array = tensor.numpy().astype(np.float64)
    return not np.isfinite(array).all() and not (array.size == 1 and np.isinf(array).all())


def fold(model: ir.Model) -> PassOutcome:
    """Fold until nothing changes; `fired` counts the nodes that went."""
    before = _count(model)
    sizes = rewriting(StaticSize)
    # Infinities are what some masks are made of, and no news.
    with weights_hidden(model), np.errstate(all="ignore"):
        for _ in range(MOST_ROUNDS):
            changed = Folding(draws(model))(model).modified
            changed |= bool(sizes(model).fired)
            for cleanup in (CopyElimination(), common.RemoveUnusedNodesPass()):
                changed |= cleanup(model).modified
            if not changed:
                break
    return PassOutcome(max(before - _count(model), 0))


def remove_unused(model: ir.Model) -> PassOutcome:
    """Take out nodes and weights that no output depends on; `fired` counts the nodes."""
    before = _count(model)
    common.RemoveUnusedNodesPass()(model)
    return PassOutcome(before - _count(model))


def share(model: ir.Model) -> PassOutcome:
    """Compute once what is computed twice; `fired` counts the nodes that went."""
    with weights_hidden(model):
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.DeduplicateInitializersPass()(model)
    lifted = _count(model)
    with draws_told_apart(model):
        common.CommonSubexpressionEliminationPass()(model)
    return PassOutcome(lifted - _count(model))


@contextmanager
def weights_hidden(model: ir.Model) -> Generator[None]:
    """Take the weights' values, which lie in other files, out of the libraries' sight."""
    hidden = {
        value: value.const_value
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    for value in hidden:
        value.const_value = None
    try:
        yield
    finally:
        for value, tensor in hidden.items():
            value.const_value = tensor


def _count(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())


DEAD = Pass("dead-code", "drop what no output depends on; done again after every other pass", remove_unused, opset=ANY)
FOLD = Pass(
    "fold", "compute small constants, drop casts and copies that change nothing", fold, after=("opset",), opset=OLDEST
)
SHARE = Pass("share", "compute once what is computed twice", share, after=("fold",), opset=ANY)
