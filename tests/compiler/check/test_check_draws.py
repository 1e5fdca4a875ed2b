"""Inputs for a comparison: seeded, of the declared forms, and reaching edges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from wanc.compiler.check.asked import Asked
from wanc.compiler.check.draws import draw, kinds, other_sizes
from wanc.compiler.program.program import ProgramGraph
from wanc.models.graph import Input
from wanc.models.onnx_interface import read_interface

HEAD = '<ir_version: 10, opset_import: ["" : 21]> g '


def asked(graph: str, example: Mapping[str, int], values: Mapping[str, float] | None = None) -> Asked:
    proto = onnx.parser.parse_model(HEAD + graph)
    inputs, outputs = read_interface(proto, where="here")
    return Asked.of(ProgramGraph(None, inputs, outputs, example, values or {}), ir.from_proto(proto))


def pair(**example: int) -> Asked:
    """Two inputs, of which one has twice as many rows as the other."""
    inputs = tuple(Input(name, shape, "request", "request") for name, shape in (("x", ("n", "t")), ("w", ("2*n", 3))))
    return Asked(inputs, (), example, {}, frozenset(), frozenset())


def test_every_size_differs_and_what_is_tied_stays_tied() -> None:
    found = list(other_sizes(pair(n=4, t=7)))
    assert found[:2] == [{"n": 8, "t": 14}, {"n": 5, "t": 8}]
    assert all(sizes["n"] != 4 and sizes["t"] != 7 for sizes in found)
    drawn = draw(pair(n=4, t=7), found[0], "noise")
    assert (drawn["x"].shape, drawn["w"].shape) == ((8, 14), (16, 3))


def test_of_large_inputs_the_others_are_smaller() -> None:
    assert next(other_sizes(pair(n=512, t=1024))) == {"n": 256, "t": 512}
    assert next(other_sizes(pair(n=1, t=2**20))) == {"n": 2, "t": 2**19}


def test_a_size_never_becomes_0() -> None:
    assert all(sizes["n"] for sizes in other_sizes(pair(n=1, t=1)))


def test_fixed_sizes_have_no_others() -> None:
    assert list(other_sizes(asked("(float[3] x) => (float[3] y) { y = Sin (x) }", {}))) == []


def test_the_same_every_time_and_other_numbers_for_each_input() -> None:
    graph = asked("(float[n] x, float[n] w) => (float[n] y) { y = Add (x, w) }", {"n": 50})
    first, second = (draw(graph, {"n": 50}, "edges") for _ in range(2))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert not np.array_equal(first["x"], first["w"])


def test_floats_reach_far() -> None:
    x = draw(asked("(float[n] x) => (float[n] y) { y = Sin (x) }", {"n": 50}), {"n": 50}, "edges")["x"]
    assert x.min() < -50 and x.max() > 50 and (x == 0).any() and np.isfinite(x).all()


@pytest.mark.parametrize(
    "body",
    ["{ y = Reshape (x, n) }", "{ y = Expand (x, n) }", "{ m = Abs (n) y = Reshape (x, m) }", "{ y = Tile (x, n) }"],
)
def test_what_becomes_a_size_is_not_wide(body: str) -> None:
    graph = asked(f"(float[4] x, int64[1] n) => (float[m] y) {body}", {})
    assert graph.wide == frozenset() and "wide" not in kinds(graph)


def test_arithmetic_is_wide_through_changes_of_shape() -> None:
    graph = asked(
        "(int64[n] x) => (int64[n, 1] y) { a = Constant <value_ints = [1]> () u = Unsqueeze (x, a) y = Mul (u, u) }",
        {"n": 20},
    )
    wide = draw(graph, {"n": 20}, "wide")["x"]
    assert wide.max() > 2**31 and wide.min() < -(2**31)


def test_indices_are_rows_of_their_table() -> None:
    graph = asked(
        "(int64[n] x) => (float[n, 2] y) <float[3, 2] table = {1, 2, 3, 4, 5, 6}> { y = Gather (table, x) }", {"n": 40}
    )
    ids = draw(graph, {"n": 40}, "edges")["x"]
    assert graph.wide == frozenset() and set(ids.tolist()) == {0, 1, 2}


def test_lengths_are_below_the_padding_and_masks_mask_a_row() -> None:
    graph = asked(
        "(float[b, t] x, int64[b] lens, bool[b, t] mask) => (float[b, t] y) { y = Sin (x) }", {"b": 6, "t": 9}
    )
    drawn = draw(graph, {"b": 6, "t": 9}, "edges")
    assert drawn["lens"].min() >= 1 and drawn["lens"].min() < 9 and drawn["lens"].max() <= 9
    assert not drawn["mask"][-1].any() and drawn["mask"][:-1].any()


@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_what_is_added_to_scores_masks_a_row(dtype: str) -> None:
    graph = asked(
        f"({dtype}[s, t] x, {dtype}[s, t] m) => ({dtype}[s, t] y) {{ a = Add (x, m) y = Softmax (a) }}",
        {"s": 3, "t": 5},
    )
    mask = draw(graph, {"s": 3, "t": 5}, "edges")["m"]
    assert graph.masks == {"x", "m"} and (mask[-1] == np.finfo(mask.dtype).min).all()


def test_what_the_recipe_gives_stays() -> None:
    graph = asked("(float[n] x, int64 rate) => (float[n] y) { y = Sin (x) }", {"n": 4}, {"rate": 16000, "x": 2})
    assert list(kinds(graph)) == []
    assert draw(graph, {"n": 4}, "edges")["rate"] == 16000
