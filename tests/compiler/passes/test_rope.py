"""Rotary position embeddings in every form that models write them in, and what only looks like one."""

from __future__ import annotations

import re
import warnings

import onnx_ir as ir
import pytest
import torch

from wanc.compiler.passes import fold, rope, tidy
from wanc.compiler.passes.apply import apply_passes
from wanc.compiler.passes.registry import all_passes
from wanc.compiler.passes.rope import Rotation, StridedWrites

from .builder import apply, assert_same, parse, refused, text

SIZES = ({"s": 1}, {"s": 5})
TABLES = "float[1, s, 1, 4] cos, float[1, s, 1, 4] sin"
CONSTANTS = """
    last = Constant <value_ints = [-1]> ()  zero = Constant <value_ints = [0]> ()  one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()  four = Constant <value_ints = [4]> ()  i0 = Constant <value_int = 0> ()
    i1 = Constant <value_int = 1> ()  end = Constant <value_ints = [9223372036854775807]> ()
    in_heads = Constant <value_ints = [0, 0, 2, 8]> ()  in_pairs = Constant <value_ints = [0, 0, 2, 4, 2]> ()
    halves = Constant <value_ints = [1, 1]> ()  by_head = Constant <value_ints = [0, 0, 2, 4]> ()
"""
PAIRS = "h = Reshape (x, in_heads)  p = Reshape (h, in_pairs)"
UNBIND = (
    "a1 = Slice (p, zero, one, last)  a = Squeeze (a1, last)  b1 = Slice (p, one, two, last)  b = Squeeze (b1, last)"
)
UNBOUND = f"{PAIRS}  {UNBIND}"
STRIDES = "h = Reshape (x, in_heads)  a = Slice (h, zero, end, last, two)  b = Slice (h, one, end, last, two)"
ROTATION = """
    ac = Mul (a, cos)  bs = Mul (b, sin)  real = Sub (ac, bs)
    xs = Mul (a, sin)  bc = Mul (b, cos)  imaginary = Add (xs, bc)
"""
STACKED = """
    r = Unsqueeze (real, last)  i = Unsqueeze (imaginary, last)  stacked = Concat <axis = -1> (r, i)
    shape = Constant <value_ints = [0, 0, 2, 8]> ()  y = Reshape (stacked, shape)
"""
HALVES = {
    "unflatten and unbind": UNBOUND,
    "from rows to pairs at once": f"p = Reshape (x, in_pairs) {UNBIND}",
    "a split": f"{PAIRS} a1, b1 = Split <axis = -1> (p, halves)  a = Squeeze (a1, last)  b = Squeeze (b1, last)",
    "a gather": f"{PAIRS} a = Gather <axis = -1> (p, i0)  b = Gather <axis = 4> (p, i1)",
    "a gather from the end": f"{PAIRS} m = Constant <value_int = -1> ()"
    " a = Gather <axis = -1> (p, i0)  b = Gather <axis = -1> (p, m)",
    "strides": STRIDES,
    "strides over rows": """a1 = Slice (x, zero, end, two, two)  a = Reshape (a1, by_head)
        b1 = Slice (x, one, end, two, two)  b = Reshape (b1, by_head)""",
    "strides over pairs": f"""{PAIRS} a1 = Slice (p, zero, end, last, two)  a = Squeeze (a1, last)
        b1 = Slice (p, one, end, last, one)  b = Squeeze (b1, last)""",
}
FUSED = [
    "v0 = Reshape(x, [0,0,16])",
    "v1 = Squeeze(cos, [2])",
    "v2 = Squeeze(sin, [2])",
    "v3 = RotaryEmbedding(v0, v1, v2, interleaved=1, num_heads=2)",
    "y = Reshape(v3, [0,0,2,8])",
]


def rotated(
    halves: str = UNBOUND,
    rotation: str = ROTATION,
    stacked: str = STACKED,
    *,
    x: str = "float[1, s, 16]",
    tables: str = TABLES,
    y: str = "float[1, s, 2, 8]",
) -> ir.Model:
    return parse(f"g ({x} x, {tables}) => ({y} y) {{ {CONSTANTS} {halves} {rotation} {stacked} }}")


def renamed(body: str, suffix: str) -> str:
    """The same nodes with other values, but for constants and inputs."""
    given = {*re.findall(r"(\w+) = ", CONSTANTS), "x", "cos", "sin"}
    values = set(re.findall(r"(\w+) = [A-Z]", body)) - given
    return re.sub(r"\w+", lambda word: word[0] + suffix if word[0] in values else word[0], body)


