"""Applying passes in their order, until nothing changes, with words for what fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.compiler.passes.apply import MOST_ROUNDS_IN_VAIN, TELL_US, Applied, PassError, apply_passes, count_nodes
from wanc.compiler.passes.order import ordered
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.passes.rewrite import Pass, PassOutcome, Refusal, Rewrite, accept, refuse, rewriting, skip
from wanc.errors import UserError, render

from .builder import assert_same, parse, text

ROOT = Path(__file__).resolve().parents[3]
CHAIN = "g (float[s] x) => (float[s] y) { a = Sin (x)  b = Cos (a)  y = Tanh (b) }"


def renaming(old: str, new: str) -> Pass:
    """Turns the nodes of one operator into those of another."""

    class Renamed(Rewrite):
        def pattern(self, op, x):  # type: ignore[no-untyped-def]
            return getattr(op, old)(x)

        def rewrite(self, op, x):  # type: ignore[no-untyped-def]
            return getattr(op, new)(x)

    return Pass(f"{old}-{new}", "", rewriting(Renamed))


def test_passes_are_applied_until_nothing_fires() -> None:
    """Each makes the one before it possible, so that a single round would do a third of it."""
    model = parse(CHAIN)
    passes = [renaming("Sinh", "Cosh"), renaming("Asin", "Sinh"), renaming("Sin", "Asin")]
    applied = apply_passes(model, passes, where="part/graph")
    assert [entry.fired for entry in applied] == [1, 1, 1]
    assert text(model) == ["v0 = Cosh(x)", "v1 = Cos(v0)", "y = Tanh(v1)"]


def test_two_passes_that_undo_each_other_are_a_bug() -> None:
    passes = [renaming("Cos", "Acos"), renaming("Sin", "Asin"), renaming("Asin", "Sin")]
    with pytest.raises(PassError) as caught:
        apply_passes(parse(CHAIN), passes, where="part/graph")
    message = str(caught.value)
    assert "on part/graph these passes fire again and again: Sin-Asin, Asin-Sin. " in message
    assert "Cos-Acos" not in message  # which fired once
    assert "This is a bug of wanc" in message
    assert not isinstance(caught.value, UserError)


def test_a_pass_that_always_finds_more_to_do_is_a_bug() -> None:
    def grow(model: ir.Model) -> PassOutcome:
        last = model.graph.outputs[0].producer()
        assert last is not None
        more = ir.node("Abs", [last.inputs[0]])
        model.graph.insert_before(last, more)
        last.replace_input_with(0, more.outputs[0])
        return PassOutcome(1)

    with pytest.raises(PassError, match="again and again: grow"):
        apply_passes(parse(CHAIN), [Pass("grow", "", grow)], where="part/graph")


def test_what_takes_long_and_gets_smaller_comes_to_rest() -> None:
    """Each round takes off one of many layers."""

    def peel(model: ir.Model) -> PassOutcome:
        found = next((node for node in model.graph if node.op_type == "Abs"), None)
        if found is None:
            return PassOutcome()
        found.outputs[0].replace_all_uses_with(found.inputs[0])  # type: ignore[arg-type]
        return PassOutcome(1)

    layers = 4 * MOST_ROUNDS_IN_VAIN
    body = " ".join(f"a{index + 1} = Abs (a{index})" for index in range(layers))
    model = parse(f"g (float[s] x) => (float[s] y) {{ a0 = Neg (x) {body} y = Tanh (a{layers}) }}")
    (applied,) = apply_passes(model, [Pass("peel", "", peel)], where="part/graph")
    assert (applied.fired, applied.nodes) == (layers, -layers)
    assert text(model) == ["v0 = Neg(x)", "y = Tanh(v0)"]


def test_shapes_that_depend_on_one_another_come_to_rest() -> None:
    """Passes that there are take a round for every other link of such a chain."""

    def wide(i: int) -> str:
        return f"f{i}, g{i}" if i % 2 == 0 else f"g{i}, f{i}"

    links = 3 * MOST_ROUNDS_IN_VAIN
    constants = " ".join(f"c{index} = Constant <value_ints = [{index}]> ()" for index in range(3))
    body = " ".join(
        f"s{i} = Shape (v{i}) n{i} = Gather (s{i}, c0) d{i} = Gather (s{i}, c1) e{i} = Gather (s{i}, c2)"
        f" f{i} = Mul (d{i}, c2) g{i} = Div (e{i}, c2) t{i} = Concat <axis = 0> (n{i}, {wide(i)})"
        f" r{i} = Reshape (v{i}, t{i}) u{i} = Sin (r{i}) v{i + 1} = Transpose <perm = [0, 2, 1]> (u{i})"
        for i in range(links)
    )
    model = parse(
        f"g (float[n, 4, 6] x) => (float[n, 4, 6] y) {{ {constants} v0 = Neg (x) {body} y = Neg (v{links}) }}"
    )
    before = model.clone()
    apply_passes(model, [entry for entry in all_passes() if entry.by_default], where="part/graph")
    assert "Shape" not in {node.op_type for node in model.graph}
    assert_same(before, model, {"n": 2})


def test_nodes_that_come_and_go_are_counted() -> None:
    def drop_cos(model: ir.Model) -> PassOutcome:
        found = [node for node in model.graph if node.op_type == "Cos"]
        for node in found:
            node.outputs[0].replace_all_uses_with(node.inputs[0])  # type: ignore[arg-type]
        return PassOutcome(len(found))

    (applied,) = apply_passes(parse(CHAIN), [Pass("drop", "", drop_cos)], where="part/graph")
    assert (applied.fired, applied.nodes) == (1, -1)


class Picky(Rewrite):
    """Refuses everything but a tangent of a cosine."""

    def pattern(self, op, x):  # type: ignore[no-untyped-def]
        return op.Tanh(x)

    def check(self, context, x):  # type: ignore[no-untyped-def]
        return accept() if x.producer().op_type == "Cos" else refuse("it is no cosine")

    def rewrite(self, op, x):  # type: ignore[no-untyped-def]
        return op.Atan(x)


def test_refusals_survive_and_are_counted_by_their_reason() -> None:
    model = parse(
        "g (float[s] x) => (float[s] u, float[s] v, float[s] w) {"
        "a = Sin (x)  u = Tanh (a)  v = Tanh (u)  b = Cos (x)  w = Tanh (b) }"
    )
    (applied, _) = apply_passes(
        model, [Pass("picky", "", rewriting(Picky)), renaming("Sin", "Sinh")], where="part/graph"
    )
    assert applied.fired == 1
    assert applied.refusals == [Refusal("u", "it is no cosine"), Refusal("v", "it is no cosine")]
    assert applied.as_json() == {
        "name": "picky",
        "fired": 1,
        "nodes": 0,
        "refused": [{"reason": "it is no cosine", "times": 2, "example": "u"}],
    }


def test_nothing_to_do_is_no_refusal() -> None:
    class Silent(Picky):
        def check(self, context, x):  # type: ignore[no-untyped-def]
            return skip()

    (applied,) = apply_passes(parse(CHAIN), [Pass("silent", "", rewriting(Silent))], where="part/graph")
    assert (applied.fired, applied.refusals) == (0, [])


def test_a_pass_that_fails_is_named_with_the_graph() -> None:
    def fail(model: ir.Model) -> PassOutcome:
        raise ZeroDivisionError("division by zero")

    for hint, shown in ((TELL_US, TELL_US), ("leave out {name}", "leave out broken")):
        with pytest.raises(UserError) as caught:
            apply_passes(parse(CHAIN), [Pass("broken", "", fail)], where="denoiser_high/step", hint=hint)
        message = render(caught.value)
        assert "the pass broken fails on denoiser_high/step" in message
        assert "division by zero" in message
        assert f"hint: {shown}" in message


def test_a_pass_that_makes_a_graph_invalid_is_a_bug() -> None:
    """It keeps its traceback, and what ONNX's checker says."""
    with pytest.raises(PassError) as caught:
        apply_passes(parse(CHAIN), [renaming("Cos", "Cosine")], where="denoiser_high/step")
    message = str(caught.value)
    assert message.startswith("the pass Cos-Cosine made denoiser_high/step invalid: ")
    assert "No Op registered for Cosine" in message
    assert "This is a bug of wanc" in message
    assert not isinstance(caught.value, UserError)


