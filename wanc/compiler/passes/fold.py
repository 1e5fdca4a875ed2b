"""Constants: what depends on no input and is small is computed now; what nobody uses goes.

A large constant is never made: weights, whose bytes lie elsewhere, are out of reach here, and the tables that would
exceed the limits below are left to the engine.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer._constant_folding import FoldConstantsPass, Replacement
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, scalar
from wanc.compiler.passes.rewrite import OLDEST, Pass, PassOutcome, Rewrite, accept, refuse, rewriting

# In elements. The largest constant that a rewrite looks at is a row of a model's width; a rope table has 131,072.
INPUT_LIMIT = OUTPUT_LIMIT = 2**15
MOST_ROUNDS = 8


class StaticSize(Rewrite):
    """Gather(Shape(x), i) → a number, where that size is one. onnxscript folds only lists of indices."""

    keeps_shared_nodes = True

    def pattern(self, op, x, index):  # pyright: ignore
        return op.Gather(op.Shape(x, _outputs=["shape"]), index, axis=0)

    def check(self, context, x, index, shape, **_) -> MatchResult:  # pyright: ignore
        self._size = _size(x, shape.producer(), scalar(index))
        return accept() if self._size is not None else refuse("the size changes from request to request")

    def rewrite(self, op, **_):  # pyright: ignore
        return op.Constant(value_int=self._size)


def _size(x: ir.Value, node: ir.Node, index: float | None) -> int | None:
    if x.shape is None or index is None:
        return None
    found = x.shape[attribute(node, "start", 0) : attribute(node, "end")]
    position = int(index)
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
    """onnxscript's, which fails on constants that are strings."""

    def process_node(self, node: ir.Node, is_function: bool) -> Replacement | None:
        if any(value is not None and value.dtype == ir.DataType.STRING for value in node.inputs):
            return None
        return super().process_node(node, is_function)


def fold(model: ir.Model) -> PassOutcome:
    """Fold until nothing changes; `fired` counts the nodes that went."""
    before = _count(model)
    sizes = rewriting(StaticSize)
    with weights_hidden(model):
        for _ in range(MOST_ROUNDS):
            folding = Folding(shape_inference=True, input_size_limit=INPUT_LIMIT, output_size_limit=OUTPUT_LIMIT)
            changed = folding(model).modified
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


DEAD = Pass("dead-code", "drop what no output depends on; done again after every other pass", remove_unused)
FOLD = Pass(
    "fold", "compute small constants, drop casts and copies that change nothing", fold, after=("opset",), opset=OLDEST
)
SHARE = Pass("share", "compute once what is computed twice", share, after=("fold",))