# Every form


@pytest.mark.parametrize("form", HALVES)
def test_halves_are_found_however_they_were_taken(form: str) -> None:
    model = rotated(HALVES[form])
    before = model.clone()
    assert apply(model, rope.PASS.apply).fired == 1
    assert text(model) == FUSED
    assert_same(before, model, *SIZES)


def test_the_tensor_may_come_in_heads_or_in_pairs() -> None:
    for x, halves in (
        ("float[1, s, 2, 8]", STRIDES.replace("h = Reshape (x, in_heads)", "h = Identity (x)")),
        ("float[1, s, 2, 4, 2]", UNBIND.replace("(p,", "(x,")),
    ):
        model = rotated(halves, x=x)
        before = model.clone()
        assert apply(model, fold.fold, rope.PASS.apply).refusals == []
        assert text(model) == FUSED
        assert_same(before, model, *SIZES)


def test_operands_may_stand_in_any_order() -> None:
    rotation = """ac = Mul (cos, a)  bs = Mul (sin, b)  real = Sub (ac, bs)
        xs = Mul (sin, a)  bc = Mul (b, cos)  imaginary = Add (bc, xs)"""
    model = rotated(rotation=rotation)
    before = model.clone()
    assert apply(model, rope.PASS.apply).fired == 1
    assert text(model) == FUSED
    assert_same(before, model, *SIZES)


def test_tables_that_change_places_turn_by_another_angle() -> None:
    """a·sin - b·cos, a·cos + b·sin is a rotation too: that it is the same one, only the numbers can say."""
    model = rotated(rotation=ROTATION.replace("cos", "?").replace("sin", "cos").replace("?", "sin"))
    before = model.clone()
    assert apply(model, rope.PASS.apply).fired == 1
    assert text(model)[1:4] == [
        "v1 = Squeeze(sin, [2])",
        "v2 = Squeeze(cos, [2])",
        "v3 = RotaryEmbedding(v0, v1, v2, interleaved=1, num_heads=2)",
    ]
    assert_same(before, model, *SIZES)


def test_a_product_of_complex_numbers() -> None:
    """As the exporter writes it: real and imaginary parts keep the last axis, and are joined along it."""
    sliced = "a = Slice (p, zero, one, last)  b = Slice (p, one, two, last)"
    tables = "cos = Slice (freqs, zero, one, last)  sin = Slice (freqs, one, two, last)"
    joined = STACKED.replace("Unsqueeze (real, last)", "Identity (real)").replace(
        "Unsqueeze (imaginary, last)", "Identity (imaginary)"
    )
    model = rotated(f"{PAIRS} {sliced} {tables}", stacked=joined, tables="float[1, s, 1, 4, 2] freqs")
    before = model.clone()
    assert apply(model, fold.fold, rope.PASS.apply).refusals == []
    assert text(model) == [
        "v0 = Slice(freqs, [0], [1], [-1])",
        "v1 = Slice(freqs, [1], [2], [-1])",
        "v2 = Reshape(x, [0,0,16])",
        "v3 = Squeeze(v0, [2,4])",
        "v4 = Squeeze(v1, [2,4])",
        "v5 = RotaryEmbedding(v2, v3, v4, interleaved=1, num_heads=2)",
        "y = Reshape(v5, [0,0,2,8])",
    ]
    assert_same(before, model, *SIZES)


def test_the_shape_of_the_result_may_copy_sizes() -> None:
    for shape in ("[0, 0, 0, 8]", "[0, 0, 0, 0, 2]", "[0, -1, 2, 8]", "[0, 0, 16]", "[0, 0, -1]"):
        model = rotated(
            stacked=STACKED.replace("[0, 0, 2, 8]", shape),
            y="float[" + ", ".join("abcde"[: shape.count(",") + 1]) + "]",
        )
        before = model.clone()
        assert apply(model, rope.PASS.apply).fired == 1
        assert_same(before, model, *SIZES)


def test_tables_whose_last_size_the_exporter_does_not_know() -> None:
    model = rotated(tables="float[1, s, 1, c] cos, float[1, s, 1, d] sin")
    before = model.clone()
    assert apply(model, rope.PASS.apply).fired == 1
    assert text(model) == FUSED
    assert_same(before, model, *({**size, "c": 4, "d": 4} for size in SIZES))


