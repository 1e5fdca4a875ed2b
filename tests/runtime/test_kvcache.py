"""Which finished chunks a chunk sees: those that Self-Forcing's rolling cache shows it, wherever they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.runtime.kvcache import BIAS, KeyValueRing, KeyValueWindow

PASSES = 3
"""Over each chunk; the last one is that which counts."""


def rolled(sink: int, recent: int, chunks: int) -> list[list[int]]:
    """Self-Forcing's own procedure, a chunk for a token: for each chunk what its last pass sees besides itself.

    Every pass writes; the first pass over a new chunk moves what stays behind the sink to the left.
    """
    size = sink + recent + 1
    cache = [-1] * size
    global_end = local_end = 0
    seen: list[list[int]] = []
    for chunk in range(chunks):
        for _ in range(PASSES):
            end = chunk + 1
            if end > global_end and 1 + local_end > size:
                evicted = 1 + local_end - size
                kept = local_end - evicted - sink
                cache[sink : sink + kept] = cache[sink + evicted : sink + evicted + kept]
                last = local_end + (end - global_end) - evicted
            else:
                last = local_end + (end - global_end)
            cache[last - 1] = chunk
            global_end, local_end = end, last
        seen.append(sorted(set(cache[:local_end]) - {chunk}))
    return seen


@given(sink=st.integers(0, 4), recent=st.integers(1, 6), chunks=st.integers(1, 24))
def test_what_is_seen_is_what_a_rolling_cache_shows(sink: int, recent: int, chunks: int) -> None:
    ring = KeyValueRing(KeyValueWindow(sink, recent), {"past.0.key": (1, 2, 1, 1)})
    held = ring.bytes
    found: list[list[int]] = []
    for chunk in range(chunks):
        inputs = ring.inputs()
        visible = np.isfinite(inputs[BIAS][0, 0, 0])
        keys = inputs["past.0.key"][0, :, 0, 0][visible]
        assert len(keys) == 2 * len(ring.seen)
        found.append(sorted({int(key) - 1 for key in keys}))
        ring.finish(chunk, {"past.0.key": np.full((1, 2, 1, 1), chunk + 1, np.float32)})
    assert found == rolled(sink, recent, chunks)
    assert ring.bytes == held


def test_nothing_of_the_past_is_copied() -> None:
    ring = KeyValueRing(KeyValueWindow(1, 2), {"past.0.key": (1, 4, 2, 8), "past.0.value": (1, 4, 2, 8)})
    first = ring.inputs()
    for chunk in range(5):
        ring.finish(chunk, {name: np.full((1, 4, 2, 8), chunk, np.float32) for name in ("past.0.key", "past.0.value")})
        assert all(array is first[name] for name, array in ring.inputs().items())


def test_what_is_hidden_is_a_number() -> None:
    """Nothing times what is not a number would be none."""

    def dirty(shape: tuple[int, ...], dtype: object) -> np.ndarray:
        return np.full(shape, np.nan, dtype)  # type: ignore[arg-type]

    inputs = KeyValueRing(KeyValueWindow(0, 2), {"past.0.key": (1, 4, 2, 8)}, dirty).inputs()
    assert not inputs["past.0.key"].any() and np.isneginf(inputs[BIAS]).all()


@pytest.mark.parametrize(("sink", "recent"), [(-1, 2), (0, 0), (2, 0)])
def test_a_window_that_sees_nothing(sink: int, recent: int) -> None:
    with pytest.raises(ValueError):
        KeyValueWindow(sink, recent)
