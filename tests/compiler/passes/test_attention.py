"""Attention as models write it out, and what only looks like it."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from wanc.compiler.passes import attention, fold, tidy
from wanc.compiler.passes.attention import HeadsLast, OneHead, WrittenOut

from .builder import apply, assert_same, parse, refused, text

SIZES = ({"s": 3, "t": 5}, {"s": 4, "t": 4}, {"s": 1, "t": 1})
Q, K, V, Y = "float[1, 2, s, 8] q", "float[1, 2, t, 8] k", "float[1, 2, t, 8] v", "float[1, 2, s, 8] y"
KEY = "kt = Transpose <perm = [0, 1, 3, 2]> (k)"
PRODUCT = "scores = MatMul (q, kt)"
SOFTMAX = "weights = Softmax <axis = -1> (scores)"
RESULT = "y = MatMul (weights, v)"
NUMBER = "c = Constant <value = float {0.3}> ()"
MASKED = "raw = MatMul (q, kt)  scores = Add (raw, mask)"


def written(*nodes: str, q: str = Q, k: str = K, v: str = V, y: str = Y, more: str = "") -> ir.Model:
    body = " ".join(nodes or (KEY, PRODUCT, SOFTMAX, RESULT))
    return parse(f"g ({', '.join(filter(None, (q, k, v, more)))}) => ({y}) {{ {NUMBER} {body} }}")


def attended(model: ir.Model) -> list[str]:
    """Rewrite, without the transposes that cancel, and check that the numbers stay."""
    before = model.clone()
    assert apply(model, attention.PASS.apply, tidy.tidy, fold.fold).fired
    assert_same(before, model, *SIZES)
    return text(model)


@pytest.mark.parametrize(
    ("nodes", "scale"),
    [
        ((KEY, PRODUCT), "1"),
        ((KEY, "raw = MatMul (q, kt)  scores = Mul (raw, c)"), "0.3"),
        ((KEY, "raw = MatMul (q, kt)  scores = Div (raw, c)"), "3.33333"),
        ((KEY, "qs = Mul (q, c)  scores = MatMul (qs, kt)"), "0.3"),
        ((KEY, "qs = Mul (q, c)  ks = Mul (kt, c)  scores = MatMul (qs, ks)"), "0.09"),
        (
            ("ks = Mul (k, c)  kt = Transpose <perm = [0, 1, 3, 2]> (ks)", "qs = Mul (q, c)  scores = MatMul (qs, kt)"),
            "0.3",
        ),
        ((KEY, "qs = Mul (q, c)  raw = MatMul (qs, kt)  r = Div (raw, c)  scores = Mul (r, c)"), "0.3"),
    ],
)
def test_scales_before_and_after_the_product(nodes: tuple[str, ...], scale: str) -> None:
    lines = attended(written(*nodes, SOFTMAX, RESULT))
    key = "v0" if len(lines) > 1 else "k"  # the scale of a key in front of the transpose stays a node
    assert lines[-1] == f"y = Attention(q, {key}, v, scale={scale})"
    assert lines[:-1] == (["v0 = Mul(k, 0.3)"] if key == "v0" else [])


def test_a_division_in_front_of_the_product_stays() -> None:
    lines = attended(written(KEY, "qs = Div (q, c)  scores = MatMul (qs, kt)", SOFTMAX, RESULT))
    assert lines == ["v0 = Div(q, 0.3)", "y = Attention(v0, k, v, scale=1)"]


@pytest.mark.parametrize(
    "mask", ["float[s, t] mask", "float[1, s, t] mask", "float[2, s, t] mask", "float[1, 1, s, t] mask"]
)
@pytest.mark.parametrize("added", ["Add (raw, mask)", "Add (mask, raw)"])
def test_a_mask(mask: str, added: str) -> None:
    model = written(KEY, f"raw = MatMul (q, kt)  scores = {added}", SOFTMAX, RESULT, more=mask)
    assert attended(model) == ["y = Attention(q, k, v, mask, scale=1)"]


def test_two_masks_behind_the_scale() -> None:
    """A bias for each head, and padding that one row stands for."""
    scores = "raw = MatMul (q, kt)  scaled = Mul (raw, c)  biased = Add (scaled, bias)  scores = Add (biased, mask)"
    masks = "float[1, 2, s, t] bias, float[1, 1, 1, t] mask"
    lines = attended(written(KEY, scores, SOFTMAX, RESULT, more=masks))
    assert lines == ["v0 = Add(bias, mask)", "y = Attention(q, k, v, v0, scale=0.3)"]


def test_three_masks_that_reach_only_together() -> None:
    scores = "raw = MatMul (q, kt)  a = Add (raw, rows)  b = Add (a, columns)  scores = Add (b, mask)"
    masks = "float[s, 1] rows, float[t] columns, float[1, 1, 1, t] mask"
    lines = attended(written(KEY, scores, SOFTMAX, RESULT, more=masks))
    assert lines == ["v0 = Add(columns, mask)", "v1 = Add(rows, v0)", "y = Attention(q, k, v, v1, scale=1)"]


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        # [batch, sequence, heads, size] → [batch, heads, size, sequence] at once
        ("kt = Transpose <perm = [0, 2, 3, 1]> (k)", "float[1, t, 2, 8] k", "Transpose(k, perm=[0, 2, 1, 3])"),
        ("kt = Transpose <perm = [1, 0, 3, 2]> (k)", "float[2, 1, t, 8] k", "Transpose(k, perm=[1, 0, 2, 3])"),
        ("kt = Transpose <perm = [0, 1, 2, 3]> (k)", "float[1, 2, 8, t] k", "Transpose(k, perm=[0, 1, 3, 2])"),
    ],
)
def test_a_key_of_another_permutation(key: str, shape: str, expected: str) -> None:
    model = written(key, PRODUCT, SOFTMAX, RESULT, k=shape)
    before = model.clone()
    assert apply(model, attention.PASS.apply).fired == 1
    assert text(model) == [f"v0 = {expected}", "y = Attention(q, v0, v, scale=1)"]
    assert_same(before, model, *SIZES)


EXPORTED_KEY = """
    three = Constant <value_ints = [-1, 5, 8]> ()  four = Constant <value_ints = [1, 2, 8, 5]> ()
    k3 = Reshape (k, three)  k3t = Transpose <perm = [0, 2, 1]> (k3)  kt = Reshape (k3t, four)
