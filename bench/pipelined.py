"""A model on two processors as a pipeline, beside two workers that each have all of it; and what was predicted.

`python bench/pipelined.py [WORK]`; what is built lies below WORK, 10 GB, a folder of its own unless one is given. Every
device and every worker is one core, with one thread. Rounds alternate; the first warms up. Writes into bench/results,
and takes half an hour where nothing else runs; where something does, it tells nothing.

blocks   the 1.3B model's denoiser, all 30 blocks with codes that were drawn, 560 tokens: 4 requests of 4 steps, two
         branches each. Latents are compared with those of one worker, bit by bit.
videos   tiny-wan, from prompts to frames: the denoiser on one core and the decoder on the other, as it is planned
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.checkpoints.models import MODELS
from scripts.true_scale.compiled import CompiledBlocks
from scripts.true_scale.drawn import filled
from scripts.true_scale.programs import TrueScale
from wanc.bench.contest import machine
from wanc.bench.report import WHAT
from wanc.compiler.pipeline import build
from wanc.compiler.planner.simulate import Flow, FlowPhase, Hop, simulate
from wanc.compiler.program.program import Segment
from wanc.recipe.load import load
from wanc.runtime.cores import all_cores, keep_on
from wanc.runtime.denoise import Expert, denoise
from wanc.runtime.engine_file import CPU
from wanc.runtime.events import Recorder, Track, recording
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.memory import rss_bytes
from wanc.runtime.model import HIGH
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Result
from wanc.runtime.segments import Segments
from wanc.runtime.service import Service
from wanc.runtime.solvers.create import create_schedule, create_solver
from wanc.runtime.ticket import Ticket
from wanc.runtime.whole_file import require_writable, write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "pipelined.json"
BASE, BLOCKS, LATENTS = MODELS["wan2.1-t2v-1.3b"], 30, (1, 16, 5, 16, 28)
REQUESTS, STEPS, ROUNDS, SHIFT = 4, 4, 4, 5.0
EXPERT = Expert(HIGH, guidance=5.0)
DEVICES = ("cpu.0", "cpu.1")
GRAPHS = ("request", "step")
"""What is executed for a video: keys and values of a text once for each branch, then steps."""
SEGMENTS = [Segment(HIGH, 0, 0, BLOCKS // 2, DEVICES[0]), Segment(HIGH, 1, BLOCKS // 2, BLOCKS, DEVICES[1])]
PROMPTS = [f"A red circle moves {way}, {number}." for number in range(4) for way in ("left", "up")]
VIDEO_ROUNDS = 8
VARIANTS = {
    "on-two": ("partition.devices=[{kind: cpu, count: 2}]", "partition.objective=throughput"),
    "on-one": (),
}
Latents = NDArray[np.float32]
Figures = dict[str, Any]


class Denoisers:
    """The same files, as two devices have them in a pipeline, and as one device has all of them."""

    def __init__(self, compiled: CompiledBlocks) -> None:
        self._compiled = compiled
        self.pipeline = self._executor(lambda file_device: file_device)
        self.alone = self._executor(lambda _: CPU)
        generator = np.random.default_rng(0)
        text = next(entry for entry in compiled.graphs["request"].inputs if entry.name == "text")
        shape = tuple(map(int, text.shape))
        self._noise = [generator.standard_normal(LATENTS, np.float32) for _ in range(REQUESTS)]
        self._texts = [generator.standard_normal((2, *shape), np.float32) for _ in range(REQUESTS)]

    def _executor(self, place: Callable[[str], str]) -> Executor:
        engines = {}
        for graph in self._compiled.graphs:
            segments = self._compiled.of(graph)
            files = tuple(replace(file, device=place(file.device)) for file in segments.files)
            engines[HIGH, graph] = Segments(files, segments.inputs, segments.outputs)
        return Executor(PlainFolder(self._compiled.folder), engines, threads=1)

    def latents(self, executor: Executor, request: int) -> Latents:
        """Those of a request, from noise, as a bundle's runtime makes them."""
        parts = self._compiled.parts(executor)
        text, negative = self._texts[request]
        solver = create_solver("euler", steps=STEPS, shift=SHIFT)
        return denoise(lambda _: parts, solver, lambda _: EXPERT, self._noise[request], text, negative)

    def pipelined(self, requests: Sequence[int]) -> list[Latents]:
        """All requests on their way at once, through both devices."""
        with ThreadPoolExecutor(len(requests)) as callers:
            return list(callers.map(lambda request: self.latents(self.pipeline, request), requests))

    def independent(self, requests: Sequence[int]) -> list[Latents]:
        """Two workers, each on a core of its own, with every second request from beginning to end."""

        def work(core: int, own: Sequence[int]) -> list[Latents]:
            keep_on([core])
            return [self.latents(self.alone, request) for request in own]

        cores = sorted(all_cores())[:2]
        with ThreadPoolExecutor(2) as workers:
            found = list(workers.map(work, cores, (requests[::2], requests[1::2])))
        return [latents for pair in zip(*found, strict=True) for latents in pair]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def busy(recorder: Recorder) -> dict[str, float]:
    """Seconds in which each device executed something."""
    found: dict[str, float] = dict.fromkeys(DEVICES, 0.0)
    for span in recorder.spans:
        if span.phase == "execute" and isinstance(span.track, Track) and span.track.name in found:
            found[span.track.name] += span.end - span.start
    return found


