"""A graph in pieces: executed one after the other they are the graph, and each fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes import common

from wanc.compiler.graphs.by_bytes import FLOAT_BYTES, cut_by_bytes
from wanc.compiler.graphs.pieces import Piece, constants

from .passes.builder import Arrays, assert_close, noise, parse, run, text

SQUARE = 16 * FLOAT_BYTES
"""What a weight [4, 4] takes."""
ALL = 2**40


def executed(pieces: Sequence[Piece], given: Arrays) -> dict[str, np.ndarray]:
    """Every piece's outputs, each from what is known by then."""
    known = dict(given)
    for piece in pieces:
        results = run(piece.model, {name: known[name] for name in piece.inputs})
        assert list(results) == piece.outputs
        assert not results.keys() & known.keys(), "computed twice"
        known |= results
    return known


def assert_pieces(model: ir.Model, pieces: Sequence[Piece], *sizes: Mapping[str, int]) -> None:
    for seed, size in enumerate(sizes):
        feeds = noise(model, size, seed)
        known = executed(pieces, feeds)
        for name, array in run(model, feeds).items():
            assert_close(known[name], array)


def weight_bytes(piece: Piece) -> int:
    tensors = [value.const_value for value in piece.model.graph.initializers.values()]
    return FLOAT_BYTES * sum(tensor.size for tensor in tensors if tensor is not None)


def computing(piece: Piece) -> list[str]:
    """The nodes that are no constants or views."""
    views = constants(piece.model.graph)
    return [str(node.outputs[0].name) for node in piece.model.graph if node not in views]


def assert_fits(pieces: Sequence[Piece], most: int) -> None:
    for piece in pieces:
        assert weight_bytes(piece) <= most or len(computing(piece)) == 1


def chain_of(count: int, weights: int | None = None) -> ir.Model:
    """Products in a row, each with a residual around it: between two of them a single value is alive."""
    names = [f"w{index % (weights or count)}.weight" for index in range(count)]
    nodes = [
        f"p{index} = MatMul (h{index}, {name})  t{index} = Tanh (p{index})  h{index + 1} = Add (t{index}, h{index})"
        for index, name in enumerate(names)
    ]
    unique = list(dict.fromkeys(names))
    header = ", ".join(["float[n, 4] h0", *(f"float[4, 4] {name}" for name in unique)])
    return parse(f"g ({header}) => (float[n, 4] h{count}) {{ {'  '.join(nodes)} }}", *unique)


def test_what_fits_is_one_piece() -> None:
    model = chain_of(5)
    (piece,) = cut_by_bytes(model, 5 * SQUARE)
    assert (piece.inputs, piece.outputs) == (["h0"], ["h5"])
    assert text(piece.model) == text(model)


@pytest.mark.parametrize(("most", "count"), [(5 * SQUARE - 1, 2), (3 * SQUARE, 2), (2 * SQUARE, 3), (SQUARE, 5)])
def test_cuts_are_made_where_little_is_alive(most: int, count: int) -> None:
    """Behind a sum, where there is one value; not before it, where there are two."""
    model = chain_of(5)
    pieces = cut_by_bytes(model, most)
    assert len(pieces) == count
    assert all(len(piece.outputs) == 1 and piece.outputs[0].startswith("h") for piece in pieces)
    assert_fits(pieces, most)
    assert_pieces(model, pieces, {"n": 1}, {"n": 3})


@pytest.mark.parametrize("most", [0, 1, SQUARE - 1])
def test_a_node_that_does_not_fit_is_alone(most: int) -> None:
    model = chain_of(3)
    pieces = cut_by_bytes(model, most)
    assert_fits(pieces, most)
    assert_pieces(model, pieces, {"n": 2})


def test_a_weight_counts_wherever_it_is_used() -> None:
    """Two weights, used again and again: each piece that uses one holds it."""
    model = chain_of(8, weights=2)
    assert len(cut_by_bytes(model, 2 * SQUARE)) == 1
    pieces = cut_by_bytes(model, SQUARE)
    assert len(pieces) == 8
    assert_fits(pieces, SQUARE)
    assert_pieces(model, pieces, {"n": 2})