def test_query_and_key_share_the_tables() -> None:
    query = UNBOUND + ROTATION + STACKED
    key = renamed(query, "_k").replace("(x,", "(k,").replace(" y_k =", " z =")
    model = parse(
        f"g (float[1, s, 16] x, float[1, s, 16] k, {TABLES}) => (float[1, s, 2, 8] y, float[1, s, 2, 8] z)"
        f"{{ {CONSTANTS} {query} {key} }}"
    )
    before = model.clone()
    assert apply(model, rope.PASS.apply).fired == 2
    apply(model, fold.share)
    assert text(model) == [
        *FUSED,
        "v4 = Reshape(k, [0,0,16])",
        "v5 = RotaryEmbedding(v4, v1, v2, interleaved=1, num_heads=2)",
        "z = Reshape(v5, [0,0,2,8])",
    ]
    assert_same(before, model, *SIZES)


def test_one_token_and_one_head() -> None:
    model = rotated(
        "as_one = Constant <value_ints = [1, 1, 1, 16]> ()" + STRIDES.replace("in_heads", "as_one"),
        ROTATION,
        STACKED.replace("[0, 0, 2, 8]", "[1, -1, 1, 16]"),
        x="float[1, 1, 16]",
        tables="float[1, 1, 1, 8] cos, float[1, 1, 1, 8] sin",
        y="float[1, 1, 1, 16]",
    )
    before = model.clone()
    assert apply(model, rope.PASS.apply).fired == 1
    assert "v3 = RotaryEmbedding(v0, v1, v2, interleaved=1, num_heads=1)" in text(model)
    assert_same(before, model)


# What has to be left alone


NOT_HALVES = "the two halves are not the even and the odd entries of one tensor's last axis"
NOT_STACKED = "the halves are not stacked to [batch, sequence, heads, size / 2, 2], heads and size known"
NOT_ROWS = "the halves are not [1, sequence, heads, size / 2]"
NOT_TABLES = "cos and sin are not [1, sequence, 1, size / 2]"
COMPUTED = "the shape of the result is computed"


@pytest.mark.parametrize(
    "halves",
    [
        # First and second half, as Llama has it.
        "h = Reshape (x, in_heads)  a = Slice (h, zero, four, last)  b = Slice (h, four, end, last)",
        # Odd before even.
        STRIDES.replace("a =", "? =").replace("b =", "a =").replace("? =", "b ="),
        # Twice the even ones.
        STRIDES.replace("one, end", "zero, end"),
        # One of two tensors.
        STRIDES.replace("b = Slice (h,", "h2 = Neg (h)  b = Slice (h2,"),
        # Pairs on another axis.
        "in_columns = Constant <value_ints = [0, 0, 2, 2, 4]> ()  p = Reshape (x, in_columns)"
        " a = Gather <axis = 3> (p, i0)  b = Gather <axis = 3> (p, i1)",
        # From the end.
        "h = Reshape (x, in_heads)  first = Constant <value_ints = [-9]> ()  back = Constant <value_ints = [-2]> ()"
        " six = Constant <value_ints = [6]> ()  seven = Constant <value_ints = [7]> ()"
        " a = Slice (h, six, first, last, back)  b = Slice (h, seven, first, last, back)",
        # A split into unequal parts: even entries, but with the odd ones of the next pair.
        "sizes = Constant <value_ints = [1, 15]> ()  r0, r1 = Split <axis = 2> (x, sizes)"
        " rolled = Concat <axis = 2> (r1, r0)  a1 = Slice (x, zero, end, two, two)  a = Reshape (a1, by_head)"
        " b1 = Slice (rolled, one, end, two, two)  b = Reshape (b1, by_head)",
    ],
)
def test_other_entries_are_no_halves(halves: str) -> None:
    assert set(refused(rotated(halves), Rotation)) == {NOT_HALVES}


@pytest.mark.parametrize(
    "changed",
    [
        {"rotation": ROTATION.replace("Sub (ac, bs)", "Add (ac, bs)")},
        {"rotation": ROTATION.replace("Sub (ac, bs)", "Sub (bs, ac)")},
        {"rotation": ROTATION.replace("Add (xs, bc)", "Sub (xs, bc)")},
        {"rotation": ROTATION.replace("Mul (b, cos)", "Mul (b, sin)")},
        {"stacked": STACKED.replace("(r, i)", "(i, r)")},
    ],
)
def test_other_arithmetic_is_no_rotation(changed: dict[str, str]) -> None:
    model = rotated(**changed)
    before = model.clone()
    outcome = apply(model, rope.PASS.apply)
    # The second is a rotation of -b and -a, if one takes sin for cos; its halves are odd and even then.
    assert outcome.fired == 0
    assert_same(before, model, {"s": 3})