def hops(denoisers: Denoisers) -> dict[str, list[float]]:
    """Seconds of one execution on each device, by the graph, of requests of which there is one at a time."""
    with recording() as recorder:
        denoisers.latents(denoisers.pipeline, 0)
    found: dict[str, dict[str, list[float]]] = {graph: {device: [] for device in DEVICES} for graph in GRAPHS}
    for span in recorder.spans:
        if span.phase == "execute" and span.graph in GRAPHS and isinstance(span.track, Track):
            found[span.graph][span.track.name].append(span.end - span.start)
    return {graph: [median(seconds) for seconds in by_device.values()] for graph, by_device in found.items()}


def predicted(seconds: Mapping[str, Sequence[float]]) -> Figures:
    """What the planner's simulator makes of such executions: seconds of all requests, and the share of waiting."""
    request, step = (tuple(Hop((index,), each) for index, each in enumerate(seconds[graph])) for graph in GRAPHS)
    phases = FlowPhase("encode", 1, (request, request)), FlowPhase("denoise_high", STEPS, (step, step))
    run = simulate(Flow(phases), REQUESTS, REQUESTS)
    total = max(run.finished)
    worked = sum(run.busy(device, 0, total) for device in range(len(DEVICES)))
    return {"seconds": total, "waiting": 1 - worked / (len(DEVICES) * total)}