"""


def test_a_key_that_the_exporter_transposed_without_its_batch() -> None:
    model = written(EXPORTED_KEY, PRODUCT, SOFTMAX, RESULT, k="float[1, 2, 5, 8] k", v="float[1, 2, 5, 8] v")
    before = model.clone()
    assert apply(model, attention.PASS.apply, tidy.tidy, fold.fold).fired
    assert text(model) == ["y = Attention(q, k, v, scale=1)"]
    assert_same(before, model, *SIZES)


NO_PRODUCT = "the scores are not a product of a query and a transposed key, scaled and masked"
STRETCHED = "the masks together are not [query, key], or more than the product has"


@pytest.mark.parametrize(
    "nodes",
    [
        ("kt = Identity (k)", PRODUCT),  # not transposed
        ("kt = Transpose <perm = [0, 2, 1]> (k)", PRODUCT),
        (KEY, "raw = MatMul (q, kt)  m = Add (raw, mask)  scores = Mul (m, c)"),  # which scales the mask
        (KEY, "raw = MatMul (q, kt)  m = Add (raw, mask)  scores = Div (m, c)"),
        (KEY, "raw = MatMul (q, kt)  scores = Mul (raw, mask)"),
        (KEY, "raw = MatMul (q, kt)  scores = Div (c, raw)"),
        (KEY, "raw = MatMul (q, kt)  zero = Constant <value = float {0}> ()  scores = Mul (raw, zero)"),
        (KEY, "raw = MatMul (q, kt)  scores = Tanh (raw)"),
    ],
)
def test_other_scores(nodes: tuple[str, str]) -> None:
    three = "k = Constant" in nodes[0] or "[0, 2, 1]" in nodes[0]
    square = {
        "q": "float[1, 2, 8, 8] q",
        "k": "float[1, 2, 8, 8] k",
        "v": "float[1, 2, 8, 8] v",
        "y": "float[1, 2, 8, 8] y",
    }
    if three:
        square["k"] = "float[2, 8, 8] k"
    model = written(*nodes, SOFTMAX, RESULT, **square, more="float[8, 8] mask")
    assert refused(model, WrittenOut) == [NO_PRODUCT]


def test_a_key_whose_heads_an_exporters_reshape_mixes() -> None:
    mixed = EXPORTED_KEY.replace("[-1, 5, 8]", "[-1, 10, 4]").replace("[1, 2, 8, 5]", "[1, 2, 4, 10]")
    model = written(
        mixed,
        PRODUCT,
        SOFTMAX,
        RESULT,
        q="float[1, 2, s, 4] q",
        k="float[1, 2, 5, 8] k",
        v="float[1, 2, 10, 8] v",
    )
    assert refused(model, WrittenOut) == [NO_PRODUCT]


def test_a_softmax_over_another_axis() -> None:
    model = written(KEY, PRODUCT, SOFTMAX.replace("axis = -1", "axis = 2"), RESULT)
    assert refused(model, WrittenOut) == ["the softmax is not over the last axis"]


def test_three_dimensions() -> None:
    model = written(
        "kt = Transpose <perm = [0, 2, 1]> (k)",
        PRODUCT,
        SOFTMAX,
        RESULT,
        q="float[2, s, 8] q",
        k="float[2, t, 8] k",
        v="float[2, t, 8] v",
        y="float[2, s, 8] y",
    )
    assert refused(model, WrittenOut) == ["the product is not [batch, heads, sequence, size]"]


def test_a_value_of_three_dimensions() -> None:
    model = written(v="float[2, t, 8] v")
    assert refused(model, WrittenOut) == ["query, key and value are not [batch, heads, sequence, size]"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"k": "float[1, 1, t, 8] k", "v": "float[1, 1, t, 8] v"}, "heads"),  # one head for all queries
        ({"k": "float[1, 1, t, 8] k"}, "heads"),
        ({"q": "float[1, 1, s, 8] q"}, "heads"),
        ({"q": "float[1, a, s, 8] q", "y": "float[1, 2, s, 8] y"}, "heads"),
        ({"k": "float[3, 2, t, 8] k", "v": "float[3, 2, t, 8] v", "y": "float[3, 2, s, 8] y"}, "batch"),
        ({"q": "float[3, 2, s, 8] q", "y": "float[3, 2, s, 8] y"}, "batch"),
    ],
)
def test_queries_that_share_keys_and_values(changed: dict[str, str], what: str) -> None:
    assert refused(written(**changed), WrittenOut) == [f"query, key and value differ in their {what}"]


@pytest.mark.parametrize(
    "changed",
    [
        {"more": "float[] mask"},
        {"more": "float[t] mask"},
        {"more": "float[1, 1, 1, t] mask"},
        {"more": "float[1, 1, s, 1] mask"},
        {"more": "float[1, 2, n, t] mask"},
        {"more": "float[3, 1, s, t] mask", "y": "float[3, 2, s, 8] y"},
        {"more": "float[1, 1, s, t] mask", "q": "float[1, 2, 1, 8] q"},
        {
            "more": "float[2, s, t] mask",
            "q": "float[1, 1, s, 8] q",
            "k": "float[1, 1, t, 8] k",
            "v": "float[1, 1, t, 8] v",
        },
    ],
)
def test_masks_that_stretch_or_are_stretched(changed: dict[str, str]) -> None:
    """onnxruntime's kernel wants a row for each query; and a mask must not make more of the result."""
    model = written(KEY, MASKED, SOFTMAX, RESULT, **changed)
    assert refused(model, WrittenOut) == [STRETCHED]


