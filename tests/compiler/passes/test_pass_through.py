"""Any graph comes through all passes and computes what it did before, whatever it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from wanc.compiler.passes.apply import Applied, apply_passes
from wanc.compiler.passes.registry import all_passes

from .builder import Arrays, assert_close, parse, text

BRANCH = """r = If (c) <
    then_branch = t () => (float[4] o) { {then} }, else_branch = e () => (float[4] o) { {other} }>"""
LOOP = """g (float[4] x, int64 n) => (float[4] y, float[k, 4] all) {
    yes = Constant <value = bool {1}> ()  half = Constant <value = float {0.5}> ()
    y, all = Loop (n, yes, x) <body = b (int64 i, bool go, float[4] state) => (bool on, float[4] next, float[4] seen) {
        on = Identity (go)  small = Mul (state, half)  same = Mul (state, half)  sum = Add (small, same)
        next = Tanh (sum)  seen = Identity (next) }> }"""
SCAN = """g (float[3] x, float[n, 3] rows) => (float[3] y, float[n, 3] sums) {
    y, sums = Scan <num_scan_inputs = 1, body = b (float[3] state, float[3] row) => (float[3] next, float[3] out) {
        next = Add (state, row)  out = Identity (next) }> (x, rows) }"""
FUNCTION = """g (float[n, 4] x) => (float[n, 4] y) { a = local.soft (x)  y = local.soft (a) }
    <domain: "local", opset_import: ["" : 23]> soft (v) => (w) {
        one = Constant <value = float {1}> ()  e = Exp (v)  s = Add (e, one)  w = Log (s) }"""
# A GELU and attention, written out.
EVERYTHING = """
    half = Constant <value = float {0.5}> ()  one = Constant <value = float {1.0}> ()
    inverse = Constant <value = float {0.70710677}> ()  inner = Mul (x, inverse)  erf = Erf (inner)
    factor = Add (erf, one)  product = Mul (x, factor)  gelu = Mul (product, half)
    turned = Transpose <perm = [0, 1, 3, 2]> (gelu)  scores = MatMul (gelu, turned)
    weights = Softmax <axis = 3> (scores)  y = MatMul (weights, gelu)