def test_a_graph_that_the_checker_refuses_is_left_as_it_is() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 11, opset_import: ["" : 23]>'
        "g (float[4] x) => (float[4] y) { a = Tanh (x, x)  b = Sin (a)  y = Cos (b) }"
    )
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    passes = [entry for entry in all_passes() if entry.by_default]
    applied = apply_passes(model, passes, where="model/main")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [entry.name for entry in applied] == [entry.name for entry in passes]
    for entry in applied:
        (refusal,) = entry.refusals
        assert refusal.value == "model/main"
        assert refusal.reason.startswith("ONNX's checker refuses the graph: ")
        assert "\n" not in refusal.reason


def test_no_passes_change_nothing() -> None:
    model = parse(CHAIN)
    model.graph[0].metadata_props["note"] = "kept by nobody"
    assert apply_passes(model, [], where="part/graph") == []
    assert text(model) == text(parse(CHAIN))


def test_notes_of_libraries_go() -> None:
    model = parse(CHAIN)
    places = (model, model.graph, *model.graph)
    for place in places:
        place.metadata_props["note"] = "from somewhere"
    apply_passes(model, [renaming("Sin", "Asin")], where="part/graph")
    assert not any(place.metadata_props for place in (model, model.graph, *model.graph))


DIGESTS = """
import hashlib, sys
import onnx_ir as ir
from pathlib import Path
from tests.compiler.passes.test_anything import GRAPHS, applied
for name, proto in GRAPHS.items():
    model, _ = applied(proto, Path(sys.argv[1]))
    print(name, hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest())
"""


