"""A bundle's causal video is diffusers' own transformer over the whole sequence, pass by pass; planted faults are seen.

What is compared is what a real run computes: each noisy pass of each expert and guidance branch is taken down, and
computed again behind the clean latents that the run itself has made of earlier chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

import wanc as package
from tests.models.looking_back import LookingBack
from tests.models.test_causal import CLEAN, TOLERANCE
from wanc.models.wan.untouched_sequence import MaskedAttention
from wanc.runtime.causal import CausalVideo, chunks_of
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.parts import Parts
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer
from wanc.runtime.value import Given, Value

from ..conftest import ROOT

RED, SQUARE = "A red circle moves to the left.", "A blue square moves up."
FOLDERS = {"denoiser_high": "transformer", "denoiser_low": "transformer_2"}
FRAME_TOKENS = (64 // 16) ** 2
"""A token is of 2 x 2 latents of 8 x 8 pixels."""
EVICTING = {1: 25, 2: 41}
"""Frames of a video, by its chunk, in which chunks are given up; with chunks of two the last one has one latent frame.
"""


class Pass(NamedTuple):
    """One pass over a chunk: what went in, and the velocities that came out. Of these, and of texts, there is one for
    each branch.
    """

    chunk: int
    component: str
    timestep: float
    latents: np.ndarray
    texts: np.ndarray
    velocities: np.ndarray


@dataclass
class Overheard(Parts):
    """The parts of an expert, whose passes are taken down."""

    note: Callable[[str, Mapping[str, Mapping[str, Any]], np.ndarray], None] = lambda *_: None

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Given]]) -> list[dict[str, Value]]:
        results = super().run_branches(graph, given)
        self.note(self.component, given, np.concatenate([found["velocity"].numpy() for found in results]))
        return results


@dataclass
class Take:
    """A whole video: every pass, and the clean latents of every chunk."""

    passes: list[Pass] = field(default_factory=list)
    clean: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        video: CausalVideo,
        frames: int,
        overheard: type[Overheard] = Overheard,
        before: Callable[[int], object] = lambda _: None,
    ) -> Take:
        """`before` is told of each chunk before it is made."""
        take, parts_of = cls(), video.model.parts_of

        def note(component: str, given: Mapping[str, Mapping[str, Any]], velocities: np.ndarray) -> None:
            assert tuple(given) == ("conditional", "unconditional")
            one, other = given.values()
            assert one["latents"] is other["latents"] and one["timestep"] == other["timestep"]
            texts = np.concatenate([one["text"], other["text"]])
            timestep, latents = float(one["timestep"][0]), np.array(one["latents"])
            take.passes.append(Pass(video.done, component, timestep, latents, texts, velocities))

        def heard(component: str) -> Parts:
            parts = cast(Parts, parts_of(component))
            return overheard(parts.component, parts.graphs, parts.executor, parts.tables, note=note)

        video.model = replace(video.model, parts_of=heard)
        chunks = chunks_of(video, frames)
        for chunk in range(len(video.model.facts.lengths(frames))):
            before(chunk)
            take.clean.append(np.array(next(chunks)))
        return take

    @property
    def noisy(self) -> list[Pass]:
        return [one for one in self.passes if one.timestep != CLEAN]


BY_CHUNK = [
    pytest.param("causal_bundle", id="single frames"),
    pytest.param("pairwise_bundle", id="pairs of frames", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=BY_CHUNK)
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    return package.open(request.getfixturevalue(request.param), threads=1)


@pytest.fixture(scope="module")
def experts() -> dict[str, WanTransformer3DModel]:
    return open_experts()


def open_experts() -> dict[str, WanTransformer3DModel]:
    """diffusers' own, of the same weights."""
    return {
        name: WanTransformer3DModel.from_pretrained(
            ROOT / "models" / "tiny-wan" / folder, torch_dtype=torch.float32
        ).eval()
        for name, folder in FOLDERS.items()
    }


def asked(pipeline: Pipeline) -> Request:
    assert pipeline.bundle.cache is not None
    return Request(RED, seed=7, frames=EVICTING[pipeline.bundle.cache.chunk], negative_prompt=SQUARE)


