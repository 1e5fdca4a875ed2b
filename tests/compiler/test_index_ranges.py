"""What is known of an input whose numbers say which entries of a table are taken."""

from __future__ import annotations

import pytest

from wanc.compiler.graphs.index_ranges import index_ranges

from .passes.builder import parse


def ranges(body: str, inputs: str = "int64[n] ids") -> dict[str, tuple[int, int]]:
    """Of a graph with a table of 30 rows of 8, `t`, and one of unknown length, `open`; its last node is first."""
    nodes = " ".join(reversed(body.split("  ")))
    sizes = "one = Constant <value_ints = [1]> () two = Constant <value_ints = [1, 2]> ()"
    text = f"g ({inputs}, float[30, 8] t, float[rows, 8] open) => (float y) {{ {sizes} {nodes} }}"
    return index_ranges(parse(text, shapes=False).graph)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("y = Gather (t, ids)", 30),
        ("y = Gather <axis = 1> (t, ids)", 8),
        ("y = Gather <axis = -1> (t, ids)", 8),
        ("y = Gather (t, a)  a = Identity (ids)", 30),
        ("y = Gather (t, a)  a = Cast <to = 6> (ids)", 30),
        ("y = Gather (t, a)  a = Reshape (ids, two)", 30),
        ("y = Gather (t, a)  a = Transpose (b)  b = Unsqueeze (ids, two)", 30),
        ("y = Gather (t, a)  a = Squeeze (b, one)  b = Unsqueeze (ids, one)", 30),
        ("y = Gather (t, a)  a = Concat <axis = 0> (one, ids)", 30),
        ("y = Gather (t, a)  a = Slice (ids, one, two)", 30),
        ("y = Gather (t, a)  a = Expand (ids, two)", 30),
        ("y = Gather (t, a)  a = Tile (ids, one)", 30),
        ("y = Gather (t, a)  a = Flatten (ids)", 30),
        ("y = GatherElements <axis = 1> (t, a)  a = Unsqueeze (ids, one)", 8),
        ("y = ScatterElements <axis = 0> (t, a, t)  a = Unsqueeze (ids, one)", 30),
    ],
)
def test_a_table_of_fixed_size(body: str, size: int) -> None:
    assert ranges(body) == {"ids": (-size, size - 1)}


def test_the_smallest_of_several_tables_counts() -> None:
    assert ranges("y = MatMul (a, b)  a = Gather (t, ids)  b = Gather <axis = 1> (t, ids)") == {"ids": (-8, 7)}


def test_each_input_has_its_own() -> None:
    body = "y = MatMul (a, b)  a = Gather (t, ids)  b = Gather <axis = 1> (t, kinds)"
    found = ranges(body, "int64[n] ids, int32[n] kinds")
    assert found == {"ids": (-30, 29), "kinds": (-8, 7)}


@pytest.mark.parametrize(("width", "size"), [(1, 30), (2, 30)])
def test_numbers_that_go_by_several_axes(width: int, size: int) -> None:
    """No number may be beyond the longest; a shorter axis says nothing about the others' numbers."""
    assert ranges("y = GatherND (t, ids)", f"int64[n, {width}] ids") == {"ids": (-size, size - 1)}


@pytest.mark.parametrize(
    "body",
    [
        "y = Gather (open, ids)",  # whatever the request has
        "y = Gather (t, a)  a = Add (ids, one)",
        "y = Gather (t, a)  a = Mod (ids, ids)",
        "y = Gather (t, a)  a = Shape (ids)",
        "y = Reshape (t, ids)",  # sizes
        "y = Gather (t, a)  a = Slice (two, ids, ids)",
        "y = Gather (t, a)  a = Cast <to = 7> (b)  b = Cast <to = 1> (ids)",
        "y = OneHot (ids, one, two)",
    ],
)
def test_what_says_nothing(body: str) -> None:
    """OneHot takes any number: beyond its depth all is off."""
    assert ranges(body) == {}