def measured_blocks(work: Path) -> Figures:
    """Rounds of both ways, and what the simulator says of the first."""
    with built(work) as compiled:
        denoisers, requests = Denoisers(compiled), range(REQUESTS)
        alone = [denoisers.latents(denoisers.alone, request) for request in requests]
        before = rss_bytes()
        denoisers.pipelined(requests[:1])
        grown = rss_bytes() - before
        each = hops(denoisers)
        rounds: list[Figures] = []
        for number in range(ROUNDS):
            with recording() as recorder:
                pipeline, found = timed(lambda: denoisers.pipelined(requests))
            independent, others = timed(lambda: denoisers.independent(requests))
            pairs = zip([*alone, *alone], [*found, *others], strict=True)
            entry = {
                "pipelined": pipeline,
                "independent": independent,
                "throughput": independent / pipeline,
                "waiting": 1 - sum(busy(recorder).values()) / (len(DEVICES) * pipeline),
                "same": all(np.array_equal(one, other) for one, other in pairs),
            }
            print({name: round(value, 3) for name, value in entry.items()}, file=sys.stderr, flush=True)
            if number:
                rounds.append(entry)
    return {
        "model": "wan2.1-t2v-1.3b, INT8, codes drawn",
        "blocks": BLOCKS,
        "tokens": LATENTS[2] * (LATENTS[3] // 2) * (LATENTS[4] // 2),
        "requests": REQUESTS,
        "steps": STEPS,
        "engine_bytes": compiled.bytes,
        "pipeline_rss_bytes": grown,
        "seconds_of_an_execution": each,
        "predicted": predicted(each),
        "rounds": rounds,
        "throughput": median(entry["throughput"] for entry in rounds),
    }


@contextmanager
def built(work: Path) -> Generator[CompiledBlocks]:
    """The denoiser's engine files, in two segments."""
    with (
        filled(TrueScale(BLOCKS, work / "store", BASE), HIGH, SEGMENTS, "int8", work) as (_, drawn),
        TemporaryDirectory(dir=work) as folder,
    ):
        assert drawn is not None
        for segment in SEGMENTS:
            drawn.draw(segment.index)
        timesteps = create_schedule("euler", steps=STEPS, shift=SHIFT).timesteps.tolist()
        yield CompiledBlocks.build(drawn, SEGMENTS, timesteps, Path(folder))


def measured_videos(work: Path) -> Figures:
    """tiny-wan from prompts to frames: a bundle on two devices, and two pipelines on a core each, with equal frames."""
    placed, whole = (_bundle(work, name, settings) for name, settings in VARIANTS.items())
    cores, options = sorted(all_cores())[:2], {"shape": "96p-wide", "frames": 17}
    alone = [Pipeline.open(whole, threads=1) for _ in cores]

    def work_through(number: int) -> list[Any]:
        keep_on([cores[number]])
        return [alone[number].generate(prompt, seed=7, **options).frames for prompt in PROMPTS[number::2]]

    def independent() -> list[Any]:
        with ThreadPoolExecutor(2) as workers:
            found = list(workers.map(work_through, range(2)))
        return [frames for pair in zip(*found, strict=True) for frames in pair]

    rounds: list[Figures] = []
    with Service(Pipeline.open(placed, threads=1)) as service:
        for number in range(VIDEO_ROUNDS):
            pipelined, found = timed(
                lambda: [ticket.result().frames for ticket in [_asked(service, prompt, options) for prompt in PROMPTS]]
            )
            each, others = timed(independent)
            pairs = zip(found, others, strict=True)
            same = all(np.array_equal(one, other) for one, other in pairs)
            entry = {"pipelined": pipelined, "independent": each, "throughput": each / pipelined, "same": same}
            print({name: round(value, 3) for name, value in entry.items()}, file=sys.stderr, flush=True)
            if number:
                rounds.append(entry)
    throughput = median(entry["throughput"] for entry in rounds)
    return {"bundle": "tiny-wan", **options, "videos": len(PROMPTS), "rounds": rounds, "throughput": throughput}


def _asked(service: Service, prompt: str, options: Mapping[str, Any]) -> Ticket[Result]:
    return service.submit(prompt, seed=7, **options)


def _bundle(work: Path, name: str, settings: Sequence[str]) -> Path:
    (loaded,) = load(ROOT / "recipes" / "tiny-wan.yaml", [f"name={name}", *settings])
    return build(loaded, work, progress=False).bundle


def main(work: Path) -> None:
    """Measure, and write what was measured."""
    require_writable(RESULT, WHAT)
    report: Mapping[str, Any] = {
        "machine": machine(("onnxruntime", "numpy")),
        "videos": measured_videos(work),
        "blocks": measured_blocks(work),
    }
    write_whole(RESULT, f"{json.dumps(report, indent=1)}\n".encode(), WHAT)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as name:
            main(Path(name))