# Heads


ATTENTION = "attended = Attention <scale = 0.3> (q, k, v)  y = Transpose <perm = [0, 2, 1, 3]> (attended)"
TRANSPOSED_Y = "float[1, s, 2, 8] y"
ROWS = [
    "v0 = Transpose(q, perm=[0, 2, 1, 3])",
    "v1 = Reshape(v0, [0,0,16])",
    "v2 = Transpose(k, perm=[0, 2, 1, 3])",
    "v3 = Reshape(v2, [0,0,16])",
    "v4 = Transpose(v, perm=[0, 2, 1, 3])",
    "v5 = Reshape(v4, [0,0,16])",
    "v6 = Attention(v1, v3, v5, kv_num_heads=2, q_num_heads=2, scale=0.3)",
    "y = Reshape(v6, [0,0,2,8])",
]


def test_heads_are_moved_into_the_rows() -> None:
    model = written(ATTENTION, y=TRANSPOSED_Y)
    before = model.clone()
    assert apply(model, attention.HEADS.apply).fired == 1
    assert text(model) == ROWS
    assert_same(before, model, *SIZES)


def test_the_transposes_around_it_cancel() -> None:
    turned = " ".join(f"{name}h = Transpose <perm = [0, 2, 1, 3]> ({name})" for name in "qkv")
    body = turned + ATTENTION.replace("(q, k, v)", "(qh, kh, vh)")
    model = written(
        body, q="float[1, s, 2, 8] q", k="float[1, t, 2, 8] k", v="float[1, t, 2, 8] v", y="float[1, s, 2, 8] y"
    )
    before = model.clone()
    apply(model, attention.HEADS.apply, tidy.tidy, fold.fold)
    assert text(model) == [
        "v0 = Reshape(q, [0,0,16])",
        "v1 = Reshape(k, [0,0,16])",
        "v2 = Reshape(v, [0,0,16])",
        "v3 = Attention(v0, v1, v2, kv_num_heads=2, q_num_heads=2, scale=0.3)",
        "y = Reshape(v3, [0,0,2,8])",
    ]
    assert_same(before, model, *SIZES)


