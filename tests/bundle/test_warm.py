"""A warm request takes no memory for arrays: what it needs, the one before has given back."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

import wanc as package
from tests.allocations import Allocation, allocations
from wanc.runtime import decode, denoise
from wanc.runtime.checkpoint import checked_by
from wanc.runtime.errors import RequestCancelled as Cancelled
from wanc.runtime.errors import TargetError
from wanc.runtime.made_video import VideoPlan
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.pool import PAGE, ArrayPool
from wanc.runtime.request import Request
from wanc.runtime.service import Service
from wanc.runtime.session import Session
from wanc.runtime.timer import Timer
from wanc.runtime.value import as_array

from .conftest import MakeVariant

# Large enough for latents to be several blocks of a solver.
OPTIONS: dict[str, Any] = {"shape": "96p-wide", "frames": 25, "steps": 3, "seed": 7}
SHORT: dict[str, Any] = {**OPTIONS, "frames": 9, "steps": 2}
PROMPT = "A red circle moves to the left."
LARGE = 2**15
"""Bytes of an array that would have to be a pool's: a solver's block, 4,096 numbers in float64, has no more."""

SETTINGS: Mapping[str, Sequence[str]] = {
    "onnxruntime": (),
    "openvino": ("engine.kind=openvino",),
    "blocks": ("partition.cut=blocks",),
}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name == "blocks")) for name in SETTINGS]
)
def pipeline(request: pytest.FixtureRequest, tiny_bundle: Path, variant: MakeVariant) -> Pipeline:
    settings = SETTINGS[request.param]
    root = variant(request.param, *settings).root if settings else tiny_bundle
    # On one thread there are no lanes: each allocation is seen.
    return package.open(root, threads=1)


def other_seed(seed: int) -> dict[str, Any]:
    return {**SHORT, "seed": seed}


def make(pipeline: Pipeline, video: Path, options: Mapping[str, Any] = OPTIONS) -> bytes:
    """A video in a file, with all that a request does in this thread."""
    plan = VideoPlan.of(pipeline, video, Request(PROMPT, **options))
    timer = Timer()
    with plan.create() as file:
        for chunk in pipeline.decode([pipeline.denoise(plan.request, timer)], timer):
            file.write(chunk)
    return video.read_bytes()


def large(found: Sequence[Allocation]) -> list[str]:
    return [f"{entry.bytes:,} bytes {entry.where}" for entry in found if entry.bytes > LARGE]


def test_a_warm_request_takes_nothing(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, run = pipeline.executor.pool, Session.run
    cold = make(pipeline, tmp_path / "cold.mp4")
    taken, out, foreign = pool.counts().taken, pool.counts().out, list[str]()

    def seen(session: Session, inputs: Any) -> Any:
        outputs = run(session, inputs)
        arrays = {name: as_array(value) for name, value in outputs.items()}
        foreign.extend(name for name, array in arrays.items() if array.nbytes >= PAGE and not is_of(pool, array))
        return outputs

    monkeypatch.setattr(Session, "run", seen)
    with allocations() as found:
        assert make(pipeline, tmp_path / "warm.mp4") == cold
    assert (large(found), foreign) == ([], [])
    assert found, "small arrays, which are numpy's own"
    counts = pool.counts()
    assert taken > 2**20 and (counts.taken, counts.out) == (taken, out)


def is_of(pool: ArrayPool, array: np.ndarray) -> bool:
    """Whether a pool made the array; one of an engine's library has an owner of another kind."""
    return type(array.base).__module__ == type(pool).__module__


def guided_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    right = denoise.Expert.velocity
    monkeypatch.setattr(denoise.Expert, "velocity", lambda *given: right(*given[:6]))


def pixels_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    right = decode.to_pixels
    monkeypatch.setattr(decode, "to_pixels", lambda frames, _: right(frames))


@pytest.mark.parametrize("plant", [guided_elsewhere, pixels_elsewhere])
def test_a_stage_that_allocates_is_seen(
    pipeline: Pipeline, tmp_path: Path, plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    make(pipeline, tmp_path / "cold.mp4")
    with allocations() as found:
        make(pipeline, tmp_path / "warm.mp4")
    assert large(found)


def test_an_engine_that_allocates_is_seen(tiny_bundle: Path) -> None:
    session = Session("onnxruntime", tiny_bundle / "engines/vae_decoder/first.s0.cpu.onnx", threads=1)
    outputs = session.run({"latent": np.zeros((1, 16, 1, 8, 8), np.float32)})
    assert not any(is_of(ArrayPool(), np.asarray(array)) for array in outputs.values())


def test_what_leaves_the_runtime_is_the_caller_s_own(pipeline: Pipeline) -> None:
    first = pipeline.generate(PROMPT, **SHORT)
    frames, latents = first.frames.copy(), first.latents.copy()
    other = pipeline.generate(PROMPT, **other_seed(8))
    assert (first.frames != other.frames).any()
    np.testing.assert_array_equal(first.frames, frames)
    np.testing.assert_array_equal(first.latents, latents)
    assert first.frames.base is None and first.latents.base is None


ENDS = [
    ("encode", TargetError),
    *((graph, error) for graph in ("step", "steady") for error in (TargetError, Cancelled)),
]


@pytest.mark.parametrize(("graph", "error"), ENDS)
def test_what_fails_or_is_cancelled_gives_all_back(
    pipeline: Pipeline, graph: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(pipeline, tmp_path / "warm.mp4", SHORT)
    counts, run, ended = pipeline.executor.pool.counts(), Session.run, Event()

    def end(session: Session, inputs: Any) -> Any:
        outputs = run(session, inputs)
        if f"/{graph}." in session.shown:
            ended.set()
            if error is TargetError:
                raise error("planted")
        return outputs

    def check() -> None:
        if ended.is_set():
            raise error("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", end)
        with pytest.raises(error), checked_by(check):
            pipeline.generate("Unknown so far." if graph == "encode" else PROMPT, **SHORT)
    gc.collect()
    assert pipeline.executor.pool.counts().out == counts.out
    make(pipeline, tmp_path / "next.mp4", SHORT)
    assert pipeline.executor.pool.counts().taken == counts.taken


def test_requests_at_once_share_one_pool(pipeline: Pipeline) -> None:
    """Each has buffers of its own, and all come back."""
    alone = {seed: pipeline.generate(PROMPT, **other_seed(seed)).frames for seed in range(3)}
    out = pipeline.executor.pool.counts().out
    with Service(pipeline) as service:
        tickets = {seed: service.submit(PROMPT, **other_seed(seed)) for seed in alone}
    for seed, ticket in tickets.items():
        np.testing.assert_array_equal(ticket.result().frames, alone[seed])
    gc.collect()
    counts = pipeline.executor.pool.counts()
    assert counts.out == out
    assert counts.held <= 2 * counts.most_out
