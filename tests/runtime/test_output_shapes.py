"""The shapes of outputs, solved from those of inputs before a graph is executed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.runtime.output_shapes import Declared, Shape, output_shapes

INPUTS: dict[str, Declared] = {"latents": (1, "frames", "2*rows"), "scale": ("frames",), "any": ("n+1", None)}


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        ((7, 2), (7, 2)),
        ((), ()),
        (("frames", "16*rows"), (3, 80)),
        (("3*frames", 1), (9, 1)),
        (("tokens",), None),
        ((None, 2), None),
        (("n+1",), None),
        (("rows+frames",), None),
    ],
)
def test_sizes_are_numbers_or_follow_from_the_inputs(declared: Declared, shape: Shape | None) -> None:
    given = {"latents": (1, 3, 10), "scale": (3,), "any": (4, 5)}
    assert output_shapes(INPUTS, {"y": declared}, given) == ({} if shape is None else {"y": shape})


@pytest.mark.parametrize(
    "given", [{"latents": (1, 3, 9)}, {"latents": (1, 3, 10), "scale": (4,)}], ids=["no multiple", "two sizes"]
)
def test_inputs_that_do_not_fit_are_the_engine_s_to_refuse(given: dict[str, Shape]) -> None:
    assert output_shapes(INPUTS, {"y": ("frames",), "z": (1,)}, given) == {}


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc")), max_size=5), st.integers(1, 50))
def test_what_an_input_has_an_output_of_the_same_sizes_has(dimensions: list[tuple[int, str]], size: int) -> None:
    sizes = {"a": size, "b": size + 1, "c": 0}
    declared = tuple(f"{factor}*{name}" for factor, name in dimensions)
    shape = tuple(factor * sizes[name] for factor, name in dimensions)
    assert output_shapes({"x": declared}, {"y": declared}, {"x": shape}) == {"y": shape}