def begun(pipeline: Pipeline) -> CausalVideo:
    return pipeline.video(asked(pipeline), pipeline.encode(asked(pipeline), Timer()))


def taken(pipeline: Pipeline, overheard: type[Overheard] = Overheard, **changed: Any) -> Take:
    """A video of a model in which something may be another."""
    video = begun(pipeline)
    video.model = replace(video.model, **changed)
    return Take.of(video, pipeline.latent_frames(asked(pipeline)), overheard)


def expected(
    expert: WanTransformer3DModel,
    one: Pass,
    clean: Sequence[np.ndarray],
    window: KeyValueWindow,
    *,
    is_relative: bool = False,
) -> np.ndarray:
    """The velocities of a noisy chunk behind clean ones, of one forward pass over all of them with a timestep for each
    token. What a finished chunk computes sees what that chunk saw: the mask has a row of its own for each.
    """
    latents = torch.from_numpy(np.concatenate([*clean[: one.chunk], one.latents], axis=2))
    lengths = [part.shape[2] * FRAME_TOKENS for part in (*clean[: one.chunk], one.latents)]
    seen = [window.seen(row) for row in range(one.chunk + 1)]
    for block in expert.blocks:
        block.attn1.processor = LookingBack(seen, lengths) if is_relative else MaskedAttention(mask_of(seen, lengths))
    timesteps = torch.tensor([[CLEAN] * sum(lengths[:-1]) + [one.timestep] * lengths[-1]])
    count = len(one.texts)
    with torch.no_grad():
        (velocities,) = expert(
            latents.expand(count, -1, -1, -1, -1),
            timesteps.expand(count, -1),
            torch.from_numpy(one.texts),
            return_dict=False,
        )
    return velocities[:, :, -one.latents.shape[2] :].numpy()


def mask_of(seen: Sequence[Sequence[int]], lengths: Sequence[int]) -> torch.Tensor:
    """Which token sees which: all of its own chunk, and of those that this sees."""
    sees = torch.zeros(len(seen), len(seen), dtype=torch.bool)
    for row, others in enumerate(seen):
        sees[row, [*others, row]] = True
    tokens = torch.tensor(lengths)
    return sees.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)[None, None]


def errors(
    take: Take, experts: Mapping[str, WanTransformer3DModel], window: KeyValueWindow, *, is_relative: bool = False
) -> list[float]:
    """Of each noisy pass the largest of its branches', relative to what is expected."""
    pairs = (
        (one.velocities, expected(experts[one.component], one, take.clean, window, is_relative=is_relative))
        for one in take.noisy
    )
    return [float((norms(found - wanted) / norms(wanted)).max()) for found, wanted in pairs]


def norms(velocities: np.ndarray) -> np.ndarray:
    return np.linalg.norm(velocities.reshape(len(velocities), -1), axis=1)


def test_each_pass_is_diffusers_own(pipeline: Pipeline, experts: dict[str, WanTransformer3DModel]) -> None:
    take, cache = taken(pipeline), pipeline.bundle.cache
    assert cache is not None and cache.window == KeyValueWindow(sink=1, recent=2)
    chunks = cache.lengths(pipeline.latent_frames(asked(pipeline)))
    assert [chunk.shape[2] for chunk in take.clean] == chunks
    assert cache.window.seen(len(chunks) - 1) == [0, len(chunks) - 3, len(chunks) - 2], "some are not seen any more"
    every = [(chunk, name) for chunk in range(len(chunks)) for name in FOLDERS]
    assert [(one.chunk, one.component) for one in take.noisy] == every
    assert max(errors(take, experts, cache.window)) < TOLERANCE


def test_every_expert_makes_a_clean_pass_behind_every_chunk_but_the_last(pipeline: Pipeline) -> None:
    take = taken(pipeline)
    clean = [one for one in take.passes if one.timestep == CLEAN]
    assert [(one.chunk, one.component) for one in clean] == [
        (chunk, name) for chunk in range(len(take.clean) - 1) for name in FOLDERS
    ]
    assert all(np.array_equal(one.latents, take.clean[one.chunk]) for one in clean)


