"""Causal videos side by side are each what it is alone, to the bit; one may change its prompt on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wanc as package
from wanc.errors import RequestCancelled, UserError
from wanc.runtime.causal import CausalVideo, chunks_of
from wanc.runtime.crew import Quota
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.prompts import MOST_PROMPT_BYTES, read_changes
from wanc.runtime.request import Request, Result
from wanc.runtime.service import STAGES, Service
from wanc.runtime.timer import Timer

from .conftest import RunPy
from .test_service import BLUE, RED, Held

FRAMES, CHUNKS = 25, 7
"""Chunks are given up from the fourth on."""
GREEN = "A green triangle moves down."
ASKED: dict[str, dict[str, Any]] = {
    RED: {"seed": 7, "frames": FRAMES, "negative_prompt": GREEN},
    BLUE: {"seed": 8, "frames": FRAMES},
}
CHANGED_AT = 4


@pytest.fixture(scope="module")
def pipeline(causal_bundle: Path) -> Pipeline:
    return package.open(causal_bundle, threads=1)


@pytest.fixture(scope="module")
def alone(pipeline: Pipeline) -> Mapping[str, Result]:
    return {prompt: pipeline.generate(prompt, **options) for prompt, options in ASKED.items()}


def begun(pipeline: Pipeline, prompt: str) -> CausalVideo:
    request = Request(prompt, **ASKED[prompt])
    return pipeline.video(request, pipeline.encode(request, Timer()))


def in_turn(*videos: CausalVideo) -> list[np.ndarray]:
    """The latents of videos that are made chunk by chunk, one after the other."""
    turns = zip(*(chunks_of(video, CHUNKS) for video in videos), strict=True)
    return [np.concatenate(chunks, axis=2) for chunks in zip(*turns, strict=True)]


def assert_same(found: Result, wanted: Result) -> None:
    np.testing.assert_array_equal(found.latents, wanted.latents)
    np.testing.assert_array_equal(found.frames, wanted.frames)


def test_two_in_turn_are_each_alone(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    for found, prompt in zip(in_turn(begun(pipeline, RED), begun(pipeline, BLUE)), (RED, BLUE), strict=True):
        np.testing.assert_array_equal(found, alone[prompt].latents)


def test_rings_that_two_share_are_seen(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    """A planted fault."""
    red = begun(pipeline, RED)
    shared = replace(begun(pipeline, BLUE), _rings=red._rings)
    found = in_turn(red, shared)
    assert not np.allclose(found[0][:, :, 2:], alone[RED].latents[:, :, 2:], atol=0.01)


@pytest.mark.parametrize("stage", ["denoise", "decode"])
def test_two_behind_one_that_was_cancelled(
    pipeline: Pipeline, alone: Mapping[str, Result], monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Through a service, at work on both at once."""
    held = Held(monkeypatch, {"denoise": "step", "decode": "steady"}[stage])
    with Service(pipeline, quotas={name: Quota(workers=2) for name in STAGES}) as service:
        ticket = service.submit(GREEN, frames=FRAMES)
        held.wait()
        assert ticket.cancel()
        tickets = {prompt: service.submit(prompt, **options) for prompt, options in ASKED.items()}
        held.go_on.set()
        for prompt, other in tickets.items():
            assert_same(other.result(60), alone[prompt])
    with pytest.raises(RequestCancelled):
        ticket.result(0)


