"""The attentions of a canonical graph: how they are called, and what rounding what they take changes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from wanc.calibration.schemes import rounded_inputs
from wanc.compiler.engines.quantization_check import check_rounded
from wanc.compiler.graphs.attentions import AttentionScales, attentions, round_attentions
from wanc.compiler.graphs.linears import linears
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.program.quant_table import AttentionEntry, QuantTable
from wanc.errors import UserError

from .passes.builder import parse, run

HEADS = "q_num_heads = 2, kv_num_heads = 2"
WEIGHTS = ("b.attn1.to_q.weight", "b.attn1.to_k.weight", "b.attn1.to_v.weight")
SCALES = AttentionScales(0.01, 0.02, 0.015)


def block(tail: str = "") -> ir.Model:
    """An attention whose projections have neither biases nor norms."""
    weights = ", ".join(f"float[8, 8] {name}" for name in WEIGHTS)
    products = " ".join(
        f"{letter}t = Transpose <perm = [1, 0]> ({name}) {letter} = MatMul (x, {letter}t)"
        for letter, name in zip("qkv", WEIGHTS, strict=True)
    )
    return parse(
        f"g (float[1, n, 8] x, {weights}) => (float[1, n, 8] y)"
        f" {{ {products} y = Attention <{HEADS}{tail}> (q, k, v) }}",
        *WEIGHTS,
    )


def table(**entries: AttentionEntry) -> QuantTable:
    return QuantTable("c", "ptq", 2, {}, {f"b.{name}": entry for name, entry in entries.items()})


def test_an_attention_is_called_the_same_before_and_behind_every_rounding() -> None:
    model = block()
    assert [attention.name for attention in attentions(model)] == ["b.attn1"]
    codes, scales = ir.tensor(np.ones((8, 8), np.int8)), ir.tensor(np.ones(8, np.float32))
    insert_quantizers(model, {one.name: StoredDecision(codes, scales, None, "int8", 0.1) for one in linears(model)})
    assert [attention.name for attention in attentions(model)] == ["b.attn1"]
    assert round_attentions(model, {"b.attn1": SCALES}) == 1
    (attention,) = attentions(model)
    assert (attention.name, attention.numbers) == ("b.attn1", "fp8")
    assert attention.scales == pytest.approx(SCALES)
    assert [value.name for value in attention.inputs] == ["q", "k", "v"]


def test_what_is_rounded_is_what_the_products_take() -> None:
    random = np.random.default_rng(0)
    given = {name: random.normal(size=(1, 6, 8)).astype(np.float32) for name in "qkv"}
    sides = "float[1, n, 8] q, float[1, n, 8] k, float[1, n, 8] v"
    model = parse(
        f"g ({sides}, float[8] b.attn.norm_q.weight) => (float[1, n, 8] y)"
        f" {{ n = RMSNormalization (q, b.attn.norm_q.weight) y = Attention <{HEADS}> (n, k, v) }}",
        "b.attn.norm_q.weight",
    )
    model.graph.initializers["b.attn.norm_q.weight"].const_value = ir.tensor(np.ones(8, np.float32))
    plain = parse(f"g ({sides}) => (float[1, n, 8] y) {{ y = Attention <{HEADS}> (q, k, v) }}")
    normed = given["q"] / np.sqrt(np.mean(given["q"] ** 2, axis=-1, keepdims=True) + 1e-5)
    rounded = [
        rounded_inputs(array, "fp8", step) for array, step in zip((normed, given["k"], given["v"]), SCALES, strict=True)
    ]
    before = run(model, given)["y"]
    round_attentions(model, {"b.attn": SCALES})
    after, expected = run(model, given)["y"], run(plain, dict(zip("qkv", rounded, strict=True)))["y"]
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


def test_a_name_of_no_attention_is_noticed() -> None:
    with pytest.raises(KeyError, match=r"b\.attn2"):
        round_attentions(block(), {"b.attn2": SCALES})


@pytest.mark.parametrize("side", range(3))
def test_one_that_is_rounded_in_part_is_none(side: int) -> None:
    model = block()
    round_attentions(model, {"b.attn1": SCALES})
    (attention,) = attentions(model)
    attention.node.replace_input_with(side, attention.inputs[side])
    assert (attention.numbers, attention.scales) == ("float", None)


def test_one_that_does_more_is_not_plain() -> None:
    assert [attention.is_plain for attention in attentions(block())] == [True]
    assert [attention.is_plain for attention in attentions(block(", is_causal = 1"))] == [False]


@pytest.mark.parametrize(
    "entry",
    [
        AttentionEntry("fp8", "", None, 0.02, 0.02, 0.015, 1 / 448),
        AttentionEntry("fp8", "", None, *reversed(SCALES), 1 / 448),
    ],
)
def test_another_scale_than_the_table_s_is_refused(entry: AttentionEntry) -> None:
    model = block()
    round_attentions(model, {"b.attn1": SCALES})
    check_rounded("c", [model], table(attn1=AttentionEntry("fp8", "", None, *SCALES, 1 / 448)))
    check_rounded("c", [model], table(attn1=AttentionEntry("float", "", None)))
    with pytest.raises(UserError, match=r"c/b.attn1 is fp8 in the QuantTable, and otherwise in the graph"):
        check_rounded("c", [model], table(attn1=entry))


def test_one_that_is_not_rounded_is_refused() -> None:
    with pytest.raises(UserError, match=r"c/b.attn1 is fp8 in the QuantTable"):
        check_rounded("c", [block()], table(attn1=AttentionEntry("fp8", "", None, *SCALES, 1 / 448)))