def test_views_are_in_every_piece_that_uses_them() -> None:
    model = parse(
        """g (float[n, 4] x, float[4, 4] a.weight, float[4, 4] b.weight) => (float[n, 4] y) {
            half = Constant <value_float = 0.5> ()  t = Transpose <perm = [1, 0]> (a.weight)  s = Mul (t, half)
            p = MatMul (x, s)  q = Mul (p, half)  u = Transpose <perm = [1, 0]> (b.weight)  r = MatMul (q, u)
            y = Mul (r, half) }""",
        "a.weight",
        "b.weight",
    )
    first, second = cut_by_bytes(model, SQUARE)
    assert text(first.model)[:2] == ["v0 = Transpose(a.weight, perm=[1, 0])", "v1 = Mul(v0, 0.5)"]
    assert first.outputs == second.inputs
    assert second.model.graph.initializers.keys() == {"b.weight"}
    assert "0.5" in text(second.model)[-1]
    assert_pieces(model, [first, second], {"n": 3})


def test_vectors_and_scalars_are_no_reason_to_cut_elsewhere() -> None:
    """Modulations and sizes are cheap to keep, however many there are."""
    model = parse(
        """g (float[n, 4] x, float[4] t, float[4, 4] a.weight, float[4, 4] b.weight) => (float[n, 4] y) {
            p = MatMul (x, a.weight)  left = Tanh (p)  right = Sin (p)
            s = Sin (t)  c = Cos (t)  e = Exp (t)
            both = Add (left, right)  q = MatMul (both, b.weight)
            d = Mul (q, s)  f = Add (d, c)  y = Mul (f, e) }""",
        "a.weight",
        "b.weight",
    )
    pieces = cut_by_bytes(model, SQUARE)
    assert pieces[0].outputs[-1] == "both"
    assert set(pieces[0].outputs) == {"s", "c", "e", "both"}
    assert_pieces(model, pieces, {"n": 2})


def test_an_early_output_is_given_by_its_piece() -> None:
    model = parse(
        """g (float[n, 4] x, float[4, 4] a.weight, float[4, 4] b.weight) => (float[n, 4] h, float[n, 4] y) {
            h = MatMul (x, a.weight)  y = MatMul (h, b.weight) }""",
        "a.weight",
        "b.weight",
    )
    pieces = cut_by_bytes(model, SQUARE)
    assert [piece.outputs for piece in pieces] == [["h"], ["y"]]
    assert_pieces(model, pieces, {"n": 2})


def test_the_model_stays_as_it_is() -> None:
    model = chain_of(4)
    before = text(model)
    for piece in cut_by_bytes(model, SQUARE):
        for value in piece.model.graph.initializers.values():
            value.const_value = None
        piece.model.graph.outputs.clear()
    assert text(model) == before
    assert all(value.const_value is not None for value in model.graph.initializers.values())


# Any graph


@st.composite
def weighted(draw: st.DrawFn) -> str:
    """The text of a graph of [n, 4] matrices whose weights are used once, again, or behind a view."""
    names, nodes = ["x"], list[str]()
    for index in range(draw(st.integers(1, 16))):
        out, left, right = f"v{index}", draw(st.sampled_from(names)), draw(st.sampled_from(names))
        kind = draw(st.sampled_from(("product", "viewed", "add", "split", "bias")))
        weight = f"w{draw(st.integers(0, 4))}"
        nodes.append(
            {
                "product": f"p{index} = MatMul ({left}, {weight})  {out} = Tanh (p{index})",
                "viewed": f"t{index} = Transpose ({weight})  p{index} = MatMul ({left}, t{index})"
                f"  {out} = Sin (p{index})",
                "add": f"{out} = Add ({left}, {right})",
                "split": f"a{index}, b{index} = Split <axis = 1, num_outputs = 2> ({left})"
                f"  {out} = Concat <axis = 1> (b{index}, a{index})",
                "bias": f"m{index} = Mul ({left}, u)  {out} = Tanh (m{index})",
            }[kind]
        )
        names.append(out)
    values = names[1:]
    outputs = draw(st.lists(st.sampled_from(values), unique=True, max_size=2))
    outputs = [*[name for name in outputs if name != values[-1]], values[-1]]
    header = ", ".join(["float[n, 4] x", *(f"float[4, 4] w{index}" for index in range(5)), "float[4] u"])
    return f"g ({header}) => ({', '.join(f'float[n, 4] {name}' for name in outputs)}) {{ {'  '.join(nodes)} }}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weighted(), st.integers(0, 5 * SQUARE))
def test_any_graph_in_pieces(written: str, most: int) -> None:
    model = parse(written, *(f"w{index}" for index in range(5)), "u")
    common.RemoveUnusedNodesPass()(model)
    pieces = cut_by_bytes(model, most)
    assert_fits(pieces, most)
    assert_pieces(model, pieces, {"n": 1}, {"n": 3})
    assert sum(len(computing(piece)) for piece in pieces) <= len(model.graph)
