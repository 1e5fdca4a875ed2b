"""What causal videos keep is counted before they begin: what never fits is refused, what does not fit yet waits."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

import wanc as package
from wanc.errors import RequestCancelled
from wanc.runtime import residency
from wanc.runtime.causal import CausalVideo, chunks_of
from wanc.runtime.crew import Quota
from wanc.runtime.errors import TargetError
from wanc.runtime.kvcache import KeyValueRing, KeyValueWindow
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.residency import Residency
from wanc.runtime.service import STAGES, Service
from wanc.runtime.session_bytes import SessionBytes
from wanc.runtime.timer import Timer
from wanc.runtime.value import as_array

from .conftest import RunPy
from .test_service import BLUE, RED, Held

ASKED: dict[str, Any] = {"seed": 7, "frames": 9}
TWO_AT_ONCE = {name: Quota(workers=2) for name in STAGES}
SECONDS = 60
"""After which a test that waits has failed."""


@pytest.fixture
def pipeline(causal_bundle: Path) -> Pipeline:
    return package.open(causal_bundle, threads=1)


def counted(pipeline: Pipeline) -> SessionBytes:
    return pipeline._causal.session_bytes(pipeline.bundle.shape(None, None))


def kept(video: CausalVideo) -> dict[tuple[str, str], int]:
    """What a video really has: the arrays of its rings, and what was computed of its texts."""
    found: dict[tuple[str, str], int] = {}
    for (component, branch), ring in video._rings.items():
        of_text = video.parts(component)._kept["request"]
        (results,) = [results for (given, *_), results in of_text.items() if given == branch]
        arrays = [*ring.inputs().values(), *map(as_array, results.values())]
        found[component, branch] = sum(array.nbytes for array in arrays)
    return found


def begun(pipeline: Pipeline) -> CausalVideo:
    request = Request(RED, **ASKED)
    video = pipeline.video(request, pipeline.encode(request, Timer()))
    for _ in chunks_of(video, 3):
        pass
    return video


@pytest.mark.parametrize("bundle", ["causal_bundle", pytest.param("pairwise_bundle", marks=pytest.mark.slow)])
def test_what_a_video_keeps_is_counted_to_the_byte(request: pytest.FixtureRequest, bundle: str) -> None:
    pipeline = package.open(request.getfixturevalue(bundle), threads=1)
    found = kept(begun(pipeline))
    assert found == counted(pipeline) and len(found) == 2 * 2, "of two experts, with two branches each"


def test_one_slot_too_few_is_seen(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault."""
    found = kept(begun(pipeline))
    monkeypatch.setattr(KeyValueWindow, "chunks", property(lambda self: self.sink + self.recent - 1))
    assert all(found[key] > size for key, size in counted(pipeline).items())


# What never fits


def with_free(monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, missing: int) -> int:
    """A machine that has so many bytes less than a video keeps; gives what it has."""
    free = sum(counted(pipeline).values()) - missing
    monkeypatch.setattr(residency, "available_bytes", lambda: free)
    return free


def test_it_is_refused_before_anything_is_computed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    free, request = with_free(monkeypatch, pipeline, missing=1), Request(RED, **ASKED)
    with Service(pipeline) as service:
        for ask in (
            lambda: pipeline.generate(RED, **ASKED),
            lambda: service.submit(RED, **ASKED),
            lambda: service.write("out.mp4", RED, **ASKED),
            lambda: pipeline.frames(request, Timer()).__enter__(),
        ):
            with pytest.raises(TargetError) as caught:
                ask()
            assert caught.value.message == (
                f"a video of 64x64 keeps {free + 1:,} bytes of finished chunks and of its prompt, "
                f"and there are {free:,}: 1 are missing"
            )
    assert pipeline.executor.counters() == {}


def test_what_fits_is_said(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, pipeline, missing=1)
    with pytest.raises(TargetError) as caught:
        pipeline.check(Request(RED, **ASKED))
    hint = caught.value.hint
    assert hint is not None and hint.startswith("build it with runtime.kv_cache.window: 1, with which it keeps ")
    monkeypatch.setattr(residency, "available_bytes", lambda: int(hint.rpartition(" ")[2].replace(",", "")))
    with pytest.raises(TargetError) as caught:
        pipeline.check(Request(RED, **ASKED))
    assert caught.value.hint == hint
    monkeypatch.setattr(residency, "available_bytes", lambda: 0)
    with pytest.raises(TargetError, match=r"0: .* are missing") as caught:
        pipeline.check(Request(RED, **ASKED))
    assert caught.value.hint == "build it for smaller videos, or with another runtime.kv_cache.precision"


