"""Weights that passes put together or took apart: models as text, and the bytes that were written."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from .test_weights import absorb, lines, parse, random, values


def test_weights_are_joined(tmp_path: Path) -> None:
    arrays = {"q": random(4, 3, seed=1), "k": random(2, 3, seed=2), "v": random(2, 3, seed=3)}
    model = parse(
        "g (float[4, 3] q, float[2, 3] k, float[2, 3] v, float[5, 3] x) => (float[5, 8] y)"
        "{ w = Concat <axis = 0> (q, k, v) t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        tmp_path,
        arrays,
    )
    weights, data = absorb(tmp_path, model)
    assert lines(model) == ["w.T10: float[3, 8]", "y = MatMul(x, w.T10)"]
    np.testing.assert_array_equal(values(model, "w.T10", data), np.concatenate(list(arrays.values())).T)
    assert list(weights.entries) == ["w.T10"]


def test_casts_in_front_of_a_join_are_carried_out_once(tmp_path: Path) -> None:
    arrays = {"a": random(3, dtype=ml_dtypes.bfloat16), "b": random(2, dtype=ml_dtypes.bfloat16, seed=1)}
    model = parse(
        "g (bfloat16[3] a, bfloat16[2] b, float[5] x) => (float[5] y)"
        "{ c = Cast <to = 1> (a) d = Cast <to = 1> (b) w = Concat <axis = -1> (c, d) y = Add (x, w) }",
        tmp_path,
        arrays,
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w: float[5]", "y = Add(x, w)"]
    np.testing.assert_array_equal(values(model, "w", data), np.concatenate(list(arrays.values())).astype(np.float32))


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("w = Concat <axis = 0> (a, b) p = Add (a, b) y = MatMul (w, p)", 3),  # used elsewhere
        ("w = Concat <axis = 0> (a, x) p = Add (b, b) y = MatMul (w, p)", 3),  # not a weight
        ("w = Concat <axis = 0> (a, a) p = Add (b, b) y = MatMul (w, p)", 3),  # twice the same
    ],
)
def test_what_is_not_of_weights_alone_is_left_to_the_engine(tmp_path: Path, body: str, left: int) -> None:
    arrays = {"a": random(2, 2), "b": random(2, 2, seed=1)}
    model = parse(f"g (float[2, 2] a, float[2, 2] b, float[2, 2] x) => (float[4, 2] y) {{ {body} }}", tmp_path, arrays)
    absorb(tmp_path, model)
    assert [node.op_type for node in model.graph][:1] == ["Concat"] and len(list(model.graph)) == left


def test_weights_of_two_dtypes_are_not_joined(tmp_path: Path) -> None:
    arrays = {"a": random(3, dtype=np.float16), "b": random(2, seed=1)}
    model = parse(
        "g (float16[3] a, float[2] b, float[5] x) => (float[5] y)"
        "{ c = Cast <to = 1> (a) w = Concat <axis = 0> (c, b) y = Add (x, w) }",
        tmp_path,
        arrays,
    )
    absorb(tmp_path, model)
    assert lines(model) == ["a: float[3]", "b: float[2]", "w = Concat(a, b)", "y = Add(x, w)"]


def test_a_weight_of_which_single_entries_are_used_is_taken_apart(tmp_path: Path) -> None:
    weight = random(4, 3, 2, dtype=np.float16)
    model = parse(
        "g (float16[4, 3, 2] w, float[5, 4] x) => (float[5, 2] y) <int64 zero = {0}, int64 two = {2}>"
        "{ c = Cast <to = 1> (w) a = Gather <axis = 1> (c, zero) b = Gather <axis = 1> (c, two)"
        " p = MatMul (x, a) q = MatMul (x, b) y = Add (p, q) }",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert [line for line in lines(model) if line.startswith("w")] == ["w.G1x0: float[4, 2]", "w.G1x2: float[4, 2]"]
    for index in (0, 2):
        np.testing.assert_array_equal(values(model, f"w.G1x{index}", data), weight[:, index].astype(np.float32))


@pytest.mark.parametrize("index", ["-1", "i"])
def test_entries_that_are_not_known_from_the_start_are_left(tmp_path: Path, index: str) -> None:
    given = "int64 i, " if index == "i" else ""
    constant = "" if index == "i" else f"<int64 i = {{{index}}}>"
    model = parse(
        f"g ({given}float[4, 3] w, float[3] x) => (float[3] y) {constant}"
        "{ a = Gather <axis = 0> (w, i) y = Add (x, a) }",
        tmp_path,
        {"w": random(4, 3)},
    )
    absorb(tmp_path, model)
    assert "w: float[4, 3]" in lines(model)


def test_a_reshape_is_carried_out(tmp_path: Path) -> None:
    weight = random(4, 1, 1, 1, dtype=ml_dtypes.bfloat16)
    model = parse(
        "g (bfloat16[4, 1, 1, 1] w, float[2, 4] x) => (float[2, 4] y) <int64[1] s = {-1}>"
        "{ c = Cast <to = 1> (w) r = Reshape (c, s) y = Mul (x, r) }",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert "w.R4: float[4]" in lines(model)
    np.testing.assert_array_equal(values(model, "w.R4", data), weight.astype(np.float32).reshape(4))


@pytest.mark.parametrize("sizes", ["{3, -1}", "{2, 3}", "{-1, -1}"])
def test_a_reshape_that_does_not_fit_is_left_to_the_engine(tmp_path: Path, sizes: str) -> None:
    model = parse(
        f"g (float[4] w, float[2] x) => (float[2, 2] y) <int64[2] s = {sizes}> {{ r = Reshape (w, s) y = Add (x, r) }}",
        tmp_path,
        {"w": random(4)},
    )
    absorb(tmp_path, model)
    assert "r = Reshape(w, s)" in lines(model)
