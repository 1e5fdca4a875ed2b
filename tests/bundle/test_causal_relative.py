"""Positions that are relative to the cache: a bundle's passes are diffusers' own, and none is far from the first.

The reference keeps nothing: its attention turns keys anew for each chunk that looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

import wanc as package
from tests.models.test_causal import MISPLACED, TOLERANCE
from wanc.runtime.causal import BASE, CausalVideo
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.manifest import Manifest
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.timer import Timer

from .test_causal import RED, SQUARE, Take, asked, begun, errors, open_experts, taken

pytestmark = pytest.mark.slow
LONG = 300
"""Chunks."""


@pytest.fixture(scope="module")
def pipeline(relative_bundle: Path) -> Pipeline:
    return package.open(relative_bundle, threads=1)


@pytest.fixture(scope="module")
def experts() -> dict[str, WanTransformer3DModel]:
    return open_experts()


def found(take: Take, experts: Mapping[str, WanTransformer3DModel], video: CausalVideo) -> list[float]:
    return errors(take, experts, video.model.facts.window, is_relative=True)


def test_a_runtime_that_cannot_do_it_is_told(relative_bundle: Path) -> None:
    assert Manifest.read(relative_bundle).requires == ("causal/1", "relative-positions/1")


def test_each_pass_is_diffusers_own(pipeline: Pipeline, experts: dict[str, WanTransformer3DModel]) -> None:
    """Behind chunks that were given up, and of a last one that is shorter."""
    take, video = taken(pipeline), begun(pipeline)
    assert video.model.facts.window == KeyValueWindow(sink=1, recent=2)
    assert [chunk.shape[2] for chunk in take.clean] == [2, 2, 2, 2, 2, 1]
    assert max(found(take, experts, video)) < TOLERANCE
    absolute = errors(take, experts, video.model.facts.window)
    assert [error > 100 * TOLERANCE for error in absolute] == [one.chunk > 3 for one in take.noisy], "all are in sight"


def test_a_renewed_past_is_one_of_the_new_prompt(pipeline: Pipeline, experts: dict[str, WanTransformer3DModel]) -> None:
    video, at = begun(pipeline), 3
    texts = pipeline.encode(replace(asked(pipeline), prompt=SQUARE, negative_prompt=RED), Timer())

    def say(chunk: int) -> None:
        if chunk == at:
            video.say(texts, renew=True)

    take = Take.of(video, pipeline.latent_frames(asked(pipeline)), before=say)
    later = replace(take, passes=[one for one in take.passes if one.chunk == at])
    assert max(found(later, experts, video)) < TOLERANCE


@pytest.mark.parametrize("fault", MISPLACED)
def test_a_fault_is_seen(
    fault: str,
    pipeline: Pipeline,
    experts: dict[str, WanTransformer3DModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(KeyValueWindow, "places", MISPLACED[fault])
    assert max(found(taken(pipeline), experts, begun(pipeline))) > 100 * TOLERANCE


def test_no_position_grows(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the chunk: that of the last frame, behind all in sight. They are asked for once."""
    request = replace(asked(pipeline), frames=8 * LONG + 1, steps=1)
    video, largest = pipeline.video(request, pipeline.encode(request, Timer())), list[float]()
    positions = CausalVideo.positions

    def noting(self: CausalVideo, latents: np.ndarray, chunk: int) -> dict[str, np.ndarray]:
        turns = positions(self, latents, chunk)
        largest.append(max(largest_position(turns, what) for what in ("frame", "past")))
        return turns

    monkeypatch.setattr(CausalVideo, "positions", noting)
    latents = [video.make(2) for _ in range(LONG)][-1]
    facts = video.model.facts
    assert np.isfinite(latents).all() and len(largest) == LONG
    assert max(largest) == pytest.approx((facts.window.chunks + 1) * facts.chunk - 1, abs=1e-3)


def largest_position(turns: Mapping[str, np.ndarray], what: str) -> float:
    """By the slowest pair of channels, which has not gone round even behind thousands of frames."""
    cos, sin = turns[f"{what}_cos"], turns[f"{what}_sin"]
    slowest = BASE ** (-(cos.shape[1] - 1) / cos.shape[1])
    return float(np.arctan2(sin[:, -1], cos[:, -1]).max() / slowest)
