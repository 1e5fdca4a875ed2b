"""Older graphs are brought to the opset that has the canonical operators, or left alone with a reason."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from onnxscript.version_converter._version_converter import VersionConverterError

from wanc.compiler.passes import opset

from .builder import apply, assert_same, parse, text

SIZES = ({"s": 1}, {"s": 5})
TEXT = """g (float[s, 4] x, float[2] w) => (float[s, 2] y) {
    two = Constant <value = float {2}> ()  last = Constant <value_ints = [1]> ()
    a, b = Split <axis = 1, num_outputs = 2> (x)  square = Pow (b, two)  mean = ReduceMean (square, last)
    shifted = Sub (a, mean)  scaled = Mul (shifted, w)  y = Softmax <axis = 1> (scaled) }"""


GROUPS = """g (float[2, C, s] x, float[2] w, float[2] b) => (float[2, C, s] y) {
    y = GroupNormalization <num_groups = 2> (x, w, b) }"""


@pytest.mark.parametrize("version", [18, 19, 20, 21, 22])
def test_later_opsets_are_converted(version: int) -> None:
    model = parse(TEXT, "w", opset=version)
    before = model.clone()
    outcome = apply(model, opset.convert)
    assert (outcome.fired, outcome.refusals) == (1, [])
    assert model.graph.opset_imports[""] == opset.OPSET
    assert model.ir_version >= opset.IR_VERSION
    assert text(model) == text(before)
    assert_same(before, model, *SIZES)
    assert opset.convert(model).fired == 0


def test_a_group_norm_gets_a_scale_for_each_channel() -> None:
    model = parse(GROUPS.replace("C", "4"), "w", "b", opset=20)
    before = model.clone()
    assert apply(model, opset.convert).fired == 1
    assert text(model)[-1] == "y = GroupNormalization(x, v2, v5, num_groups=2)"
    assert_same(before, model, *SIZES)


def test_a_group_norm_of_an_unknown_number_of_channels_stays() -> None:
    model = parse(GROUPS.replace("C", "c"), "w", "b", opset=20)
    assert [refusal.reason for refusal in opset.convert(model).refusals] == [
        "the node y (GroupNormalization) has an unknown number of channels"
    ]
    assert model.graph.opset_imports[""] == 20


@pytest.mark.parametrize("version", [23, 24])
def test_opsets_that_have_the_operators_stay(version: int) -> None:
    model = parse(TEXT, "w", opset=version)
    outcome = opset.convert(model)
    assert (outcome.fired, outcome.refusals, model.graph.opset_imports[""]) == (0, [], version)


@pytest.mark.parametrize("version", [7, 11, 17])
def test_older_opsets_stay(version: int) -> None:
    model = parse("g (float[s] x) => (float[s] y) { y = Tanh (x) }", opset=version)
    outcome = opset.convert(model)
    assert [refusal.reason for refusal in outcome.refusals] == [
        f"opset {version} is older than 18, the first that can be converted"
    ]
    assert (outcome.fired, model.graph.opset_imports[""]) == (0, version)


def test_a_graph_with_a_branch_stays_and_the_branch_is_named() -> None:
    model = parse(
        """g (float[4] x, bool c) => (float[4] y) {
            a = Tanh (x)
            [choice] y = If (c) <
                then_branch = t () => (float[4] o) { o = Cos (a) },
                else_branch = e () => (float[4] o) { o = Sin (a) }> }""",
        opset=20,
    )
    outcome = opset.convert(model)
    assert [refusal.reason for refusal in outcome.refusals] == ["the node choice (If) holds a graph"]
    assert (outcome.fired, model.graph.opset_imports[""]) == (0, 20)


def test_a_node_without_a_name_is_named_by_what_it_gives() -> None:
    model = parse(
        """g (float[4] x, bool c) => (float[4] y) { y = If (c) <
            then_branch = t () => (float[4] o) { o = Cos (x) },
            else_branch = e () => (float[4] o) { o = Sin (x) }> }""",
        opset=20,
    )
    assert [refusal.reason for refusal in opset.convert(model).refusals] == ["the node y (If) holds a graph"]


def test_a_graph_with_functions_stays() -> None:
    model = parse(
        """g (float[4] x) => (float[4] y) { y = local.twice (x) }
        <domain: "local", opset_import: ["" : 20]> twice (x) => (y) { y = Add (x, x) }""",
        opset=20,
    )
    assert [refusal.reason for refusal in opset.convert(model).refusals] == ["it has functions of its own"]


def test_what_the_converter_refuses_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It works in place, and fails half-way: nothing of the graph may have changed then."""

    def fail(model: ir.Model, target_version: int) -> None:
        model.graph.opset_imports[""] = target_version
        model.graph.remove(model.graph[-1])
        raise VersionConverterError("no rule for Softmax")

    monkeypatch.setattr(opset, "convert_version", fail)
    model = parse(TEXT, "w", opset=18)
    before = text(model)
    outcome = opset.convert(model)
    assert [refusal.reason for refusal in outcome.refusals] == ["no rule for Softmax"]
    assert (outcome.fired, text(model), model.graph.opset_imports[""]) == (0, before, 18)


def test_weights_are_not_read() -> None:
    model = parse(TEXT, "w", opset=18)
    (weight,) = [value.const_value for value in model.graph.initializers.values()]
    apply(model, opset.convert)
    assert model.graph.initializers["w"].const_value is weight