def test_stacked_on_another_axis() -> None:
    unsqueezed = STACKED.replace("(real, last)", "(real, three)").replace("(imaginary, last)", "(imaginary, three)")
    three = "three = Constant <value_ints = [3]> ()"
    for stacked in (unsqueezed, unsqueezed.replace("axis = -1", "axis = 3"), STACKED.replace("axis = -1", "axis = 3")):
        reasons = refused(rotated(stacked=three + stacked), Rotation)
        assert NOT_STACKED in reasons


def test_an_unknown_number_of_heads() -> None:
    halves = "p = Reshape (x, given) " + UNBIND
    model = rotated(halves, tables=f"int64[5] given, {TABLES}", y="float[1, s, h, 8]")
    assert NOT_HALVES in refused(model, Rotation)


def test_a_batch() -> None:
    model = rotated(x="float[3, s, 16]", y="float[3, s, 2, 8]")
    assert "the batch is not 1, and cos and sin have no row for each entry" in refused(model, Rotation)


@pytest.mark.parametrize(
    "tables",
    [
        "float[1, s, 2, 4] cos, float[1, s, 2, 4] sin",  # of each head
        "float[s, 1, 4] cos, float[s, 1, 4] sin",
        "float[1, 1, 1, 4] cos, float[1, 1, 1, 4] sin",  # the same for each token
        "float[1, s, 1, 1] cos, float[1, s, 1, 1] sin",  # the same for each pair
        "float[1, s, 1, 4] cos, float[1, 1, 1, 4] sin",
    ],
)
def test_tables_of_another_shape(tables: str) -> None:
    assert NOT_TABLES in refused(rotated(tables=tables), Rotation)


def test_one_token_that_is_turned_to_many() -> None:
    model = rotated(x="float[1, 1, 16]", stacked=STACKED.replace("[0, 0, 2, 8]", "[1, -1, 2, 8]"))
    assert NOT_ROWS in refused(model, Rotation)


def test_a_tensor_with_tokens_and_heads_in_one_axis() -> None:
    pairs = "whole = Constant <value_ints = [1, 5, 2, 4, 2]> ()  p = Reshape (x, whole) "
    tables = "float[1, 5, 1, 4] cos, float[1, 5, 1, 4] sin"
    model = rotated(pairs + UNBIND, x="float[1, 80]", tables=tables, y="float[1, 5, 2, 8]")
    assert NOT_ROWS in refused(model, Rotation)


def test_a_result_of_a_computed_shape() -> None:
    stacked = STACKED.replace("shape = Constant <value_ints = [0, 0, 2, 8]> ()", "")
    model = rotated(stacked=stacked, tables=f"int64[4] shape, {TABLES}")
    assert COMPUTED in refused(model, Rotation)


# Writes in place


WRITES = """
    even = Constant <value = int64[4, 1] {0, 2, 4, 6}> ()  odd = Constant <value = int64[4, 1] {1, 3, 5, 7}> ()
    re = Transpose <perm = [3, 1, 2, 0]> (real)  out0 = Transpose <perm = [3, 1, 2, 0]> (buffer)
    out1 = ScatterND (out0, even, re)
    ie = Transpose <perm = [3, 1, 2, 0]> (imaginary)  out2 = ScatterND (out1, odd, ie)
    y = Transpose <perm = [3, 1, 2, 0]> (out2)
"""
WRITTEN = "g (float[1, s, 2, 4] real, float[1, s, 2, 4] imaginary, float[1, s, 2, 8] buffer) => (float[1, s, 2, 8] y)"
NOT_EVERY_SECOND = "the writes are not to the even and then the odd entries of an axis"


def test_strided_writes_become_stacking() -> None:
    model = parse(f"{WRITTEN} {{ {WRITES} }}")
    before = model.clone()
    assert apply(model, rope.WRITES.apply).fired == 1
    apply(model, tidy.tidy, fold.fold)
    assert text(model) == [
        "v0 = Unsqueeze(real, [-1])",
        "v1 = Unsqueeze(imaginary, [-1])",
        "v2 = Concat(v0, v1, axis=-1)",
        "y = Reshape(v2, [0,0,0,8])",
    ]
    assert_same(before, model, *SIZES)


