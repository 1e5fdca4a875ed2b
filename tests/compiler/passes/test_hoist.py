"""A graph cut by the time at which its inputs are known: the parts as text, and what they compute together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.graphs.hoist import SIZES, HoistedPiece, Known, join

from .builder import Arrays, assert_close, noise, parse, run, text
from .hoisting import EVERY, INPUTS, PROMPT, SIZES_TRIED, STEP, TIMES, TIMESTEP, conditioned, cut, graphs

PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention")


def together(parts: Sequence[HoistedPiece], given: Arrays) -> dict[str, np.ndarray]:
    """What the last part computes, with the results of those before it; each is run once, in order."""
    known = dict(given)
    for part in parts:
        known |= {entry.name: np.array(known[entry.shape_of].shape) for entry in part.inputs if entry.shape_of}
        results = run(part.model, known)
        assert list(results) == [entry.name for entry in part.outputs]
        known |= results
    return {entry.name: known[entry.name] for entry in parts[-1].outputs}


def assert_together(model: ir.Model, parts: Sequence[HoistedPiece], *sizes: Mapping[str, int]) -> None:
    for seed, size in enumerate(sizes):
        feeds = noise(model, size, seed)
        expected, actual = run(model, feeds), together(parts, feeds)
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            assert_close(actual[name], array)


def described(part: HoistedPiece) -> list[str]:
    """Its inputs with the time when they are known."""
    return [f"{entry.name} {list(entry.shape)} {entry.binding}/{entry.per}" for entry in part.inputs]


# A conditioned model


def test_each_kind_of_input_has_a_part() -> None:
    model = conditioned()
    parts = cut(model, INPUTS, name="step")
    assert {part.name: text(part.model) for part in parts} == {
        "time": [
            "v0 = Reshape(timestep, [1,1,1])",
            "v1 = MatMul(v0, time.in.weight)",
            "v2 = Sigmoid(v1)",
            "v3 = Mul(v1, v2)",
            "time.out = MatMul(v3, time.out.weight)",
        ],
        "shape": [
            "v0 = Gather(latents.shape, [0,1,2], axis=0)",
            "v1 = Gather(v0, 1)",
            "v2 = Cast(v1, to=1)",
            "v3 = Range(0., v2, 1.)",
            "v4 = Unsqueeze(v3, [-1])",
            "v5 = MatMul(v4, rope.weight)",
            "rope = Cos(v5)",
        ],
        "request": [
            "v0 = MatMul(prompt, block.to_k.weight)",
            "block.to_k = Add(v0, block.to_k.bias)",
            "block.to_v = MatMul(prompt, block.to_v.weight)",
        ],
        "step": [
            "v0 = Mul(latents, time.out)",
            "v1 = Add(v0, rope)",
            "v2 = MatMul(v1, block.to_q.weight)",
            "y = Attention(v2, block.to_k, block.to_v, kv_num_heads=2, q_num_heads=2)",
        ],
    }
    assert_together(model, parts, *SIZES_TRIED)


def test_what_a_part_gives_the_next_ones_take() -> None:
    parts = cut(conditioned(), INPUTS)
    assert {part.name: described(part) for part in parts} == {
        "time": ["timestep [1] build/expert"],
        "shape": ["latents.shape [3] request/request"],
        "request": ["prompt [1, 'm', 6] request/branch"],
        "main": [
            "latents [1, 'n', 8] step/request",
            "time.out [1, 1, 8] build/expert",
            "rope ['unk__0', 8] request/request",
            "block.to_k [1, 'm', 8] request/branch",
            "block.to_v [1, 'm', 8] request/branch",
        ],
    }
    (sizes,) = parts[1].inputs
    assert (sizes.shape_of, sizes.dtype) == ("latents", "int64")
    given = [output.name for part in parts[:-1] for output in part.outputs]
    assert given == [entry.name for entry in parts[-1].inputs[1:]]
    assert [dict(part.example) for part in parts] == [{}, {"unk__0": 1}, {"m": 2}, {"m": 2, "n": 3, "unk__0": 1}]


@pytest.mark.parametrize("parts", [(), ("time",), ("request",), ("shape",), ("time", "request"), ("shape", "request")])
def test_only_the_parts_asked_for_are_cut(parts: tuple[str, ...]) -> None:
    model = conditioned()
    found = cut(model, INPUTS, parts)
    assert [part.name for part in found] == [*parts, "main"]
    assert_together(model, found, *SIZES_TRIED)


def test_a_graph_without_a_step_is_left_alone() -> None:
    model = conditioned()
    inputs = {"latents": Known("chunk", "request"), "timestep": TIMESTEP, "prompt": PROMPT}
    (part,) = cut(model, inputs)
    assert (part.name, part.example) == ("main", {"n": 3, "m": 2, "k": 4, "r": 1})
    assert text(part.model) == text(model)


def test_a_graph_in_which_everything_needs_the_step_is_left_alone() -> None:
    model = parse("g (float[n] x, float[n] p) => (float[n] y) { s = Add (x, p)  y = Tanh (s) }")
    (part,) = cut(model, {"x": STEP, "p": PROMPT})
    assert text(part.model) == text(model)


# Rules


def test_what_depends_on_two_kinds_stays() -> None:
    model = parse(
        """g (float[n, 4] x, float[1, 4] t, float[1, 4] p) => (float[n, 4] y) {
            a = Tanh (t)  b = Sin (p)  both = Mul (a, b)  z = Cos (both)  y = Add (x, z) }"""
    )
    parts = cut(model, {"x": STEP, "t": TIMESTEP, "p": PROMPT})
    assert {part.name: text(part.model) for part in parts} == {
        "time": ["value = Tanh(t)"],
        "request": ["value.1 = Sin(p)"],
        "main": ["v0 = Mul(value, value.1)", "v1 = Cos(v0)", "y = Add(x, v1)"],
    }
    assert_together(model, parts, {"n": 1}, {"n": 3})


def test_sizes_go_with_a_prompt_and_with_no_timestep() -> None:
    model = parse(
        """g (float[n, 4] x, float[1, 4] t, float[1, 4] p) => (float[n, 4] y) {
            sizes = Shape (x)  ts = Expand (t, sizes)  ps = Expand (p, sizes)  a = Tanh (ts)  b = Sin (ps)
            both = Add (a, b)  y = Add (x, both) }"""
    )
    parts = cut(model, {"x": STEP, "t": TIMESTEP, "p": PROMPT})
    assert {part.name: described(part) for part in parts[:-1]} == {
        "request": ["x.shape [2] request/request", "p [1, 4] request/branch"]
    }
    assert "Tanh" in "".join(text(parts[-1].model))
    assert_together(model, parts, {"n": 1}, {"n": 3})


def test_chunks_have_parts_of_their_own() -> None:
    model = parse(
        """g (float[4] x, float[4] c, float[4] p) => (float[4] y) {
            a = Tanh (c)  b = Sin (p)  both = Mul (a, b)  z = Cos (both)  s = Add (x, a)  y = Add (s, z) }"""
    )
    parts = cut(model, {"x": STEP, "c": Known("chunk", "request"), "p": PROMPT})
    assert [(part.name, text(part.model)) for part in parts] == [
        ("request", ["value.1 = Sin(p)"]),
        ("chunk", ["value = Tanh(c)"]),
        ("chunk-branch", ["v0 = Mul(value, value.1)", "value.2 = Cos(v0)"]),
        ("main", ["v0 = Add(x, value)", "y = Add(v0, value.2)"]),
    ]
    assert_together(model, parts, {})


def test_outputs_never_move() -> None:
    """Not even those that are known at once; what they are computed from does."""
    model = parse(
        """g (float[4] x, float[4] p) => (float[4] y, float[4] z) {
            a = Tanh (p)  z = Sin (a)  b = Cos (z)  y = Add (x, b) }"""
    )
    parts = cut(model, {"x": STEP, "p": PROMPT})
    assert [(part.name, text(part.model)) for part in parts] == [
        ("request", ["value = Tanh(p)"]),
        ("main", ["z = Sin(value)", "v0 = Cos(z)", "y = Add(x, v0)"]),
    ]
    assert_together(model, parts, {})


def test_constants_are_in_every_part_that_uses_them() -> None:
    model = parse(
        """g (float[4] x, float[4] p, float[4] w.weight) => (float[4] y) {
            half = Constant <value = float {0.5}> ()  u = Mul (w.weight, half)
            a = Mul (p, u)  b = Mul (x, u)  y = Add (a, b) }""",
        "w.weight",
    )
    parts = cut(model, {"x": STEP, "p": PROMPT})
    assert [(part.name, text(part.model)) for part in parts] == [
        ("request", ["v0 = Mul(w.weight, 0.5)", "w = Mul(p, v0)"]),
        ("main", ["v0 = Mul(w.weight, 0.5)", "v1 = Mul(x, v0)", "y = Add(w, v1)"]),
    ]
    assert_together(model, parts, {})


@pytest.mark.parametrize(
    "node",
    [
        "r = RandomNormalLike <seed = 1.0> (a)",
        "r = RandomUniformLike <seed = 1.0> (a)",
        "r = Bernoulli <seed = 1.0> (a)",
    ],
)
def test_a_random_node_stays(node: str) -> None:
    model = parse(f"g (float[4] x, float[4] p) => (float[4] y) {{ a = Sigmoid (p)  {node}  y = Add (x, r) }}")
    parts = cut(model, {"x": STEP, "p": PROMPT})
    assert text(parts[0].model) == ["value = Sigmoid(p)"]
    assert [line.split(" = ")[1].split("(")[0] for line in text(parts[1].model)] == [node[4:].split(" ")[0], "Add"]


def test_a_node_with_a_subgraph_stays_and_what_it_captures_moves() -> None:
    model = parse(
        """g (float[4] x, float[4] p, bool c) => (float[4] y) {
            a = Tanh (p)  b = Sin (p)
            r = If (c) <
                then_branch = t () => (float[4] o) { d = Cos (a)  o = Add (d, a) },
                else_branch = e () => (float[4] o) { o = Neg (b) }>
            y = Add (x, r) }"""
    )
    before = model.clone()
    parts = cut(model, {"x": STEP, "p": PROMPT, "c": PROMPT})
    assert [(part.name, text(part.model)) for part in parts] == [
        ("request", ["value = Tanh(p)", "value.1 = Sin(p)"]),
        ("main", ["v0 = If(c, else_branch=graph, then_branch=graph)", "y = Add(x, v0)"]),
    ]
    for truth in (False, True):
        feeds = noise(before, {}, 0) | {"c": np.array(truth)}
        assert_close(together(parts, feeds)["y"], run(before, feeds)["y"])


def test_names_of_a_subgraph_do_not_hide_what_crosses() -> None:
    """What crosses would be called `w`, as a value in the branch is."""
    model = parse(
        """g (float[4] x, float[4] p, float[4] w.weight, bool c) => (float[4] y) {
            a = Mul (p, w.weight)  r = If (c) <
                then_branch = t () => (float[4] o) { w = Cos (a)  o = Add (w, a) },
                else_branch = e () => (float[4] o) { o = Sin (a) }>
            y = Add (x, r) }""",
        "w.weight",
    )
    parts = cut(model, {"x": STEP, "p": PROMPT, "c": PROMPT})
    assert text(parts[0].model) == ["w.0 = Mul(p, w.weight)"]
    for truth in (False, True):
        feeds = noise(model, {}, 0) | {"c": np.array(truth)}
        assert_close(together(parts, feeds)["y"], run(model, feeds)["y"])


# Sizes


@pytest.mark.parametrize("asked", [EVERY, ("request",), ("shape",), ("shape", "request")])
def test_sizes_of_other_values_are_known_with_them(asked: tuple[str, ...]) -> None:
    """Only an input has a shape that its caller knows: no part may compute a value to look how large it is."""
    model = parse(
        """g (float[n, 4] x, float[m, 4] p, float[4, 4] w.weight) => (float[k, 4] y) {
            a = MatMul (p, w.weight)  half = Constant <value = float[1, 4] {1, 2, 3, 4}> ()
            of_a = Shape (a)  as_a = Expand (half, of_a)  b = MatMul (x, w.weight)  of_b = Shape (b)
            as_b = Expand (half, of_b)  c = Tanh (as_b)  y = Concat <axis = 0> (x, as_a, a, c) }""",
        "w.weight",
    )
    parts = cut(model, {"x": STEP, "p": PROMPT}, asked)
    assert {entry.shape_of for part in parts for entry in part.inputs} <= {None, "x", "p"}
    assert all(entry.binding != "step" for part in parts[:-1] for entry in part.inputs)
    assert_together(model, parts, {"n": 1, "m": 2}, {"n": 3, "m": 5})


def test_sizes_in_a_branch_are_left_there() -> None:
    model = parse(
        """g (float[n, 4] x, float[m, 4] p, bool c) => (float[n, 4] y) {
            a = ReduceSum (p)
            r = If (c) <
                then_branch = t () => (float[2] o) { s = Shape (p)  o = Cast <to = 1> (s) },
                else_branch = e () => (float[2] o) { s = Shape (p)  i = Cast <to = 1> (s)  o = Neg (i) }>
            total = ReduceSum (r)  z = Add (x, total)  y = Add (z, a) }"""
    )
    parts = cut(model, {"x": STEP, "p": PROMPT, "c": STEP})
    for truth in (False, True):
        feeds = noise(model, {"n": 2, "m": 3}, 0) | {"c": np.array(truth)}
        assert_close(together(parts, feeds)["y"], run(model, feeds)["y"])


@pytest.mark.parametrize(
    ("attributes", "kept"), [("start = 0", [0, 1]), ("start = 1", [1]), ("start = -2, end = -1", [0])]
)
def test_a_slice_of_a_shape(attributes: str, kept: list[int]) -> None:
    model = parse(
        f"""g (float[n, 4] x, float[1, 4] p) => (float[n, 4] y) {{
            sizes = Shape <{attributes}> (x)  number = Cast <to = 1> (sizes)  total = ReduceSum (number)
            a = Mul (p, total)  y = Add (x, a) }}"""
    )
    parts = cut(model, {"x": STEP, "p": PROMPT})
    assert text(parts[0].model)[0] == f"v0 = Gather(x.shape, {str(kept).replace(' ', '')}, axis=0)"
    assert_together(model, parts, {"n": 2}, {"n": 5})


def test_another_domains_shape_is_no_size() -> None:
    model = parse(
        """g (float[n, 4] x, float[n, 4] p) => (float[n, 4] y) {
            s = custom.Shape (p)  y = custom.Use (x, s) }"""
    )
    for node in model.graph:
        node.outputs[0].shape, node.outputs[0].type = ir.Shape([2]), ir.TensorType(ir.DataType.FLOAT)
    parts = cut(model, {"x": STEP, "p": PROMPT})
    assert [(part.name, text(part.model)) for part in parts] == [
        ("request", ["value = custom.Shape(p)"]),
        ("main", ["y = custom.Use(x, value)"]),
    ]


def test_computed_sizes_get_names_of_their_own() -> None:
    model = parse(
        """g (float[n] x, float[n] p, float[m] q) => (float[n] y) {
            both = Concat <axis = 0> (p, q)  each = Tanh (both)  column = Unsqueeze (p, last)
            row = Unsqueeze (q, first)  all = Mul (column, row)  line = Reshape (all, last)  a = ReduceSum (each)
            b = Add (line, a)  c = ReduceMax (x)  d = Add (each, c)  e = Add (b, c)
            f = ReduceSum (d)  g = ReduceSum (e)  h = Add (x, f)  y = Add (h, g) }""".replace(
            "{", "{ last = Constant <value_ints = [-1]> ()  first = Constant <value_ints = [0]> ()", 1
        )
    )
    sizes = {"each": "n + m", "line": "n*m", "b": "n*m"}
    for node in model.graph:
        if (name := str(node.outputs[0].name)) in sizes:
            node.outputs[0].shape = ir.Shape([sizes[name]])
    parts = cut(model, {"x": STEP, "p": PROMPT, "q": PROMPT})
    *_, each, b = parts[-1].inputs
    assert len({each.shape, b.shape}) == 2
    assert [parts[-1].example[str(entry.shape[0])] for entry in (each, b)] == [5, 6]
    assert_together(model, parts, {"n": 1, "m": 2}, {"n": 3, "m": 2})


PLACED = """g (float[n, m, 4] x, float[n, m] p) => (float[n, m, 4] y) {
    line = Constant <value_ints = [-1, 1]> ()  rows = Constant <value_ints = [-1, 4]> ()
    flat = Reshape (p, line)  table = Cos (flat)  tokens = Reshape (x, rows)  turned = Mul (tokens, table)
    sizes = Shape (x)  y = Reshape (turned, sizes) }"""


@pytest.mark.parametrize(("named", "name"), [({}, "n_m"), ({"tokens": "m*n"}, "tokens"), ({"n": "m*n"}, "n_2")])
def test_a_computed_size_has_one_name_in_all_of_a_part(named: dict[str, str], name: str) -> None:
    """Given or made up, and never that of another size."""
    model = parse(PLACED)
    for node in model.graph:
        if (value := node.outputs[0]).name in ("flat", "table", "tokens", "turned"):
            value.shape = ir.Shape(["n*m", 4 if value.name in ("tokens", "turned") else 1])
    parts = cut(model, {"x": STEP, "p": PROMPT}, named=named)
    assert [entry.shape for entry in parts[-1].inputs[1:]] == [(name, 1)]
    assert parts[-1].computed == {name: "n*m"} and parts[-1].example[name] == 6
    shapes = [str(value.shape) for part in parts for node in part.model.graph for value in node.outputs]
    assert not any("*" in shape for shape in shapes), shapes
    assert sum(name in shape for shape in shapes) == 4
    assert_together(model, parts, {"n": 1, "m": 2}, {"n": 3, "m": 2})


def test_a_row_of_whole_numbers_that_is_no_size_moves() -> None:
    """What was computed from a prompt is computed once, whatever its type."""
    model = parse(
        """g (float[4, 4] x, float[4, 4] p, float[4, 4] w.weight) => (float[4, 4] y) {
            a = MatMul (p, w.weight)  i = ArgMax <axis = 1, keepdims = 0> (a)  y = Gather <axis = 0> (x, i) }""",
        "w.weight",
    )
    for per in ("branch", "request"):
        parts = cut(model, {"x": STEP, "p": Known("request", per)})  # type: ignore[arg-type]
        assert text(parts[-1].model) == ["y = Gather(x, w, axis=0)"]
        assert_together(model, parts, {})


# What has no declaration


def test_what_cannot_be_an_input_stays() -> None:
    """A sequence, and a tensor of unknown rank: where they are used, they are made."""
    model = parse(
        """g (float[4] x, float[4] p, int64[r] shape) => (float[4] y) {
            a = Tanh (p)  b = Cos (p)  s = SequenceConstruct (a, b)  one = Constant <value_int = 1> ()
            c = SequenceAt (s, one)  d = Expand (a, shape)  e = ReduceSum <keepdims = 0> (d)
            f = custom.Unknown (c)  z = Add (x, e)  y = custom.Both (z, f) }"""
    )
    parts = cut(model, {"x": STEP, "p": PROMPT, "shape": STEP})
    assert [(part.name, text(part.model)[-1]) for part in parts][-1] == ("main", text(parts[-1].model)[-1])
    assert all("Sequence" not in line or part.name == "request" for part in parts for line in text(part.model))


# Any graph


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graph=graphs(), parts=st.just(EVERY) | st.lists(st.sampled_from(EVERY), unique=True))
def test_any_graph_gives_the_same_in_parts(graph: tuple[str, dict[str, Known]], parts: Sequence[str]) -> None:
    written, inputs = graph
    model = parse(written, "w.weight", "u.weight")
    found = cut(model, inputs, parts)
    assert_together(model, found, {"n": 1}, {"n": 3})
    # Nothing before the last part takes the value of a step's input; only its shape.
    assert {entry.binding for part in found[:-1] for entry in part.inputs} <= {"build", "request", "chunk"}
    if set(parts) == set(EVERY):
        assert late_products(found[-1]) == []


def late_products(part: HoistedPiece) -> list[str]:
    """Products in a part that could be computed before a step: found by looking at all that each depends on."""
    kinds: dict[ir.Value, set[Known]] = {value: set() for value in part.model.graph.initializers.values()}
    for value, entry in zip(part.model.graph.inputs, part.inputs, strict=True):
        kinds[value] = {Known(entry.binding, entry.per)}
    late: list[str] = []
    for node in part.model.graph:
        inputs = [value for value in node.inputs if value is not None]
        found = set().union(*(kinds[value] for value in inputs))
        if node.op_type == "Shape" and inputs[0].is_graph_input():
            found = {SIZES}
        if any(value.is_graph_output() for value in node.outputs):
            found = {STEP}  # it has to stay
        kinds.update((value, found) for value in node.outputs)
        known = found and STEP not in found and not (TIMESTEP in found and found != {TIMESTEP})
        if known and node.op_type in PRODUCTS:
            late.append(str(node.outputs[0].name))
    return late


ANY = st.none() | st.sampled_from(TIMES)


@given(left=ANY, right=ANY)
def test_joining_two_times(left: Known | None, right: Known | None) -> None:
    joined = join(left, right, STEP)
    assert joined == join(right, left, STEP)
    assert join(left, left, STEP) == left
    assert join(left, None, STEP) == left


def test_joining_three_times_in_any_order() -> None:
    for one, two, three in product((None, *TIMES), repeat=3):
        left = join(join(one, two, STEP), three, STEP)
        assert left == join(one, join(two, three, STEP), STEP), (one, two, three)
