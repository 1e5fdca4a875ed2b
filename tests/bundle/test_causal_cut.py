"""A causal model in two pieces on a CPU: bit for bit the same latents, each piece beside the past of its own blocks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import wanc as package
from wanc.runtime.cache_facts import NEW, PAST
from wanc.runtime.execute import run_selftest
from wanc.runtime.kvcache import Array, KeyValueRing
from wanc.runtime.model import HIGH, LOW

pytestmark = pytest.mark.slow
PROMPT, FRAMES = "A red circle moves to the left.", 25
"""So long that chunks are given up."""


@pytest.fixture(scope="module")
def cut(causal_within: Path) -> Path:
    return causal_within


def latents_of(bundle: Path) -> Array:
    return package.open(bundle, threads=1).generate(PROMPT, seed=7, frames=FRAMES).latents


def blocks_of(names: tuple[str, ...], start: str) -> list[int]:
    return sorted({int(name.split(".")[1]) for name in names if name.startswith(start)})


def test_each_piece_has_the_past_of_its_own_blocks(cut: Path) -> None:
    for expert in (HIGH, LOW):
        files = package.open(cut).bundle.engines[expert, "step"].files
        found = [(blocks_of(file.inputs, PAST), blocks_of(file.outputs, NEW)) for file in files]
        assert found == [([0, 1], [0, 1]), ([2, 3, 4], [2, 3, 4])]
        taken = Counter(name for file in files for name in file.inputs if name.startswith(PAST))
        assert len(taken) == 2 * 5 and set(taken.values()) == {1}, "each is in one place"


def test_its_latents_are_those_of_one_piece(cut: Path, causal_bundle: Path) -> None:
    np.testing.assert_array_equal(latents_of(cut), latents_of(causal_bundle))
    assert run_selftest(cut).ok


def test_the_past_of_another_piece_is_seen(cut: Path, causal_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: from the second chunk on, the pieces look back at keys of one another."""
    inputs = KeyValueRing.inputs

    def exchanged(self: KeyValueRing) -> dict[str, Array]:
        found = inputs(self)
        return {**found, "past.1.key": found["past.2.key"], "past.2.key": found["past.1.key"]}

    wanted = latents_of(causal_bundle)
    monkeypatch.setattr(KeyValueRing, "inputs", exchanged)
    wrong = latents_of(cut)
    np.testing.assert_array_equal(wrong[:, :, 0], wanted[:, :, 0])
    assert all((wrong[:, :, chunk] != wanted[:, :, chunk]).any() for chunk in range(1, wanted.shape[2]))
