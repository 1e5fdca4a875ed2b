"""Splitting a denoiser's step over ranks by its tokens, as DeepSpeed-Ulysses does: one graph for all of them.

Every rank computes its part of the tokens. Attention to themselves needs all tokens: there the ranks exchange, so that
each has some heads of all tokens, and exchange back. All else computes a token by itself, attention to the text
included, whose keys and values every rank has whole. Each rank is told its number, an input, and takes its tokens where
the latents have become some; at the end all ranks gather the velocity. An engine is built once and loaded by each rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.attentions import NamedAttention, rounding_of
from wanc.compiler.graphs.collectives import RANKS_DOMAIN, NodeWriter, Size
from wanc.compiler.graphs.row_wise import TOKENS, carrying, has_tokens
from wanc.compiler.graphs.values import attention_heads, attribute, rank, size
from wanc.errors import RecipeError
from wanc.runtime.engine_file import OWN_TOKENS, RANK

FEWEST_HEADS = 2
"""With a single one TensorRT makes two products and all scores in memory of an attention, and no fused kernel."""
SWAPPED = [1, 0, 2]


def split_tokens(model: ir.Model, ranks: int, shapes: Iterable[Mapping[str, int]]) -> Size:
    """Rewrite a fused step for two ranks or more, in place; `shapes` say what its sizes are in each kind of request.

    The graph's interface stays, and gains the input `RANK`. Returns the size that is split, of which each rank has an
    equal part, called `OWN_TOKENS`. Raises RecipeError where heads or tokens cannot be split, where fewer than
    `FEWEST_HEADS` are left to a rank, and where nothing attends to itself.
    """
    attentions, entries = _self_attentions(model.graph)
    for node in attentions:
        _check_heads(node, ranks)
    tokens = _tokens(entries[0])
    counts = [tokens] if isinstance(tokens, int) else [tokens.evaluate(sizes) for sizes in shapes]
    for count in sorted(count for count in counts if isinstance(count, int)):
        if count % ranks:
            raise RecipeError(f"a shape has {count} tokens, which cannot be split over {ranks} ranks")
    _Splitter(model.graph, ranks, tokens).split(entries, attentions)
    model.opset_imports[RANKS_DOMAIN] = 1
    return tokens


def _self_attentions(graph: ir.Graph) -> tuple[list[ir.Node], list[ir.Value]]:
    """The attentions whose queries and keys come from the same tokens, and the values where these begin."""
    known: dict[ir.Value, set[ir.Value]] = {}
    attentions: list[ir.Node] = []
    entries: dict[ir.Value, None] = {}

    def sources(value: ir.Value) -> set[ir.Value]:
        return known.setdefault(value, {value} if has_tokens(value) and not value.is_initializer() else set())

    for node in graph:
        carried = carrying(node)
        if carried is None:
            continue
        # Tables of rotations have the tokens of the latents, and begin none.
        found = set.union(*map(sources, carried[:1] if node.op_type == "RotaryEmbedding" else carried), set())
        known.update((output, found) for output in node.outputs)
        if node.op_type == "Attention":
            queries, keys = (sources(value) for value in node.inputs[:2] if value is not None)
            if common := queries & keys:
                attentions.append(node)
                entries.update(dict.fromkeys(common))
    if not attentions:
        raise RecipeError(f"{graph.name} cannot be split by tokens: none of them attend to each other")
    return attentions, list(entries)


def _check_heads(node: ir.Node, ranks: int) -> None:
    heads, name = attention_heads(node), node.outputs[0].name
    if None in [size(value, -1) for value in node.inputs]:
        raise RecipeError(f"the attention {name} cannot be split over {ranks} ranks: its width is not known")
    if heads % ranks:
        raise RecipeError(f"the attention {name} has {heads} heads, which cannot be split over {ranks} ranks")
    if heads // ranks < FEWEST_HEADS:
        raise RecipeError(
            f"{heads} heads over {ranks} ranks leave one to each, and attention of one head is never a fused kernel",
            hint=f"at most {heads // FEWEST_HEADS} ranks",
        )


def _tokens(value: ir.Value) -> Size:
    assert value.shape is not None
    return value.shape[TOKENS]


class _Splitter:
    """Rewrites a graph from the entries on. A value that is split keeps its name, and has a rank's tokens alone."""

    def __init__(self, graph: ir.Graph, ranks: int, tokens: Size) -> None:
        self._graph, self._ranks, self._tokens = graph, ranks, tokens
        self._own: Size = tokens // ranks if isinstance(tokens, int) else ir.SymbolicDim(OWN_TOKENS)
        self._rank = ir.Value(name=RANK, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
        # By the value as the graph had it: a rank's part, and all of it. Most values become their part themselves.
        self._parts: dict[ir.Value, ir.Value] = {}
        self._wholes: dict[ir.Value, ir.Value] = {}

    def split(self, entries: Iterable[ir.Value], attentions: Iterable[ir.Node]) -> None:
        """Rewrite all nodes, in their order."""
        starts, exchanging = set(entries), set(attentions)
        self._graph.inputs.append(self._rank)
        for node in list(self._graph):
            carried = carrying(node) or []
            if not any(value in self._parts or value in starts for value in carried):
                carried = []
            elif node in exchanging:
                carried = [value for value in node.inputs if value is not None]
            for index, value in enumerate(node.inputs):
                if value in carried:
                    node.replace_input_with(index, self._part(value, node))
                elif value in self._parts:
                    node.replace_input_with(index, self._whole(value, node))
            if node in exchanging:
                self._exchange(node)
            elif carried:
                for value in node.outputs:
                    self._parts[value], value.shape = value, ir.Shape([1, self._own, size(value, -1)])
        for value in list(self._graph.outputs):
            if value in self._parts:
                self._give_whole(value)

    def _part(self, value: ir.Value, user: ir.Node) -> ir.Value:
        """A rank's tokens of a value: one of so many blocks, chosen by the number of the rank."""
        if value not in self._parts:
            if rank(value) != 3 or size(value, 0) != 1:
                raise RecipeError(f"{value.name} cannot be split by tokens: it is not [1, tokens, channels]")
            put, channels = NodeWriter(self._graph, str(value.name), user), size(value, -1)
            blocks = put.reshape(value, [self._ranks, -1, 0], [self._ranks, self._own, channels], "blocks")
            self._parts[value] = put.node("Gather", [blocks, self._rank], [1, self._own, channels], "part", axis=0)
            self._wholes[value] = value
        return self._parts[value]

    def _whole(self, value: ir.Value, user: ir.Node | None) -> ir.Value:
        """All tokens of a value that was split, gathered from all ranks."""
        if value not in self._wholes:
            put, channels = NodeWriter(self._graph, str(value.name), user), size(value, -1)
            gathered = put.exchange("all_gather", self._parts[value], [self._ranks, self._own, channels], self._ranks)
            self._wholes[value] = put.reshape(gathered, [1, -1, 0], [1, self._tokens, channels], "whole")
        return self._wholes[value]

    def _exchange(self, node: ir.Node) -> None:
        """Have an attention compute a rank's heads for all tokens, and the ranks exchange around it."""
        (result,), heads = node.outputs, attention_heads(node) // self._ranks
        if NamedAttention(str(node.name), node).scales is None:
            self._scale_queries(node)
        for index, letter in enumerate("qkv"):
            self._exchange_input(node, index, f"{result.name}.{letter}")
        node.attributes.update({name: ir.AttrInt64(name, heads) for name in ("q_num_heads", "kv_num_heads")})
        ranks, width = self._ranks, _width(result) // self._ranks
        result.shape = ir.Shape([1, self._tokens, width])
        put = NodeWriter(self._graph, str(result.name), _behind(node))
        blocks = put.reshape(result, [ranks, -1, width], [ranks, self._own, width], "blocks")
        exchanged = put.exchange("all_to_all", blocks, [ranks, self._own, width], ranks)
        rows = put.node("Transpose", [exchanged], [self._own, ranks, width], "rows", perm=SWAPPED)
        self._parts[result] = put.reshape(rows, [1, -1, ranks * width], [1, self._own, ranks * width], "part")

    def _scale_queries(self, node: ir.Node) -> None:
        """Scale queries in float32 in front of the exchange, for which a lowering rounds them to 16 bits: only once."""
        queries, name = node.inputs[0], node.outputs[0].name
        if queries is None or queries.dtype != ir.DataType.FLOAT:
            return
        scale = attribute(node, "scale") or 1 / math.sqrt(_width(queries) / attention_heads(node))
        put = NodeWriter(self._graph, f"{name}.q", node)
        factor = put.constant(np.array(scale, np.float32), "scale")
        scaled = put.node("Mul", [queries, factor], [1, self._own, _width(queries)], "scaled")
        node.replace_input_with(0, scaled)
        node.attributes["scale"] = ir.AttrFloat32("scale", 1.0)

    def _exchange_input(self, node: ir.Node, index: int, stem: str) -> None:
        """Give an attention a rank's heads for all tokens. What is rounded is so behind the exchange."""
        pair, user = rounding_of(node.inputs[index]), node
        codes = [*pair.quantize.outputs, *pair.dequantize.outputs] if pair else []
        if pair is not None and all(len(value.uses()) == 1 for value in codes):
            user, index = pair.quantize, 0
            for value in codes:
                value.shape = ir.Shape([1, self._tokens, _width(value) // self._ranks])
        value = user.inputs[index]
        assert value is not None
        user.replace_input_with(index, self._heads(value, NodeWriter(self._graph, stem, user)))

    def _heads(self, value: ir.Value, put: NodeWriter) -> ir.Value:
        """All tokens of a rank's heads, [1, tokens, width / ranks], of its tokens of all heads."""
        ranks, width = self._ranks, _width(value) // self._ranks
        rows = put.reshape(value, [-1, ranks, width], [self._own, ranks, width], "rows")
        blocks = put.node("Transpose", [rows], [ranks, self._own, width], "blocks", perm=SWAPPED)
        exchanged = put.exchange("all_to_all", blocks, [ranks, self._own, width], ranks)
        return put.reshape(exchanged, [1, -1, width], [1, self._tokens, width], "whole")

    def _give_whole(self, value: ir.Value) -> None:
        """Let the graph give a value whole, under its name."""
        whole = self._whole(value, None)
        name, value.name = value.name, f"{value.name}.part"
        whole.name = name
        self._graph.outputs[list(self._graph.outputs).index(value)] = whole


def _behind(node: ir.Node) -> ir.Node | None:
    """The node behind one in its graph."""
    assert node.graph is not None
    nodes = list(node.graph)
    return next(iter(nodes[nodes.index(node) + 1 :]), None)


def _width(value: ir.Value) -> int:
    width = size(value, -1)
    assert width is not None, value.name  # `_check_heads` has looked
    return width