def test_heads_with_a_mask_other_sizes_and_the_default_scale() -> None:
    model = written(
        ATTENTION.replace("v)", "v, mask)").replace("<scale = 0.3>", ""),
        v="float[1, 2, t, 6] v",
        y="float[1, s, 2, 6] y",
        more="float[1, 1, s, t] mask",
    )
    before = model.clone()
    assert apply(model, attention.HEADS.apply).fired == 1
    assert text(model)[-3:] == [
        "v5 = Reshape(v4, [0,0,12])",
        "v6 = Attention(v1, v3, v5, mask, kv_num_heads=2, q_num_heads=2, scale=0.353553)",
        "y = Reshape(v6, [0,0,2,6])",
    ]
    assert_same(before, model, *SIZES)


def test_queries_that_share_keys_stay_grouped() -> None:
    model = written(ATTENTION, q="float[1, 4, s, 8] q", y="float[1, s, 4, 8] y")
    before = model.clone()
    assert apply(model, attention.HEADS.apply).fired == 1
    assert text(model)[-2:] == [
        "v6 = Attention(v1, v3, v5, kv_num_heads=2, q_num_heads=4, scale=0.3)",
        "y = Reshape(v6, [0,0,4,8])",
    ]
    assert_same(before, model, *SIZES)


def test_one_head_needs_no_transpose() -> None:
    model = written(
        "y = Attention (q, k, v, mask)",
        q="float[1, 1, s, 8] q",
        k="float[1, 1, t, 8] k",
        v="float[1, 1, t, 6] v",
        y="float[1, 1, s, 6] y",
        more="float[s, t] mask",
    )
    before = model.clone()
    assert apply(model, attention.HEADS.apply).fired == 1
    assert text(model) == [
        "v0 = Squeeze(q, [1])",
        "v1 = Squeeze(k, [1])",
        "v2 = Squeeze(v, [1])",
        "v3 = Attention(v0, v1, v2, mask, kv_num_heads=1, q_num_heads=1, scale=0.353553)",
        "y = Unsqueeze(v3, [1])",
    ]
    assert_same(before, model, *SIZES)
    assert apply(model, attention.HEADS.apply).fired == 0


def test_several_heads_without_a_transpose_are_no_news() -> None:
    assert refused(written("y = Attention (q, k, v)"), OneHead) == []


UNKNOWN = "query, key and value are not [batch, heads, sequence, size] with known heads and size"
OF_ITS_OWN = "it is causal, capped, or asks for a precision of its own"
MORE = "it has caches, or gives more than the result"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [("is_causal = 1", OF_ITS_OWN), ("softcap = 2.0", OF_ITS_OWN), ("softmax_precision = 11", OF_ITS_OWN)],
)
def test_attention_with_more_to_it_stays(attributes: str, reason: str) -> None:
    model = written(ATTENTION.replace("scale = 0.3", attributes), y=TRANSPOSED_Y)
    assert refused(model, HeadsLast) == [reason]
    one = written(
        f"y = Attention <{attributes}> (q, k, v)",
        **{name: f"float[1, 1, t, 8] {name}" for name in ("q", "k", "v", "y")},
    )
    assert refused(one, OneHead) == [reason]


def test_attention_with_caches_stays() -> None:
    past = "float[1, 2, p, 8] pk, float[1, 2, p, 8] pv"
    attended = "attended, present_k, present_v = Attention (q, k, v, , pk, pv)"
    model = written(attended + ATTENTION[ATTENTION.index("  y =") :], more=past, y=TRANSPOSED_Y)
    assert refused(model, HeadsLast) == [MORE]


@pytest.mark.parametrize("q", ["float[1, h, s, 8] q", "float[1, 2, s, d] q"])
def test_unknown_heads_or_sizes_stay(q: str) -> None:
    assert refused(written(ATTENTION, q=q, y="float[1, s, a, b] y"), HeadsLast) == [UNKNOWN]
