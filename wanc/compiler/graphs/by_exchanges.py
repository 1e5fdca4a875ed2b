"""Cutting by exchanges: a rank's graph as an engine executes it that has no collectives.

Every DistCollective goes, and the graph is cut there: what it took one piece gives, and what it gave a later piece
takes, in front of which the runtime has the ranks exchange. Collectives that do not wait for each other, such as those
of queries, keys and values, are in front of one piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import onnx_ir as ir

from wanc.compiler.graphs.collectives import COLLECTIVE, RANKS_DOMAIN
from wanc.compiler.graphs.pieces import Piece, Reach, copied, cut, reaching
from wanc.runtime.engine_file import Operation, RankExchange


@dataclass(frozen=True)
class ExchangedPiece:
    """A piece of a rank's graph, and what the ranks exchange in front of it."""

    piece: Piece
    exchanges: tuple[RankExchange, ...] = ()


class _Exchange(NamedTuple):
    """A collective that was taken out: of a value that a node gives becomes one that is an input of the graph."""

    operation: Operation
    given: ir.Value
    taken: ir.Value


def cut_by_exchanges(model: ir.Model) -> list[ExchangedPiece]:
    """The pieces of a rank's graph between its collectives, in the order of execution; `model` is changed.

    A node goes with what first takes its results, even where it could be computed earlier: so little waits from piece
    to piece, and what belongs to a product stays with it.
    """
    exchanges = [_taken_out(node) for node in list(model.graph) if _is_collective(node)]
    if not exchanges:
        return [ExchangedPiece(Piece(model))]
    sent = {exchange.given for exchange in exchanges}
    repeated = {node for node in copied(model.graph) if sent.isdisjoint(node.outputs)}
    nodes = [node for node in model.graph if node not in repeated]
    reach = reaching(set(nodes))
    earliest = _earliest(nodes, reach, exchanges)
    own = _with_first_user(nodes, reach, exchanges, earliest)
    count = 1 + max(earliest[exchange.taken] for exchange in exchanges)
    pieces = cut(model, [[node for node in nodes if own[node] == index] for index in range(count)])
    return [
        ExchangedPiece(
            piece,
            tuple(
                RankExchange(exchange.operation, str(exchange.given.name), str(exchange.taken.name))
                for exchange in exchanges
                if earliest[exchange.taken] == index
            ),
        )
        for index, piece in enumerate(pieces)
    ]


def _is_collective(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == (RANKS_DOMAIN, COLLECTIVE)


def _taken_out(node: ir.Node) -> _Exchange:
    """A collective, out of its graph: what it took is an output of that now, and what it gave an input."""
    graph, (given,), (result,) = node.graph, node.inputs, node.outputs
    assert graph is not None and given is not None
    taken = ir.Value(name=result.name, shape=result.shape, type=result.type)
    ir.convenience.replace_all_uses_with(result, taken)
    graph.remove(node, safe=True)
    graph.inputs.append(taken)
    if given not in graph.outputs:
        graph.outputs.append(given)
    return _Exchange(cast("Operation", node.attributes["collective_operation"].as_string()), given, taken)


def _earliest(nodes: Sequence[ir.Node], reach: Reach, exchanges: Sequence[_Exchange]) -> dict[ir.Value, int]:
    """For each value the first piece that could take or give it: it depends on so many exchanges in a row."""
    found: dict[ir.Value, int] = {}
    for node in nodes:
        first = max((found.get(value, 0) for value in reach(node)[0]), default=0)
        found.update(dict.fromkeys(node.outputs, first))
        found.update((exchange.taken, first + 1) for exchange in exchanges if exchange.given in node.outputs)
    return found


def _with_first_user(
    nodes: Sequence[ir.Node], reach: Reach, exchanges: Sequence[_Exchange], earliest: Mapping[ir.Value, int]
) -> dict[ir.Node, int]:
    """The piece that each node is in; what nothing takes, because the graph gives it, is computed at once."""
    wanted: dict[ir.Value, int] = {}
    for exchange in exchanges:
        wanted[exchange.given] = min(earliest[exchange.taken] - 1, wanted.get(exchange.given, len(nodes)))
    own: dict[ir.Node, int] = {}
    for node in reversed(nodes):
        own[node] = min((wanted[value] for value in node.outputs if value in wanted), default=earliest[node.outputs[0]])
        for value in reach(node)[0]:
            wanted[value] = min(own[node], wanted.get(value, own[node]))
    return own
