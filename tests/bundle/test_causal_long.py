"""A long causal video takes no more memory than a short one, and its positions end nowhere."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

import wanc as package
from wanc.runtime.causal import CausalVideo, chunks_of
from wanc.runtime.memory import rss_bytes
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer
from wanc.runtime.video import create_video

PROMPT = "A red circle moves to the left."
LONG, CHUNKS = 2001, 501
EARLY, LATE = 50, 490
"""Chunks between which nothing grows."""
MOST_POSITIONS = 1024
"""Of the table that diffusers' model, and Self-Forcing's, looks positions up in."""


@pytest.fixture(scope="module")
def pipeline(causal_bundle: Path) -> Pipeline:
    return package.open(causal_bundle, threads=1)


def begun(pipeline: Pipeline, **options: int) -> CausalVideo:
    request = Request(PROMPT, seed=7, **options)
    return pipeline.video(request, pipeline.encode(request, Timer()))


def made(video: CausalVideo, chunks: int) -> np.ndarray:
    return np.concatenate(list(chunks_of(video, chunks)), axis=2)


def test_more_frames_than_a_table_has_positions(pipeline: Pipeline) -> None:
    frames = 4 * 2 * MOST_POSITIONS + 1
    assert pipeline.latent_frames(Request(PROMPT, frames=frames)) == 2 * MOST_POSITIONS + 1
    pipeline.check(Request(PROMPT, frames=frames))


@pytest.mark.parametrize("first", [MOST_POSITIONS - 3, 100_000])
def test_a_chunk_depends_on_distances_alone(pipeline: Pipeline, first: int) -> None:
    """Keys and queries are both turned by their positions. Angles are computed in float64, and their sines in float32
    are off by 6e-8 at most, wherever they are; 3e-6 was measured behind all steps of seven chunks.
    """
    wanted = made(begun(pipeline), 7)
    found = made(replace(begun(pipeline), _frames=first), 7)
    assert np.linalg.norm(found - wanted) < 2e-5 * np.linalg.norm(wanted)
    assert not np.array_equal(found, wanted), "positions are others"


@pytest.mark.slow
def test_a_long_video_takes_no_more_memory(pipeline: Pipeline, tmp_path: Path) -> None:
    request = Request(PROMPT, seed=7, frames=LONG, steps=1)
    taken: dict[int, tuple[int, int]] = {}
    size = {"height": 64, "width": 64, "fps": 16, "frames": LONG}
    with (
        create_video(tmp_path / "out.mp4", **size, appears="partial") as video,
        pipeline.frames(request, Timer()) as frames,
    ):
        for chunk, batch in enumerate(frames):
            video.write(batch)
            if chunk in (EARLY, LATE):
                gc.collect()
                taken[chunk] = rss_bytes(), pipeline.executor.pool.counts().held
    (early, early_pool), (late, late_pool) = taken[EARLY], taken[LATE]
    assert late <= 1.01 * early
    assert late_pool <= 1.01 * early_pool
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == LONG


@pytest.mark.slow
def test_a_video_beyond_the_table(pipeline: Pipeline) -> None:
    """The rings are as large behind 1,100 chunks as behind ten."""
    video, sizes = begun(pipeline, steps=1), set[int]()
    for chunk in range(MOST_POSITIONS + 76):
        latents = video.make(1)
        if chunk >= 10:
            sizes.add(video.cache_bytes)
    assert len(sizes) == 1 and video.done == MOST_POSITIONS + 76
    assert np.isfinite(latents).all()
