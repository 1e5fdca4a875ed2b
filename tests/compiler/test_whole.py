"""The parts of a component in one graph again: the graph that they were cut from, in an order that needs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.graphs.hoist import SHAPE, Known, Part
from wanc.compiler.graphs.whole import constants, whole

from .passes.builder import assert_same, noise, parse, text
from .passes.hoisting import EVERY, INPUTS, PROMPT, SIZES_TRIED, STEP, conditioned, cut, graphs


def joined(parts: Sequence[Part]) -> ir.Model:
    return whole({part.name: part.model for part in parts}, parts[-1].name)


def assert_whole(before: ir.Model, after: ir.Model, *sizes: Mapping[str, int]) -> None:
    """The same, where an input that no part takes is given by its shape."""
    for seed, size in enumerate(sizes):
        shapes = {f"{name}{SHAPE}": np.array(array.shape) for name, array in noise(before, size, seed).items()}
        assert inputs_of(after) <= inputs_of(before) | shapes.keys()
        assert_same(before, after, size, feeds=shapes)


def inputs_of(model: ir.Model) -> set[str]:
    return {str(value.name) for value in model.graph.inputs}


def test_nodes_stand_where_they_are_first_needed() -> None:
    """Views of weights as well; what was known early is computed where a later part takes it."""
    model = joined(cut(conditioned(), INPUTS))
    assert text(model) == [
        "v0 = Reshape(timestep, [1,1,1])",
        "v1 = MatMul(v0, time.in.weight)",
        "v2 = Sigmoid(v1)",
        "v3 = Mul(v1, v2)",
        "v4 = MatMul(v3, time.out.weight)",
        "v5 = Mul(latents, v4)",
        "v6 = Shape(latents)",
        "v7 = Gather(v6, [0,1,2], axis=0)",
        "v8 = Gather(v7, 1)",
        "v9 = Cast(v8, to=1)",
        "v10 = Range(0., v9, 1.)",
        "v11 = Unsqueeze(v10, [-1])",
        "v12 = MatMul(v11, rope.weight)",
        "v13 = Cos(v12)",
        "v14 = Add(v5, v13)",
        "v15 = MatMul(v14, block.to_q.weight)",
        "v16 = MatMul(prompt, block.to_k.weight)",
        "v17 = Add(v16, block.to_k.bias)",
        "v18 = MatMul(prompt, block.to_v.weight)",
        "y = Attention(v15, v17, v18, kv_num_heads=2, q_num_heads=2)",
    ]


def test_it_takes_what_the_component_takes() -> None:
    """No part's result, and no shape: that is computed."""
    before = conditioned()
    model = joined(cut(before, INPUTS))
    assert inputs_of(model) == inputs_of(before) == set(INPUTS)
    assert model.graph.initializers.keys() == before.graph.initializers.keys()
    assert_same(before, model, *SIZES_TRIED)


def test_the_parts_stay_as_they_are() -> None:
    parts = cut(conditioned(), INPUTS)
    before = [text(part.model) for part in parts]
    model = joined(parts)
    for node in list(model.graph):
        node.op_type = "Identity"
    for value in model.graph.initializers.values():
        value.const_value = None
    assert [text(part.model) for part in parts] == before


def test_a_part_alone_is_itself() -> None:
    model = conditioned()
    assert_same(model, whole({"main": model}, "main"), *SIZES_TRIED)


def test_an_input_of_which_only_the_shape_is_taken() -> None:
    """It is no input then: its shape is."""
    model = parse(
        """g (float[n, 4] x, float[1, m, 4] p) => (float[n, 4] y) {
            sizes = Shape (p)  number = Cast <to = 1> (sizes)  total = ReduceSum (number)  y = Mul (x, total) }"""
    )
    again = joined(cut(model, {"x": STEP, "p": PROMPT}))
    assert inputs_of(again) == {"x", "p.shape"}
    assert_whole(model, again, {"n": 1, "m": 3}, {"n": 2, "m": 1})


def test_parts_that_take_sizes_out_of_different_shapes() -> None:
    """What a part makes of a shape is named by the part: equal names are not equal values there."""
    model = parse(
        """g (float[n, 4] x, float[1, m, 4] p) => (float[n, m, 4] y) {
            one = Constant <value_ints = [1]> ()
            of_x = Shape <start = 0, end = 1> (x)  as_x = Concat <axis = 0> (of_x, one, one)
            wide = Expand (p, as_x)  t = Tanh (wide)  mean = ReduceMean <keepdims = 0> (t, one)
            z = Add (x, mean)  column = Unsqueeze (z, one)
            of_p = Shape <start = 1, end = 2> (p)  as_p = Concat <axis = 0> (one, of_p, one)
            y = Expand (column, as_p) }"""
    )
    parts = cut(model, {"x": STEP, "p": PROMPT})
    takes = [[entry.name for entry in part.inputs if entry.shape_of] for part in parts]
    assert takes == [["x.shape"], ["p.shape"]]
    assert_whole(model, joined(parts), {"n": 2, "m": 3}, {"n": 5, "m": 1})


def test_a_weight_may_be_called_like_a_shape() -> None:
    model = parse("g (float[n, 4] x, float[4] norm.shape) => (float[n, 4] y) { y = Mul (x, norm.shape) }", "norm.shape")
    assert_same(model, whole({"main": model}, "main"), {"n": 2})


def test_an_output_that_depends_on_no_input() -> None:
    model = parse("g (float[n, 4] x, float[4] w) => (float[n, 4] y, float[4] z) { y = Mul (x, w)  z = Neg (w) }", "w")
    assert_same(model, whole({"main": model}, "main"), {"n": 2})


def test_constants_are_what_no_input_reaches() -> None:
    model = parse(
        """g (float[n, 4] x, float[4, 4] w) => (float[n, 4] y) {
            t = Transpose (w)  c = Cast <to = 1> (t)  two = Constant <value_float = 2.0> ()  s = Mul (c, two)
            p = MatMul (x, s)  y = Mul (p, two) }""",
        "w",
    )
    assert [node.op_type for node in model.graph if node in constants(model.graph)] == [
        "Transpose", "Cast", "Constant", "Mul",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=graphs(), parts=st.just(EVERY) | st.lists(st.sampled_from(EVERY), unique=True))
def test_any_graph_comes_back(graph: tuple[str, Mapping[str, Known]], parts: Sequence[str]) -> None:
    written, inputs = graph
    model = parse(written, "w.weight", "u.weight")
    assert_whole(model, joined(cut(model, inputs, parts)), {"n": 1}, {"n": 3})


@pytest.mark.parametrize("missing", ["time", "request"])
def test_a_part_that_is_not_there_is_an_input(missing: str) -> None:
    """What no part gives is taken, so that a fault in the cut cannot pass for a smaller model."""
    parts = cut(conditioned(), INPUTS)
    model = whole({part.name: part.model for part in parts if part.name != missing}, "main")
    (gone,) = [part for part in parts if part.name == missing]
    assert {output.name for output in gone.outputs} <= inputs_of(model)
