"""Blocks that are read from disk as they are executed: what they compute, and what they take, is what was measured.

See bench/results/offload.md for the true sizes, in which the tests marked `long` execute them.
"""

from __future__ import annotations

import copy
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="a checkpoint is exported with diffusers, an extra")

from scripts.true_scale.blocks import BuiltBlocks, Video
from scripts.true_scale.compiled import segments_of
from scripts.true_scale.drawn import DrawnCodes
from scripts.true_scale.encoder import TOKENS
from scripts.true_scale.offload import (
    BESIDE,
    BLOCKS,
    ENCODER,
    MOST_ERROR,
    MOST_RSS,
    MOST_TIMES,
    blocks,
    encoder,
    faults,
)
from tests.compiler.tiny_encoder import INT8, fused_with
from wanc.compiler.program.component_files import ComponentFiles
from wanc.runtime.model import HIGH


@pytest.fixture(scope="module")
def built(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltBlocks:
    """tiny-wan's high-noise expert, with codes that were drawn."""
    inputs, folder = fused_with(tiny_bundle, INT8).inputs, tmp_path_factory.mktemp("blocks")
    segments = segments_of(len(ComponentFiles.read(HIGH, inputs).component.blocks))
    return BuiltBlocks.of(DrawnCodes.of(inputs, HIGH, segments, folder), segments, Video(64, 64, 5), folder / "bundle")


def least(built: BuiltBlocks) -> int:
    return max(file.memory.opening for file in built.compiled.executed if file.memory is not None)


FLIPS = 3 * MOST_ERROR
"""A value that lies between two codes may become either, which shows in blocks of this width."""


def test_segments_are_diffusers_blocks_on_the_same_codes(built: BuiltBlocks) -> None:
    found = built.errors(least(built), 0)
    assert len(found) == len(built.drawn.by_segment)
    assert median(found) <= MOST_ERROR / 100 and max(found) <= FLIPS
    path, linear = next(entry for name, entry in built.drawn.weights().items() if name.startswith("blocks.1.ffn"))
    scales = np.fromfile(path, np.float32, linear.shape[0], offset=linear.scales_at)
    with path.open("r+b") as file:  # others than those that were compiled
        file.seek(linear.scales_at)
        file.write((scales * np.float32(1.05)).tobytes())
    planted = built.errors(least(built), 0)
    assert planted[1] > FLIPS and planted[0] == found[0] and planted[2:] == found[2:]


@pytest.mark.slow
def test_blocks_keep_a_budget_and_give_the_same(built: BuiltBlocks) -> None:
    whole = built.passes(None, 0, "warm", 2)
    assert [one["loaded_bytes"] for one in whole["passes"]] == [built.compiled.bytes, 0]
    budget = least(built) + built.values
    within = built.passes(budget, built.values, "cold", 2)
    assert within["velocity"] == whole["velocity"]
    assert within["peak_bytes"] <= budget
    assert within["evictions"] >= len(built.drawn.by_segment)
    assert min(one["loaded_bytes"] for one in within["passes"]) > 0


WITHIN = {"budget": 100, "peak_bytes": 100, "peak_rss_bytes": 100 + BESIDE, "evictions": 1, "velocity": "a"}
GOOD: dict[str, dict[str, Any]] = {
    BLOCKS: {
        "parameters": 3.5e9,
        "errors": [MOST_ERROR],
        "rounds": [{"resident": {"velocity": "a"}, "within": {"50%, cold": WITHIN}}],
        "times": {"50%, cold": [MOST_TIMES, 1.0]},
    },
    ENCODER: {
        "parameters": 5.68e9,
        "engine_bytes": 1000,
        "budget": MOST_RSS,
        "peak_bytes": 1,
        "peak_rss_bytes": MOST_RSS,
        "requests": [
            {"tokens": TOKENS, "loads": loads, "engine_bytes_read": 1000 * loads, "table_bytes_read": 9 * loads}
            for loads in (1, 0, 1)
        ],
    },
}


@pytest.mark.parametrize(
    ("name", "path", "wrong"),
    [
        (BLOCKS, "parameters", 3.4e9),
        (BLOCKS, "errors.0", 1.1 * MOST_ERROR),
        (BLOCKS, "errors.0", float("nan")),
        (BLOCKS, "rounds.0.within.50%, cold.peak_bytes", 101),
        (BLOCKS, "rounds.0.within.50%, cold.peak_rss_bytes", 101 + BESIDE),
        (BLOCKS, "rounds.0.within.50%, cold.evictions", 0),
        (BLOCKS, "rounds.0.within.50%, cold.velocity", "b"),
        (BLOCKS, "times.50%, cold.1", 1.01 * MOST_TIMES),
        (ENCODER, "parameters", 5.6e9),
        (ENCODER, "peak_rss_bytes", MOST_RSS + 1),
        (ENCODER, "peak_bytes", MOST_RSS + 1),
        (ENCODER, "requests.0.tokens", TOKENS - 1),
        (ENCODER, "requests.0.engine_bytes_read", 800),
        (ENCODER, "requests.0.table_bytes_read", 2**30),
        (ENCODER, "requests.1.loads", 1),
        (ENCODER, "requests.1.engine_bytes_read", 4096),
        (ENCODER, "requests.1.table_bytes_read", 4096),
    ],
)
def test_each_bound_turns_red(name: str, path: str, wrong: Any) -> None:
    row = copy.deepcopy(GOOD[name])
    assert list(faults(row, name, quiet=True)) == []
    *places, last = [int(place) if place.isdigit() else place for place in path.split(".")]
    inner: Any = row
    for place in places:
        inner = inner[place]
    inner[last] = wrong
    assert len(list(faults(row, name, quiet=True))) == 1


@pytest.mark.long
@pytest.mark.timeout(3 * 3600)
@pytest.mark.usefixtures("fresh_stages")
@pytest.mark.parametrize("name", [BLOCKS, ENCODER])
def test_true_sizes_keep_their_bounds(name: str, tmp_path: Path) -> None:
    row = blocks(tmp_path, rounds=1) if name == BLOCKS else encoder(tmp_path)
    print(row)
    assert list(faults(row, name, quiet=False)) == []