"""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "branches with the same names inside": (
        "g (float[4] x, bool c) => (float[4] y) { a = Tanh (x) "
        + BRANCH.replace("{then}", "b = Cos (a)  o = Add (b, a)").replace("{other}", "b = Sin (a)  o = Mul (b, a)")
        + " y = Add (r, a) }",
        {"x": np.arange(4, dtype=np.float32), "c": np.array(True)},
    ),
    "a branch of the same name as a value outside": (
        "g (float[4] x, bool c) => (float[4] y) {"
        + BRANCH.replace("{then}", "b = Cos (x)  o = Add (b, x)").replace("{other}", "d = Sin (x)  o = Mul (d, x)")
        + " e = Exp (r)  y = Add (e, x) }",
        {"x": np.arange(4, dtype=np.float32), "c": np.array(False)},
    ),
    "a branch that is always taken": (
        "g (float[4] x) => (float[4] y) { c = Constant <value = bool {1}> () "
        + BRANCH.replace("{then}", "o = Cos (x)").replace("{other}", "o = Sin (x)")
        + " y = Neg (r) }",
        {"x": np.arange(4, dtype=np.float32)},
    ),
    "a loop": (LOOP, {"x": np.arange(4, dtype=np.float32), "n": np.array(3)}),
    "a loop that does not turn": (LOOP, {"x": np.arange(4, dtype=np.float32), "n": np.array(0)}),
    "a scan": (SCAN, {"x": np.ones(3, np.float32), "rows": np.arange(6, dtype=np.float32).reshape(2, 3)}),
    "functions of its own": (FUNCTION, {"x": np.ones((2, 4), np.float32)}),
    "sizes of zero": (
        """g (float[n, 4] x) => (float[m, 2] y, float[0, 4] z) {
            shape = Constant <value_ints = [-1, 2]> ()  a = Reshape (x, shape)  y = Tanh (a)
            none = Constant <value_ints = [0]> ()  z = Slice (x, none, none, none) }""",
        {"x": np.empty((0, 4), np.float32)},
    ),
    "a computed shape with a zero in it": (
        """g (float[n, s] x) => (float[a, b, c] y) {
            sizes = Shape (x)  two = Constant <value_ints = [2]> ()  wanted = Concat <axis = 0> (sizes, two)
            more = Concat <axis = 1> (x, x)  y = Reshape <allowzero = 1> (more, wanted) }""",
        {"x": np.empty((0, 3), np.float32)},
    ),
    "ranks that nobody knows": (
        """g (float[n] x, int64[r] shape) => (float y) {
            a = Reshape (x, shape)  one = Constant <value = float {1}> ()  b = Mul (a, one)  c = Transpose (b)
            d = Transpose (c)  y = ReduceMax <keepdims = 0> (d) }""",
        {"x": np.arange(6, dtype=np.float32), "shape": np.array([1, 2, 3])},
    ),
    "one value given twice": (
        "g (float[4] x) => (float[4] y, float[4] z) { a = Tanh (x)  y = Identity (a)  z = Identity (a) }",
        {"x": np.arange(4, dtype=np.float32)},
    ),
    "an input handed through": (
        "g (float[4] x) => (float[4] y, float[4] z) { y = Identity (x)  z = Tanh (x) }",
        {"x": np.arange(4, dtype=np.float32)},
    ),
    "a constant given": (
        """g (float[4] x) => (float[2] y, float[4] z) {
            a = Constant <value = float[2] {1, 2}> ()  y = Neg (a)  z = Tanh (x) }""",
        {"x": np.arange(4, dtype=np.float32)},
    ),
    "texts": (
        """g (string[n] x) => (string[n] y, int64[n] z) {
            a = Constant <value = string[1] {"!"}> ()  y = StringConcat (x, a)  b = Identity (y)  d = Identity (x)
            c = Equal (b, d)  z = Cast <to = 7> (c) }""",
        {"x": np.array(["red", "Circle"], dtype=object)},
    ),
    "sequences": (
        """g (float[4] x) => (float[4] y) {
            a = Tanh (x)  b = Cos (x)  s = SequenceConstruct (a, b)  i = Constant <value = int64 {1}> ()
            c = SequenceAt (s, i)  t = SequenceInsert (s, c)  n = SequenceLength (t)  f = Cast <to = 1> (n)
            y = Mul (c, f) }""",
        {"x": np.arange(4, dtype=np.float32)},
    ),
    "optional values": (
        """g (float[4] x) => (float[4] y, bool z) {
            a = Tanh (x)  o = Optional (a)  z = OptionalHasElement (o)  b = OptionalGetElement (o)  y = Cos (b) }""",
        {"x": np.arange(4, dtype=np.float32)},
    ),
    "results and inputs that are left out": (
        """g (float[2, 3, 4] x) => (float[2, 3, 4] y) {
            k = Constant <value_ints = [3]> ()  most = Constant <value = float {5}> ()  m, i = TopK <axis = 1> (x, k)
            w = Constant <value = float[4] {1, 1, 1, 1}> ()  n, , d = LayerNormalization (m, w)  c = Clip (n, , most)
            y = Mul (c, d) }""",
        {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
    ),
    "a branch that copies a value from outside": (
        "g (float[4] x, bool c) => (float[4] y) { a = Tanh (x)  b = Cos (x) "
        + BRANCH.replace("{then}", "o = Identity (a)").replace("{other}", "o = Identity (b)")
        + " y = Add (r, a) }",
        {"x": np.arange(4, dtype=np.float32), "c": np.array(True)},
    ),
    "whole numbers": (
        """g (int64[n, 4] x) => (int64[n, 4] y) {
            one = Constant <value = int64 {1}> ()  zero = Constant <value = int64 {0}> ()
            a = Mul (x, one)  b = Add (a, zero)  c = Div (b, one)  y = Sub (c, zero) }""",
        {"x": np.arange(8).reshape(2, 4)},
    ),
}


def through(model: ir.Model) -> list[Applied]:
    """All passes, those that have to be asked for as well."""
    return apply_passes(model, all_passes(), where="model/main")


def results(model: ir.Model, feeds: Arrays) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def assert_through(model: ir.Model, feeds: Arrays) -> list[Applied]:
    names = [value.name for value in model.graph.outputs]
    expected = results(model, feeds)
    applied = through(model)
    assert [value.name for value in model.graph.outputs] == names
    for actual, reference in zip(results(model, feeds), expected, strict=True):
        if np.asarray(reference).dtype.kind == "f":
            assert_close(np.asarray(actual), np.asarray(reference))
        else:
            np.testing.assert_array_equal(actual, reference)
    return applied


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_graph(case: str) -> None:
    written, feeds = CASES[case]
    assert_through(parse(written, shapes=False), feeds)


@pytest.mark.parametrize("truth", [False, True])
def test_both_branches_of_a_choice(truth: bool) -> None:
    written, feeds = CASES["branches with the same names inside"]
    assert_through(parse(written), {**feeds, "c": np.array(truth)})


def test_a_default_of_an_input_is_no_constant() -> None:
    """An initializer that is an input as well may be given another value."""
    header = '<ir_version: 11, opset_import: ["" : 23]>'
    proto = onnx.parser.parse_model(
        f"{header} g (float[4] x, float[4] d) => (float[4] y) <float[4] e = {{2, 2, 2, 2}}> {{"
        "one = Constant <value = float {1}> ()  a = Add (d, one)  b = Mul (a, e)  y = Mul (x, b) }"
    )
    default = onnx.numpy_helper.from_array(np.ones(4, np.float32), "d")
    proto.graph.initializer.append(default)
    model = ir.from_proto(proto)
    x = np.arange(4, dtype=np.float32)
    before = model.clone()
    through(model)
    for given in ({}, {"d": np.full(4, 5, np.float32)}):
        for actual, expected in zip(results(model, {"x": x, **given}), results(before, {"x": x, **given}), strict=True):
            assert_close(actual, expected)


def test_defaults_of_equal_value_stay_two() -> None:
    header = '<ir_version: 11, opset_import: ["" : 23]>'
    proto = onnx.parser.parse_model(
        f"{header} g (float[2] x, float[2] d, float[2] e) => (float[2] y) {{a = Mul (x, d)  y = Add (a, e) }}"
    )
    for name in ("d", "e"):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), name))
    model = ir.from_proto(proto)
    through(model)
    feeds = {"x": np.array([1, 2], np.float32), "d": np.array([3, 4], np.float32), "e": np.array([5, 6], np.float32)}
    assert_close(results(model, feeds)[0], np.array([8, 14], np.float32))


def test_operators_of_other_domains_stay() -> None:
    """Also those that are called as ones of the standard domain."""
    model = parse(
        """g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) {
            a = custom.Identity (x)  b = custom.Reshape (a, x)  c = custom.Reshape (b, x)
            d, e = custom.Split <axis = 1> (c)  f = com.microsoft.Gelu (d)  y = custom.Add (f, e)
            h = custom.Cast <to = 1> (a)  z = custom.Softmax (h) }"""
    )
    before = text(model)
    through(model)
    assert text(model) == before


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_what_the_opset_does_not_have_is_not_put_in(opset: int) -> None:
    """Graphs that are too old to be converted: they keep what they are written in."""
    model = parse(f"g (float[1, 2, n, 4] x) => (float[1, 2, n, 4] y) {{ {EVERYTHING} }}", opset=opset)
    applied = assert_through(model, {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)})
    assert model.graph.opset_imports[""] == opset
    assert {node.op_type for node in model.graph} & {
        "Attention",
        "Gelu",
        "RMSNormalization",
        "RotaryEmbedding",
    } == set()
    (refusal,) = next(entry for entry in applied if entry.name == "opset").refusals
    assert str(opset) in refusal.reason


def test_a_graph_that_holds_another_and_is_not_converted() -> None:
    branch = (
        BRANCH.replace("float[4]", "float[1, 2, n, 4]")
        .replace("{then}", "o = Cos (v)")
        .replace("{other}", "o = Sin (v)")
    )
    body = EVERYTHING.replace("y = MatMul", "v = MatMul") + branch + " y = Neg (r)"
    for opset in (18, 20):
        model = parse(f"g (float[1, 2, n, 4] x, bool c) => (float[1, 2, n, 4] y) {{ {body} }}", opset=opset)
        feeds = {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4), "c": np.array(True)}
        applied = assert_through(model, feeds)
        (refusal,) = next(entry for entry in applied if entry.name == "opset").refusals
        assert refusal.reason == "the node r (If) holds a graph"


def test_of_the_newest_opset_the_same_graph_is_rewritten() -> None:
    model = parse(f"g (float[1, 2, n, 4] x) => (float[1, 2, n, 4] y) {{ {EVERYTHING} }}", opset=20)
    assert_through(model, {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)})
    assert {node.op_type for node in model.graph} - {"Constant"} == {"Attention", "Gelu"}


def test_rewrites_inside_a_branch() -> None:
    inside = EVERYTHING.replace("y = MatMul", "o = MatMul")
    written = (
        BRANCH.replace("float[4]", "float[1, 2, 3, 4]").replace("{then}", inside).replace("{other}", "o = Sin (x)")
    )
    for truth in (True, False):
        model = parse(f"g (float[1, 2, 3, 4] x, bool c) => (float[1, 2, 3, 4] y) {{ {written} y = Neg (r) }}")
        assert_through(model, {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4), "c": np.array(truth)})


def test_rewrites_inside_a_function() -> None:
    inside = EVERYTHING.replace("y = MatMul", "w = MatMul").replace("(x,", "(v,")
    model = parse(
        f"""g (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) {{ y = local.f (x) }}
        <domain: "local", opset_import: ["" : 23]> f (v) => (w) {{ {inside} }}"""
    )
    assert_through(model, {"x": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)})