def test_another_shape_that_fits_is_named(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    (large,) = pipeline.bundle.shapes
    small = replace(large, name="32p", height=32, width=32)
    two = replace(pipeline._causal, bundle=replace(pipeline.bundle, shapes=(small, large)))
    size = sum(two.session_bytes(small).values())
    monkeypatch.setattr(residency, "available_bytes", lambda: size)
    with pytest.raises(TargetError) as caught:
        two.check_room(large)
    assert caught.value.hint == f"ask for the shape 32p, which keeps {size:,}"


def test_a_machine_that_does_not_say_refuses_nothing(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "available_bytes", lambda: None)
    pipeline.check(Request(RED, **ASKED))


def test_the_command_line_refuses_it_and_leaves_nothing(
    pipeline: Pipeline, causal_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_py: RunPy
) -> None:
    with_free(monkeypatch, pipeline, missing=1)
    (tmp_path / "prompts.txt").write_text(f"{RED}\n{BLUE}\n")
    out = tmp_path / "out"
    out.mkdir()
    for asked in (
        ("--prompt", RED, "--keep-partial", "-o", out / "a.mp4"),
        ("--prompts", tmp_path / "prompts.txt", "-o", out),
    ):
        done = run_py(causal_bundle, *asked)
        assert done.code == 69 and "1 are missing" in done.err and "hint: build it with" in done.err
    assert list(out.iterdir()) == []


# What fits when another one ends


class LiveRings:
    """The most bytes that rings of all videos have had at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most, self._live, made = 0, weakref.WeakSet[KeyValueRing](), KeyValueRing.__init__

        def noted(ring: KeyValueRing, *arguments: Any) -> None:
            made(ring, *arguments)
            self._live.add(ring)
            self.most = max(self.most, sum(other.bytes for other in list(self._live)))

        monkeypatch.setattr(KeyValueRing, "__init__", noted)


def with_room_for(monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, videos: int) -> int:
    """Gives what the rings of one video take."""
    size = sum(counted(pipeline).values())
    monkeypatch.setattr(Residency, "room", property(lambda _: videos * size))
    return sum(ring.bytes for ring in begun(pipeline)._rings.values())


@pytest.fixture
def alone(pipeline: Pipeline) -> Mapping[str, np.ndarray]:
    return {prompt: pipeline.generate(prompt, **ASKED).latents for prompt in (RED, BLUE)}


@pytest.mark.parametrize("videos", [1, 2])
def test_one_that_has_no_room_yet_waits(
    pipeline: Pipeline, alone: Mapping[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, videos: int
) -> None:
    """With room for two, both have rings at once; with room for one, never."""
    rings = with_room_for(monkeypatch, pipeline, videos)
    live, held = LiveRings(monkeypatch), Held(monkeypatch, "step")
    with Service(pipeline, quotas=TWO_AT_ONCE) as service:
        first = service.submit(RED, **ASKED)
        assert held.entered.wait(SECONDS)
        second = service.submit(BLUE, **ASKED)
        if videos == 1:
            with pytest.raises(TimeoutError):
                second.result(0.3)
        held.go_on.set()
        for ticket, prompt in ((first, RED), (second, BLUE)):
            np.testing.assert_array_equal(ticket.result(SECONDS).latents, alone[prompt])
    assert live.most <= videos * rings
    assert pipeline.executor.residency._reserved == 0


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_who_is_called_off_gives_its_room_back(
    pipeline: Pipeline, alone: Mapping[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One that works, and one that waits; the third has the room then."""
    with_room_for(monkeypatch, pipeline, 1)
    held, make = Held(monkeypatch, "step"), CausalVideo.make

    def failing(video: CausalVideo, *arguments: Any, **options: Any) -> Any:
        latents = make(video, *arguments, **options)
        if how == "failed" and not has_failed.is_set():
            has_failed.set()
            raise TargetError("it has failed")
        return latents

    has_failed = Event()
    monkeypatch.setattr(CausalVideo, "make", failing)
    with Service(pipeline, quotas=TWO_AT_ONCE) as service:
        first, waiting, third = (service.submit(prompt, **ASKED) for prompt in submitted(held, (RED, RED, BLUE)))
        assert waiting.cancel()
        if how == "cancelled":
            assert first.cancel()
        held.go_on.set()
        np.testing.assert_array_equal(third.result(SECONDS).latents, alone[BLUE])
        with pytest.raises(RequestCancelled if how == "cancelled" else TargetError):
            first.result(SECONDS)
    assert pipeline.executor.residency._reserved == 0


def submitted(held: Held, prompts: tuple[str, ...]) -> Iterator[str]:
    """In their order: the next one comes when the first is at work."""
    for prompt in prompts:
        yield prompt
        assert held.entered.wait(SECONDS)


def test_a_short_video_waits_for_nobody_when_it_is_decoded(
    pipeline: Pipeline, alone: Mapping[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its latents are all made when its decoder begins, and another one waits for the room: one decoder has both."""
    with_room_for(monkeypatch, pipeline, 1)
    with Service(pipeline, quotas={"denoise": Quota(workers=2)}) as service:
        tickets = [service.submit(prompt, **ASKED) for prompt in (RED, BLUE) * 3]
        for ticket, prompt in zip(tickets, (RED, BLUE) * 3, strict=True):
            np.testing.assert_array_equal(ticket.result(SECONDS).latents, alone[prompt])
