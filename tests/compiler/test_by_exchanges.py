"""A rank's graph is cut at its collectives, and its pieces compute together what it computes whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.graphs.by_exchanges import ExchangedPiece, cut_by_exchanges
from wanc.compiler.graphs.collectives import COLLECTIVE
from wanc.compiler.graphs.ulysses import split_tokens
from wanc.compiler.host.lowered import HostGraph
from wanc.compiler.host.ranks import run_ranks
from wanc.runtime.engine_file import RANK, EngineFile
from wanc.runtime.value import Value
from wanc.runtime.workers.exchange import exchanged

from .passes.builder import noise, parse

Array = np.ndarray[Any, Any]
RANKS, TOKENS = 2, 8
HEADS_OF = "q_num_heads = 4, kv_num_heads = 4"
ATTENTION = f"q = Tanh (x)  k = Neg (x)  a = Attention <{HEADS_OF}> (q, k, x)"


def split(body: str) -> ir.Model:
    """A step of tokens `x` with something `p` that all ranks have, as each of the ranks executes it."""
    model = parse(f"g (float[1, n, 16] x, float[16] p) => (float[1, n, 16] y) {{ {body} }}")
    split_tokens(model, RANKS, [{"n": TOKENS}])
    return model


def executed(pieces: list[ExchangedPiece], feeds: Mapping[str, Array], folder: Path) -> list[dict[str, Array]]:
    """What each rank has behind the last piece, by name: pieces in turn, and the runtime's exchanges between them."""
    ranks = [{name: Value(array) for name, array in given.items()} for given in of_ranks(feeds)]
    for index, entry in enumerate(pieces):
        names = (tuple(entry.piece.inputs), tuple(entry.piece.outputs))
        file = EngineFile("c", "g", index, "e", "t", None, "d", "f", *names, exchanges=entry.exchanges)
        exchanged(file, ranks, np.empty)
        graph = HostGraph(entry.piece.model, folder)
        for values in ranks:
            given = {name: values[name].numpy() for name in entry.piece.inputs}
            values |= {name: Value(array) for name, array in graph.run(given).items()}
    return [{name: value.numpy() for name, value in values.items()} for values in ranks]


def of_ranks(feeds: Mapping[str, Array]) -> list[dict[str, Array]]:
    return [{**feeds, RANK: np.array([rank])} for rank in range(RANKS)]


@pytest.mark.parametrize(
    "body",
    [
        f"{ATTENTION}  y = Add (a, x)",
        f"{ATTENTION}  b = Add (a, x)  c = Attention <{HEADS_OF}> (b, b, b)  d = Add (c, b)  y = Mul (d, p)",
        f"{ATTENTION}  y = Softmax <axis = 1> (a)",
        f"scale = Constant <value_float = 0.01> ()  zero = Constant <value = int8 {{0}}> ()  "
        f"c = QuantizeLinear (x, scale, zero)  k = DequantizeLinear (c, scale, zero)  "
        f"a = Attention <{HEADS_OF}> (k, k, k)  y = Add (a, k)",
    ],
    ids=["one attention", "two", "a softmax over the tokens", "rounded"],
)
def test_pieces_compute_what_the_graph_does(body: str, tmp_path: Path) -> None:
    model = split(body)
    feeds = noise(model, {"n": TOKENS}, 0)
    expected = run_ranks(model, tmp_path, of_ranks(feeds))
    pieces = cut_by_exchanges(model.clone())
    assert all(node.op_type != COLLECTIVE for entry in pieces for node in entry.piece.model.graph)
    for ours, theirs in zip(executed(pieces, feeds, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(ours["y"], theirs["y"])


def test_exchanges_side_by_side_are_in_front_of_one_piece() -> None:
    """Two cuts for an attention, and the gather at the end."""
    pieces = cut_by_exchanges(split(f"{ATTENTION}  y = Add (a, x)"))
    assert [[exchange.operation for exchange in entry.exchanges] for entry in pieces] == [
        [], ["all_to_all"] * 3, ["all_to_all"], ["all_gather"],
    ]  # fmt: skip
    sent = [{exchange.given for exchange in entry.exchanges} for entry in pieces]
    assert all(names <= set(before.piece.outputs) for names, before in zip(sent[1:], pieces[:-1], strict=True))
    taken = [{exchange.taken for exchange in entry.exchanges} for entry in pieces]
    assert all(names <= set(entry.piece.inputs) for names, entry in zip(taken, pieces, strict=True))
    assert RANK in pieces[0].piece.inputs and all(RANK not in entry.piece.inputs for entry in pieces[1:])


def test_what_could_be_computed_earlier_is_computed_where_it_is_taken() -> None:
    pieces = cut_by_exchanges(split(f"{ATTENTION}  s = Sigmoid (p)  b = Add (a, x)  y = Mul (b, s)"))
    (where,) = [index for index, entry in enumerate(pieces) if "Sigmoid" in operators(entry)]
    assert where == 2 and "Mul" in operators(pieces[where])
    assert not any("s" in entry.piece.outputs for entry in pieces)


def test_a_product_stays_with_what_rounds_for_it() -> None:
    pieces = cut_by_exchanges(
        split(
            f"{ATTENTION}  scale = Constant <value_float = 0.01> ()  zero = Constant <value = int8 {{0}}> ()  "
            "c = QuantizeLinear (a, scale, zero)  b = DequantizeLinear (c, scale, zero)  y = Add (b, x)"
        )
    )
    (rounding,) = [operators(entry) for entry in pieces if "QuantizeLinear" in operators(entry)]
    assert {"DequantizeLinear", "Add"} <= rounding


def test_a_graph_that_exchanges_nothing_is_one_piece() -> None:
    model = parse("g (float[n] x) => (float[n] y) { y = Tanh (x) }")
    (entry,) = cut_by_exchanges(model)
    assert entry.piece.model is model and entry.exchanges == ()


def operators(entry: ExchangedPiece) -> set[str]:
    return {node.op_type for node in entry.piece.model.graph}
