"""Where components are cut that are not spread over devices."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.compiler.program.cuts import cut_blocks
from wanc.errors import RecipeError
from wanc.recipe.load import load

from ..conftest import ROOT


@given(st.integers(0, 60), st.integers(2, 64) | st.sampled_from(["none", "blocks"]))
def test_segments_are_all_blocks_in_their_order_and_alike(blocks: int, cut: object) -> None:
    bounds = cut_blocks(blocks, cut)  # pyright: ignore[reportArgumentType]
    sizes = [stop - start for start, stop in bounds]
    assert bounds[0][0] == 0 and bounds[-1][1] == blocks
    assert all(one[1] == other[0] for one, other in pairwise(bounds))
    assert max(sizes) - min(sizes) <= 1 and (min(sizes) > 0 or blocks == 0)
    wanted = {"none": 1, "blocks": blocks}.get(str(cut), cut)
    assert len(bounds) == max(1, min(blocks, int(str(wanted))))


@pytest.mark.parametrize("cut", ["1", "0", "-2", "65", "true", "2.0", "half"])
def test_other_cuts_are_refused(cut: str) -> None:
    with pytest.raises(RecipeError):
        load(ROOT / "recipes" / "tiny-wan.yaml", [f"partition.cut={cut}"])
