"""What is built at true scale keeps its bounds, measured anew: see bench/results/engines-a14b.md for what it took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.true_scale.bounds import BOUNDS, SAME_ENGINE, broken
from scripts.true_scale.rows import ROWS, Within

pytest.importorskip("tensorrt_rtx_bindings")
pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("fresh_stages")]

Measure = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def store(together: Path) -> Path:
    """In which both models are exported and fused once."""
    return together / "true-scale"


@pytest.fixture
def measure(store: Path, tmp_path: Path) -> Measure:
    return lambda name: ROWS[name].measure(store, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in ROWS if name not in {*SAME_ENGINE, *SAME_ENGINE.values()}])
def test_a_row_keeps_its_bounds(name: str, measure: Measure) -> None:
    assert broken({name: measure(name)}, name, quiet=False) == []


@pytest.mark.long
@pytest.mark.parametrize("name", SAME_ENGINE)
def test_a_second_size_of_video_is_no_second_engine(name: str, measure: Measure) -> None:
    rows = {row: measure(row) for row in (SAME_ENGINE[name], name)}
    assert [fault for row in rows for fault in broken(rows, row, quiet=False)] == []


def test_every_row_has_something_to_hold() -> None:
    assert {name for name, row in ROWS.items() if not isinstance(row, Within)} == BOUNDS.keys()
    nothing = {"peak_rss_bytes": 0, "activation_bytes": 0, "seconds": 0.0, "cpu_seconds": 0.0, "sqnr_db": {"step": 99}}
    for name in ROWS:
        row = {**nothing, "engine_bytes": 2**35, "allowed_bytes": 1}
        assert broken({name: row}, name, quiet=True) == []
        too_much = {**row, "peak_rss_bytes": 2**40, "activation_bytes": 2**40, "seconds": 1e6, "sqnr_db": {"step": 1}}
        assert broken({name: too_much}, name, quiet=True)
    assert broken({"expert-int8": {**nothing, "engine_bytes": 2**30}}, "expert-int8", quiet=True) != []


def test_an_engine_that_grows_with_a_size_of_video_is_a_fault() -> None:
    row = {"peak_rss_bytes": 0, "activation_bytes": 0, "engine_bytes": 100 * 2**30}
    for name, alone in SAME_ENGINE.items():
        assert broken({alone: row, name: {**row, "engine_bytes": 101 * 2**30}}, name, quiet=True) == []
        assert broken({alone: row, name: {**row, "engine_bytes": 102 * 2**30}}, name, quiet=True)
