"""Blocks of a denoiser executed within budgets smaller than they are, from segments on disk; and what they compute."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from scripts.true_scale.compiled import CompiledBlocks, segments_of
from scripts.true_scale.disk import cached_bytes, dd_seconds, put_in, put_out
from scripts.true_scale.drawn import DrawnCodes, filled
from scripts.true_scale.programs import TrueScale
from scripts.true_scale.within import values_bytes
from wanc.artifacts.private import private_directory
from wanc.compiler.program.program import FILE, Program, Segment
from wanc.compiler.stages.worker import call_in_worker
from wanc.runtime.denoise import GRAPH as STEP
from wanc.runtime.denoise import TIMESTEP, Expert
from wanc.runtime.executor import Executor
from wanc.runtime.expected import steps
from wanc.runtime.memory import peak_rss_bytes, rss_bytes
from wanc.runtime.model import HIGH
from wanc.runtime.value import as_array

Array = np.ndarray[Any, Any]
Figures = dict[str, Any]
Cache = Literal["cold", "warm"]
EXPERT = Expert(HIGH, guidance=1.0)
AT = 900.0


class Video(NamedTuple):
    """Pixels and frames."""

    height: int
    width: int
    frames: int


VIDEO = Video(256, 256, 13)
"""1,024 tokens of A14B: latents of 4 x 32 x 32."""


@contextmanager
def ten_blocks(store: Path, work: Path) -> Generator[BuiltBlocks]:
    """Those of A14B, compiled below `work`, where their codes stay beside them for a while."""
    segments = segments_of(10)
    with (
        filled(TrueScale(len(segments), store), HIGH, segments, "int8", work) as (_, drawn),
        private_directory(work, prefix="blocks-") as folder,
    ):
        assert drawn is not None
        yield BuiltBlocks.of(drawn, segments, VIDEO, folder / "bundle")


@dataclass(frozen=True)
class BuiltBlocks:
    """What was built, and measurements of a step of a video; each is made in a process of its own."""

    drawn: DrawnCodes
    compiled: CompiledBlocks
    video: Video

    @classmethod
    def of(cls, drawn: DrawnCodes, segments: Sequence[Segment], video: Video, folder: Path) -> BuiltBlocks:
        """Draw the codes of all segments, and compile these into `folder`."""
        for segment in segments:
            drawn.draw(segment.index)
        return cls(drawn, CompiledBlocks.build(drawn, segments, [AT], folder), video)

    @property
    def parameters(self) -> int:
        """Numbers in the blocks' Linears."""
        return sum(prod(entry.shape) for drawn in self.drawn.by_segment for entry in drawn)

    @property
    def values(self) -> int:
        """Bytes beside engines, as the planner has them for a model of which it has a survey."""
        return values_bytes(self.drawn.inputs, *self.video)

    @property
    def given(self) -> dict[str, Array]:
        """Noise for a step, and its timestep."""
        model = Program.read(self.drawn.inputs["program"][FILE]).model
        assert model is not None
        generator = np.random.Generator(np.random.Philox(0))
        taken = {entry.name: entry.shape for graph in self.compiled.graphs.values() for entry in graph.inputs}
        latents = model.latent_shape(**self.video._asdict())
        return {
            "latents": generator.standard_normal(latents, dtype=np.float32),
            "text": generator.standard_normal(tuple(map(int, taken["text"])), dtype=np.float32),
            TIMESTEP: np.array([AT], np.float32),
        }

    def passes(self, budget: int | None, values: int, cache: Cache, count: int) -> Figures:
        """Make `count` videos of one step within a budget, of which `values` are reserved."""
        return call_in_worker("blocks", _passes, self.compiled, self.given, budget, values, cache, count)

    def read_by_dd(self, cache: Cache) -> float:
        """Seconds for all that the engines read."""
        extents = self.compiled.extents()
        _prepare(extents, cache)
        return dd_seconds(extents)

    def errors(self, budget: int, values: int) -> list[float]:
        """How far each segment, executed within a budget, is from diffusers' own block on the same codes."""
        from scripts.true_scale.eager import errors

        streams = call_in_worker("blocks", _streams, self.compiled, self.given, budget, values)
        return call_in_worker("eager", errors, self.drawn, self.given, streams)


def _prepare(paths: Iterable[Path], cache: Cache) -> None:
    (put_out if cache == "cold" else put_in)(paths)


def _passes(
    compiled: CompiledBlocks, given: Mapping[str, Array], budget: int | None, values: int, cache: Cache, count: int
) -> Figures:
    """The first one finds nothing open. Of all, the velocities have to be the same."""
    executor, paths, started = compiled.executor(budget), list(compiled.extents()), rss_bytes()
    passes: list[Figures] = []
    velocities: set[str] = set()
    for _ in range(count):
        _prepare(paths, cache)
        cached, loaded = _cached(paths), _loaded(executor)
        begun, busy = time.perf_counter(), time.process_time()
        velocity = _velocity(compiled, executor, given, values)
        took = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy}
        read = {"loaded_bytes": _loaded(executor) - loaded, "read_bytes": _cached(paths) - cached}
        passes.append({**{name: round(seconds, 3) for name, seconds in took.items()}, **read})
        assert np.isfinite(velocity).all()
        velocities.add(hashlib.sha256(velocity.tobytes()).hexdigest())
    (same,) = velocities
    counters = executor.residency.counters()
    counted = {name: counters[name] for name in ("loads", "prefetched", "evictions", "peak_bytes")}
    memory = {"started_rss_bytes": started, "peak_rss_bytes": peak_rss_bytes()}
    return {"budget": budget, "passes": passes, **counted, **memory, "velocity": same}


def _velocity(compiled: CompiledBlocks, executor: Executor, given: Mapping[str, Array], values: int) -> Array:
    """A video of one step, as `Pipeline.sample` makes it."""
    uses = steps([AT], lambda _: EXPERT, lambda _: compiled.parts(executor))
    with executor.reserve(values, (HIGH,)), executor.expect(uses):
        return EXPERT.velocity(compiled.parts(executor), given["latents"], AT, given["text"], given["text"])


def _streams(compiled: CompiledBlocks, given: Mapping[str, Array], budget: int, values: int) -> list[Array]:
    """What each segment hands on; the last one's is the velocity."""
    executor = compiled.executor(budget)
    expected = _velocity(compiled, executor, given, values)
    streams: list[Array] = []
    with executor.reserve(values, (HIGH,)):
        known = compiled.parts(executor).inputs(STEP, given, "conditional")
        for file in compiled.of(STEP).files:
            with executor.residency.use(file) as session:
                outputs = session.run({name: known[name] for name in file.inputs})
            known |= outputs
            (stream,) = map(as_array, outputs.values())
            streams.append(stream)
    assert np.array_equal(streams[-1], expected), "segment by segment the velocity is another one"
    return streams


def _cached(paths: Iterable[Path]) -> int:
    return sum(map(cached_bytes, paths))


def _loaded(executor: Executor) -> int:
    return executor.residency.counters()["loaded_bytes"]