def test_strided_writes_of_another_permutation() -> None:
    """One that is not its own inverse."""
    there, back = WRITES.rsplit("perm = [3, 1, 2, 0]", 1)
    model = parse(f"{WRITTEN} {{ {there.replace('[3, 1, 2, 0]', '[3, 0, 1, 2]')} perm = [1, 2, 3, 0] {back} }}")
    before = model.clone()
    assert apply(model, rope.WRITES.apply).fired == 1
    assert_same(before, model, *SIZES)


@pytest.mark.parametrize(
    ("written", "replacement", "reason"),
    [
        ("ScatterND (out1", 'ScatterND <reduction = "add"> (out1', "the writes add to what is there"),
        ("{0, 2, 4, 6}", "{0, 2, 6, 4}", NOT_EVERY_SECOND),
        ("{0, 2, 4, 6}", "{0, 1, 2, 3}", NOT_EVERY_SECOND),
        ("(out1, odd,", "(out1, even,", NOT_EVERY_SECOND),
        ("[3, 1, 2, 0]> (real)", "[3, 2, 1, 0]> (real1)", "the entries written do not come from one last axis"),
    ],
)
def test_other_writes_stay(written: str, replacement: str, reason: str) -> None:
    real1 = "real1 = Transpose <perm = [0, 2, 1, 3]> (real)"
    model = parse(f"{WRITTEN} {{ {real1} {WRITES.replace(written, replacement)} }}")
    assert refused(model, StridedWrites) == [reason]


def test_writes_to_an_odd_number_of_entries_stay() -> None:
    model = parse(
        """g (float[3, 2] buffer, float[2, 2] real, float[2, 1] imaginary) => (float[3, 2] y) {
            even = Constant <value = int64[2, 1] {0, 2}> ()  odd = Constant <value = int64[1, 1] {1}> ()
            re = Transpose <perm = [1, 0]> (real)  ie = Transpose <perm = [1, 0]> (imaginary)
            once = ScatterND (buffer, even, re)  y = ScatterND (once, odd, ie) }"""
    )
    assert refused(model, StridedWrites) == ["the axis that is written to has no even number of entries"]


def test_writes_to_single_places_stay() -> None:
    """The same numbers as an index of two axes: one place each, and not every second row."""
    model = parse(
        """g (float[4, 4, 3] buffer, float[3, 1] real, float[3, 1] imaginary) => (float[4, 4, 3] y) {
            even = Constant <value = int64[1, 2] {0, 2}> ()  odd = Constant <value = int64[1, 2] {1, 3}> ()
            re = Transpose <perm = [1, 0]> (real)  ie = Transpose <perm = [1, 0]> (imaginary)
            once = ScatterND (buffer, even, re)  y = ScatterND (once, odd, ie) }"""
    )
    assert refused(model, StridedWrites) == [NOT_EVERY_SECOND]


# What torch exports


class InPlace(torch.nn.Module):
    """As diffusers' Wan rotates."""

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(2, (2, -1))
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = cos[..., 0::2], sin[..., 1::2]
        out = torch.empty_like(x)
        out[..., 0::2] = a * cos - b * sin
        out[..., 1::2] = a * sin + b * cos
        return out.type_as(x)


class Complex(torch.nn.Module):
    """As Wan's own code rotates."""

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = torch.view_as_complex(x.unflatten(2, (2, -1)).unflatten(-1, (-1, 2)))
        return torch.view_as_real(x * torch.complex(cos[..., 0::2], sin[..., 1::2])).flatten(3)


class Stacked(torch.nn.Module):
    """As Flux rotates."""

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(2, (2, -1))
        cos, sin = cos[..., 0::2], sin[..., 1::2]
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


@pytest.mark.parametrize(
    ("module", "opset_version"), [(InPlace, 18), (InPlace, 20), (InPlace, 23), (Complex, 20), (Stacked, 18)]
)
def test_an_export_of_torch(module: type[torch.nn.Module], opset_version: int) -> None:
    arguments = torch.randn(1, 7, 16), torch.randn(1, 7, 1, 8), torch.randn(1, 7, 1, 8)
    tokens = {1: torch.export.Dim("s", min=1, max=4096)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module(), arguments, dynamo=True, opset_version=opset_version, dynamic_shapes=(tokens,) * 3, verbose=False
        )
    assert program is not None
    model = program.model
    before = model.clone()
    apply_passes(model, all_passes(), where="export")
    operators = {node.op_type for node in model.graph} - {"Constant"}
    assert operators <= {"RotaryEmbedding", "Reshape", "Squeeze", "Slice", "Unsqueeze", "Concat"}
    assert sum(node.op_type == "RotaryEmbedding" for node in model.graph) == 1
    assert_same(before, model, *SIZES)