def test_equal_graphs_become_equal_bytes_in_any_process(tmp_path: Path) -> None:
    """Whatever order the process keeps sets in."""
    outputs: list[str] = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", DIGESTS, tmp_path], env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) > 20


def test_every_pass_leaves_a_plain_graph_alone() -> None:
    model = parse(CHAIN)
    before = model.clone()
    applied = apply_passes(model, all_passes(), where="part/graph")
    assert applied == [Applied(entry.name) for entry in all_passes()]
    assert text(model) == text(before)
    assert_same(before, model, {"s": 3})


def test_nodes_of_subgraphs_are_counted() -> None:
    model = parse(
        """g (float[4] x, bool c) => (float[4] y) { y = If (c) <
            then_branch = t () => (float[4] o) { a = Cos (x)  o = Sin (a) },
            else_branch = e () => (float[4] o) { o = Sin (x) }> }"""
    )
    assert count_nodes(model) == 4


# Order


def named(name: str, *after: str) -> Pass:
    return Pass(name, "", lambda model: PassOutcome(), after)


def names(passes: tuple[Pass, ...]) -> list[str]:
    return [entry.name for entry in passes]


def test_the_given_order_is_kept_where_it_may_be() -> None:
    assert names(ordered([named("c"), named("a"), named("b")])) == ["c", "a", "b"]
    assert names(ordered([named("c", "a"), named("a"), named("b")])) == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ([named("a"), named("b"), named("a")], "two passes are called a"),
        ([named("a", "z")], "the pass a comes after z, which is no pass"),
        ([named("a", "a")], "passes come after one another in a circle: a"),
        ([named("x"), named("a", "b"), named("b", "c"), named("c", "a")], "in a circle: a, b, c"),
    ],
)
def test_what_has_no_order(passes: list[Pass], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ordered(passes)


@given(data=st.data(), count=st.integers(0, 8))
def test_every_pass_comes_after_those_that_it_names(data: st.DataObject, count: int) -> None:
    """Passes that have an order, given in any other."""
    drawn = [
        named(
            str(index),
            *data.draw(
                st.lists(st.sampled_from([str(n) for n in range(index)]), unique=True) if index else st.just([])
            ),
        )
        for index in range(count)
    ]
    shuffled = data.draw(st.permutations(drawn))
    result = ordered(shuffled)
    assert sorted(names(result)) == sorted(names(tuple(shuffled)))
    for index, entry in enumerate(result):
        earlier = {done.name for done in result[:index]}
        assert set(entry.after) <= earlier
        # Whatever was given before it and comes behind it had to wait.
        overtaken = [other for other in result[index:] if shuffled.index(other) < shuffled.index(entry)]
        assert all(not set(other.after) <= earlier for other in overtaken)


def test_the_order_of_the_passes_that_there_are() -> None:
    result = names(all_passes())
    assert result.index("opset") < result.index("fold") < result.index("tidy") < result.index("strided-writes")
    assert result.index("strided-writes") < result.index("rope") < result.index("attention")
    assert result.index("attention") < result.index("attention-heads") < result.index("merge-projections")
    assert [entry.name for entry in all_passes() if not entry.by_default] == ["merge-projections"]
    assert all(entry.summary for entry in all_passes())