@pytest.mark.parametrize("renew", [True, False], ids=["renewed", "kept"])
def test_behind_a_change_a_renewed_past_is_one_of_the_new_prompt(
    pipeline: Pipeline, experts: dict[str, WanTransformer3DModel], renew: bool
) -> None:
    """As if all had been made of the new prompt, where all of the past is in sight; what is kept is of the old one."""
    video, at = begun(pipeline), 3
    texts = pipeline.encode(replace(asked(pipeline), prompt=SQUARE, negative_prompt=RED), Timer())

    def say(chunk: int) -> None:
        if chunk == at:
            video.say(texts, renew=renew)

    take = Take.of(video, pipeline.latent_frames(asked(pipeline)), before=say)
    later = replace(take, passes=[one for one in take.passes if one.chunk >= at])
    found = errors(later, experts, video.model.facts.window)
    assert max(found) < TOLERANCE if renew else max(found) > 100 * TOLERANCE


# Faults that others have made, each planted

of_single_frames = pytest.mark.parametrize("pipeline", BY_CHUNK[:1], indirect=True)
SAID: dict[str, dict[str, Value]] = {}
"""By branch, what an expert has made of the prompt."""


@dataclass
class SharedText(Overheard):
    """Keys and values of the prompt are kept once for both experts: the second one takes those of the first."""

    def run(self, graph: str, given: Mapping[str, Given], *, branch: str) -> dict[str, Value]:
        if graph != "request":
            return super().run(graph, given, branch=branch)
        if branch not in SAID:
            SAID[branch] = super().run(graph, given, branch=branch)
        return SAID[branch]


@of_single_frames
def test_keys_of_the_prompt_that_experts_share(
    pipeline: Pipeline, experts: dict[str, WanTransformer3DModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FastVideo hands one cross-attention cache to both."""
    monkeypatch.setitem(globals(), "SAID", {})
    assert_seen(pipeline, experts, taken(pipeline, SharedText), by="denoiser_low")


@of_single_frames
def test_a_chunk_that_is_given_up_too_late(pipeline: Pipeline, experts: dict[str, WanTransformer3DModel]) -> None:
    facts = begun(pipeline).model.facts
    assert_seen(pipeline, experts, taken(pipeline, facts=replace(facts, window=KeyValueWindow(sink=1, recent=3))))


@of_single_frames
def test_a_chunk_that_is_given_up_too_early(pipeline: Pipeline, experts: dict[str, WanTransformer3DModel]) -> None:
    facts = begun(pipeline).model.facts
    assert_seen(pipeline, experts, taken(pipeline, facts=replace(facts, window=KeyValueWindow(sink=1, recent=1))))


@of_single_frames
def test_a_slot_that_keeps_what_should_give_way(
    pipeline: Pipeline, experts: dict[str, WanTransformer3DModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeyValueWindow, "slot", lambda self, chunk: min(chunk, self.chunks - 1))
    assert_seen(pipeline, experts, taken(pipeline))


@of_single_frames
def test_a_clean_pass_of_one_expert_alone(pipeline: Pipeline, experts: dict[str, WanTransformer3DModel]) -> None:
    only = begun(pipeline).model.experts[:1]
    assert_seen(pipeline, experts, taken(pipeline, experts=only), by="denoiser_low")


def assert_seen(
    pipeline: Pipeline, experts: dict[str, WanTransformer3DModel], take: Take, by: str | None = None
) -> None:
    """A fault is far beyond the bound; where one expert alone has it, the other one's passes are right."""
    cache = pipeline.bundle.cache
    assert cache is not None
    found = errors(take, experts, cache.window)
    wrong = {one.component for one, error in zip(take.noisy, found, strict=True) if error > 100 * TOLERANCE}
    assert wrong == ({by} if by else set(FOLDERS))
    assert all(error < TOLERANCE for one, error in zip(take.noisy, found, strict=True) if one.component not in wrong)