def test_where_engines_take_turns(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    """Then the latents of a whole video wait for the decoder."""
    with Service(pipeline, side_by_side=False) as service:
        tickets = {prompt: service.submit(prompt, **options) for prompt, options in ASKED.items()}
    for prompt, ticket in tickets.items():
        assert_same(ticket.result(60), alone[prompt])


def test_in_files(
    pipeline: Pipeline, causal_bundle: Path, alone: Mapping[str, Result], run_py: RunPy, tmp_path: Path
) -> None:
    """Of a service, and of a list of prompts."""
    with Service(pipeline) as service:
        tickets = [service.write(tmp_path / f"{n}.mp4", prompt, **ASKED[prompt]) for n, prompt in enumerate(ASKED)]
    for ticket, prompt in zip(tickets, ASKED, strict=True):
        alone[prompt].save(tmp_path / "alone.mp4")
        assert ticket.result(0).video.read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    (tmp_path / "prompts.txt").write_text(f"{GREEN}\n{BLUE}\n")
    options = ["--seed", 8, "--frames", FRAMES, "--threads", 1, "-o", tmp_path / "videos"]
    assert run_py(causal_bundle, "--prompts", tmp_path / "prompts.txt", *options).code == 0
    assert (tmp_path / "videos" / "0002.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


def test_a_past_that_finds_no_room(pipeline: Pipeline) -> None:
    def full(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        if len(shape) == 4:  # what a ring has is [1, past, heads, channels]
            raise MemoryError
        return np.empty(shape, dtype)

    video = begun(pipeline, RED)
    video.model = replace(video.model, empty=full)
    with pytest.raises(UserError, match="the keys and values of finished chunks find no room in memory") as caught:
        video.make(1)
    assert caught.value.hint == "take a smaller shape, or build it with a smaller window, or another cache precision"


def test_as_frames_while_later_chunks_are_made(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    with pipeline.frames(Request(RED, **ASKED[RED]), Timer()) as frames:
        np.testing.assert_array_equal(np.concatenate(list(frames)), alone[RED].frames)


def test_frames_that_nobody_takes_any_more(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    with pipeline.frames(Request(BLUE, **ASKED[BLUE]), Timer()) as frames:
        next(frames)
    assert_same(pipeline.generate(RED, **ASKED[RED]), alone[RED])


# Another prompt on the way


def changed(pipeline: Pipeline, memory: str, at: int = CHANGED_AT) -> Result:
    return pipeline.generate(RED, **ASKED[RED], changes={at: BLUE}, memory=memory)


def frames_of(chunks: int) -> int:
    """The first latent frame gives one frame, each other one four."""
    return 4 * (chunks - 1) + 1


def test_what_is_made_before_a_change_is_as_without_it(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    kept, renewed = (changed(pipeline, memory) for memory in ("keep", "renew"))
    for result in (kept, renewed):
        np.testing.assert_array_equal(result.latents[:, :, :CHANGED_AT], alone[RED].latents[:, :, :CHANGED_AT])
        made = frames_of(CHANGED_AT)
        np.testing.assert_array_equal(result.frames[:made], alone[RED].frames[:made])
        assert result.tags[f"prompt_from_chunk_{CHANGED_AT}"] == BLUE
    for one, other in ((kept, alone[RED]), (renewed, alone[RED]), (kept, renewed)):
        assert all(
            (one.latents[:, :, chunk] != other.latents[:, :, chunk]).any() for chunk in range(CHANGED_AT, CHUNKS)
        )


def test_the_same_prompt_again_changes_nothing(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    """With the memory kept, to the bit; renewed, first chunks see no others than they saw, so that all is as it was."""
    for memory, at in (("keep", CHANGED_AT), ("renew", 2)):
        result = pipeline.generate(RED, **ASKED[RED], changes={at: RED}, memory=memory)
        np.testing.assert_array_equal(result.latents, alone[RED].latents)


def test_several_changes(pipeline: Pipeline) -> None:
    twice = pipeline.generate(RED, **ASKED[RED], changes={2: BLUE, CHANGED_AT: GREEN})
    once = pipeline.generate(RED, **ASKED[RED], changes={2: BLUE})
    np.testing.assert_array_equal(twice.latents[:, :, :CHANGED_AT], once.latents[:, :, :CHANGED_AT])
    assert (twice.latents[:, :, CHANGED_AT] != once.latents[:, :, CHANGED_AT]).any()


@pytest.mark.parametrize("memory", ["keep", "renew"])
def test_a_change_is_no_matter_of_another_video(pipeline: Pipeline, alone: Mapping[str, Result], memory: str) -> None:
    wanted = changed(pipeline, memory)
    with Service(pipeline, quotas={name: Quota(workers=2) for name in STAGES}) as service:
        other = service.submit(BLUE, **ASKED[BLUE])
        ticket = service.submit(RED, **ASKED[RED], changes={CHANGED_AT: BLUE}, memory=memory)
    assert_same(other.result(60), alone[BLUE])
    assert_same(ticket.result(60), wanted)


def test_changes_from_a_file(pipeline: Pipeline, causal_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    (tmp_path / "changes.txt").write_text(f"# on the way\n\n{CHANGED_AT} {BLUE}\n")
    options = ["--prompt", RED, "--negative-prompt", GREEN, "--seed", 7, "--frames", FRAMES, "--memory", "renew"]
    options += ["--changes", tmp_path / "changes.txt", "--threads", 1, "-o", tmp_path / "out.npz"]
    assert run_py(causal_bundle, *options).code == 0
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["frames"], changed(pipeline, "renew").frames)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": {0: BLUE}}, "a change is at 0, not the number of a chunk from 1 on"),
        ({"changes": {True: BLUE}}, "a change is at True, not the number of a chunk"),
        ({"changes": {"1": BLUE}}, "a change is at '1', not the number of a chunk"),
        ({"changes": {1: None}}, "the prompt from chunk 1 on is no text"),
        ({"changes": {1: "a" * (MOST_PROMPT_BYTES + 1)}}, "the prompt from chunk 1 on has 65537 bytes"),
        ({"changes": {CHUNKS: BLUE}}, "the prompt changes at chunk 7, and the video has 7, from 0 on"),
        ({"changes": {1: "a\0b"}}, "the prompt from chunk 1 on holds a null character"),
        ({"changes": {1: "\udcff"}}, "the prompt from chunk 1 on is not valid Unicode"),
        ({"changes": {1: BLUE}, "memory": "forget"}, "memory is 'forget', not keep or renew"),
    ],
)
def test_a_change_that_cannot_be_made(pipeline: Pipeline, options: dict[str, Any], message: str) -> None:
    """It is said before there is any work."""
    with pytest.raises(UserError) as caught:
        pipeline.check(Request(RED, frames=FRAMES, **options))
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (f"1 {BLUE}\nblue\n", "2:1", "the line has no number and prompt"),
        ("1\n", "1:1", "the line has no number and prompt"),
        (f"-1 {BLUE}\n", "1:1", "the line has no number and prompt"),
        (f"1000000000 {BLUE}\n", "1:1", "the line has no number and prompt"),
        (f"# first\n0 {BLUE}\n", "2:1", "0 does not rise above 0"),
        (f"2 {BLUE}\n\n2 {RED}\n", "3:1", "2 does not rise above 2"),
        (f"1 {'a' * (MOST_PROMPT_BYTES + 1)}\n", "1:1", "the line has 65537 bytes"),
        ("# nothing\n", "", "it holds no change"),
    ],
)
def test_a_file_of_changes_that_is_wrong(tmp_path: Path, text: str, place: str, message: str) -> None:
    path = tmp_path / "changes.txt"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_changes(path)
    assert caught.value.message.startswith(message) and caught.value.hint
    assert caught.value.where == (f"{path}:{place}" if place else str(path))


@pytest.mark.parametrize("verb", ["--prompt", "--prompts"])
def test_a_model_that_makes_a_video_at_once_changes_nothing(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, verb: str
) -> None:
    for name in ("changes.txt", "prompts.txt"):
        (tmp_path / name).write_text(f"1 {BLUE}\n")
    asked = {"--prompt": [RED, "-o", tmp_path / "out.mp4"], "--prompts": [tmp_path / "prompts.txt", "-o", tmp_path]}
    finished = run_py(tiny_bundle, verb, *asked[verb], "--changes", tmp_path / "changes.txt")
    assert (finished.code, finished.err) == (
        2,
        "error: the prompt cannot change: this bundle's model makes all frames of a video at once\n"
        "hint: leave changes out, or build a causal model\n",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changes.txt", "prompts.txt"]


def test_a_model_that_makes_a_video_at_once_has_no_chunks(tiny_bundle: Path) -> None:
    bidirectional = package.open(tiny_bundle, threads=1)
    with pytest.raises(UserError, match="this bundle's model makes a video at once"):
        begun(bidirectional, RED)


def test_noise_of_a_file_is_divided(pipeline: Pipeline, alone: Mapping[str, Result]) -> None:
    """What a seed gives chunk by chunk, given at once."""
    request = Request(RED, **ASKED[RED])
    noise_of = pipeline.video(request, pipeline.encode(request, Timer())).noise_of
    latents = np.concatenate(list(noises(noise_of)), axis=2)
    options = {name: value for name, value in ASKED[RED].items() if name != "seed"}
    assert_same(pipeline.generate(RED, **options, latents=latents), alone[RED])


def noises(noise_of: Any) -> Iterator[np.ndarray]:
    yield from (noise_of(chunk, 1) for chunk in range(CHUNKS))
