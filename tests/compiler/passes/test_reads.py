"""No rule loses what a node says in an attribute of which it knows nothing: every rule that there is, every node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.engines.onnxruntime import passes as onnxruntime_passes  # noqa: F401
from wanc.compiler.engines.openvino import passes as openvino_passes  # noqa: F401
from wanc.compiler.passes import registry  # noqa: F401
from wanc.compiler.passes.activations import GROUPINGS, Gelu
from wanc.compiler.passes.convolution import absorb_padding
from wanc.compiler.passes.rewrite import PassOutcome, Rewrite, accept, rewriting
from wanc.compiler.passes.tidy import tidy

from .builder import assert_same, parse, text


class Nodes:
    """In the place of a pattern's operators: makes the nodes that it matches."""

    def __init__(self) -> None:
        self.made: list[ir.Node] = []
        self.inputs: list[ir.Value] = []
        self.constants: list[ir.Value] = []

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        return partial(self._make, op_type)

    def variable(self, name: str) -> ir.Value:
        self.inputs.append(ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 2])))
        return self.inputs[-1]

    def _make(self, op_type: str, *inputs: Any, **attributes: Any) -> ir.Value:
        domain = attributes.pop("_domain", "")
        said = {name: value for name, value in attributes.items() if not name.startswith("_")}
        self.made.append(ir.node(op_type, [self._value(entry) for entry in inputs], said, domain=domain))
        (output,) = self.made[-1].outputs
        output.type, output.name = ir.TensorType(ir.DataType.FLOAT), f"v{len(self.made)}"
        return output

    def _value(self, entry: Any) -> ir.Value | None:
        if entry is None or isinstance(entry, ir.Value):
            return entry
        tensor = ir.tensor(np.array(entry, np.float32 if isinstance(entry, float) else np.int64))
        self.constants.append(ir.Value(name=f"c{len(self.constants)}", const_value=tensor, shape=tensor.shape))
        return self.constants[-1]


def rules(of: type[Rewrite] = Rewrite) -> Iterator[Callable[[], Rewrite]]:
    """Every rule of wanc's own, those of tests aside."""
    for kind in of.__subclasses__():
        yield from rules(kind)
        if kind.__module__.startswith("wanc.") and kind.pattern is not Rewrite.pattern and kind is not Gelu:
            yield from [partial(kind, grouping) for grouping in GROUPINGS] if issubclass(kind, Gelu) else [kind]


ALL = list(rules())


def matched(make: Callable[[], Rewrite]) -> tuple[Callable[[], Rewrite], ir.Model, list[ir.Node]]:
    """A rule that rewrites whatever its pattern matches, and a graph of just that."""
    rule = make()
    nodes = Nodes()
    names = [name for name in signature(rule.pattern).parameters if name != "op"]
    result = rule.pattern(nodes, *map(nodes.variable, names))

    def always() -> Rewrite:
        anything: Any = make()
        anything.check = lambda context, **_: accept()
        anything.rewrite = lambda op, **bound: op.Identity(nodes.inputs[0])
        return anything

    graph = ir.Graph(nodes.inputs, [result], nodes=nodes.made, initializers=nodes.constants, opset_imports={"": 23})
    return always, ir.Model(graph, ir_version=11), nodes.made


def test_all_rules_are_looked_at() -> None:
    assert len(ALL) >= 30


@pytest.mark.parametrize("make", ALL, ids=lambda make: getattr(make, "func", make).__name__)
def test_an_attribute_that_a_rule_does_not_know_is_refused_on_every_node(make: Callable[[], Rewrite]) -> None:
    always, model, nodes = matched(make)
    assert rewriting(always)(model).fired == 1
    for index in range(len(nodes)):
        always, model, nodes = matched(make)
        nodes[index].attributes["from_a_later_opset"] = ir.AttrInt64("from_a_later_opset", 1)
        outcome: PassOutcome = rewriting(always)(model)
        assert outcome.fired == 0
        assert {refusal.reason for refusal in outcome.refusals} == {
            f"{nodes[index].op_type} has the attribute from_a_later_opset, which this rewrite knows nothing of"
        }


@pytest.mark.parametrize("make", ALL, ids=lambda make: getattr(make, "func", make).__name__)
def test_what_a_function_is_given_is_not_known(make: Callable[[], Rewrite]) -> None:
    always, model, nodes = matched(make)
    nodes[-1].attributes["given"] = ir.RefAttr("given", "outer", ir.AttributeType.INT)
    assert rewriting(always)(model).fired == 0


# What onnxscript's own rules do not know


def left_alone(before: str, apply: Callable[[ir.Model], PassOutcome], opset: int = 23) -> None:
    model = parse(before, opset=opset)
    assert apply(model).fired == 0
    assert text(model) == text(parse(before, opset=opset))


def test_a_remainder_keeps_its_sign() -> None:
    left_alone(
        "g (float[1, 3] x, float[2, 3] y) => (float[2, 3] z) { s = Constant <value_ints = [2, 3]> ()"
        " e = Expand (x, s) z = Mod <fmod = 1> (e, y) }",
        tidy,
    )


def test_a_shift_keeps_its_direction() -> None:
    left_alone(
        "g (uint8[1, 3] x, uint8[2, 3] y) => (uint8[2, 3] z) { s = Constant <value_ints = [2, 3]> ()"
        ' e = Expand (x, s) z = BitShift <direction = "RIGHT"> (e, y) }',
        tidy,
    )


def test_a_slope_is_no_reason_to_stretch() -> None:
    left_alone(
        "g (float[1, 3] x, float[2, 3] y) => (float[2, 3] z) { s = Constant <value_ints = [2, 3]> ()"
        " e = Expand (x, s) z = PRelu (e, y) }",
        tidy,
    )


def test_axes_that_an_expand_adds_stay() -> None:
    left_alone(
        "g (float[3] x, float[3] y) => (float[1, 3] z) { s = Constant <value_ints = [1, 3]> ()"
        " e = Expand (x, s) z = Add (e, y) }",
        tidy,
    )


def test_an_expand_that_adds_nothing_goes() -> None:
    before = (
        "g (float[1, 3] x, float[2, 3] y) => (float[2, 3] z) { s = Constant <value_ints = [2, 3]> ()"
        " e = Expand (x, s) z = Add (e, y) }"
    )
    model = parse(before)
    assert tidy(model).fired
    assert text(model) == ["z = Add(x, y)"]
    assert_same(parse(before), model)


def test_a_dilated_kernel_is_wider_than_it_says() -> None:
    left_alone(
        "g (float[1, 2, 8, 8] x, float[2, 2, 3, 3] w) => (float[1, 2, 8, 8] y)"
        ' { y = Conv <auto_pad = "SAME_UPPER", dilations = [2, 2]> (x, w) }',
        absorb_padding,
    )
