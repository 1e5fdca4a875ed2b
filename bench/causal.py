"""What the cache of a causal model costs and saves: time and memory that do not grow, formats, and streaming.

`python bench/causal.py [BUNDLE]`; the bundle is tiny-wan-causal's, built if need be, unless one is given. Writes into
bench/results, and takes ten minutes where nothing else runs; where something does, it tells nothing.

kept      what keeping keys and values in fewer bits changes of velocities, all else being equal
flat      a chunk far into a video beside one near its beginning, and beside passes over all that was made before
formats   four blocks of the 1.3B width, 768 new tokens, 3,072 kept ones: 8 and 4 bits beside 16
streaming the last frame where decoding and writing go on beside the denoiser, each on a core, and where they wait
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanc.bench.case import TEXT_LENGTH, Case
from wanc.bench.contest import contest, machine
from wanc.bench.report import WHAT
from wanc.runtime.causal import CausalVideo
from wanc.runtime.cores import all_cores
from wanc.runtime.crew import Quota
from wanc.runtime.denoise import GRAPH, given_to_branches
from wanc.runtime.kvcache import BIAS, KeyValueRing, KeyValueWindow, decoded, encoded
from wanc.runtime.memory import rss_bytes
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.service import DENOISE, STAGES, Service
from wanc.runtime.timer import Timer
from wanc.runtime.whole_file import require_writable, write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "causal.json"
PROMPT = "A red circle moves to the left."
Latents = NDArray[np.float32]

EARLY, LATE, AROUND, CONTEXT = 10, 200, 5, 40
"""Chunks that are compared, how many on either side of them are, and behind how many everything is computed again."""
CASE = Case(width=1536, blocks=4, frames=3, height=32, columns=32)
WINDOW = KeyValueWindow(sink=0, recent=4)
PASSES = 5
"""Of a chunk: four steps, and one over what is clean."""
FORMATS = ("fp16", "int8", "int4")
"""What is kept in 16 bits is the peer: bfloat16 has as many, and numpy has it not."""
ROUNDS, STREAM_ROUNDS, STREAM_FRAMES, KEPT_FRAMES = 9, 7, 129, 41
BIG = {"tokens": 3600, "frames": 121, "chunk": 3, "window": 6, "steps": 4}
"""720p, 30 s."""


def attention_work(tokens: int, frames: int, chunk: int, window: int, steps: int) -> dict[str, float]:
    """Products of queries and keys of one head and block: with the cache, the clean pass counted, and where every pass
    goes over all that there is of the video so far.
    """
    chunks = -(-frames // chunk)
    of_a_chunk = chunk * tokens
    cached = sum((steps + 1) * of_a_chunk * (min(index, window) + 1) * of_a_chunk for index in range(chunks))
    again = sum(steps * ((index + 1) * of_a_chunk) ** 2 for index in range(chunks))
    return {"cached": cached, "again": again, "saved": 1 - cached / again}


def kept(pipeline: Pipeline) -> dict[str, float]:
    """The ratio of signal to error, in dB, of the velocities of a video's chunks, by the format of the past.

    The chunks are those that are made with float32; a format's ring gets the same keys and values, and is decoded.
    """
    request = Request(PROMPT, frames=KEPT_FRAMES)
    texts, lengths = pipeline.encode(request, Timer()), [1] * pipeline.latent_frames(request)
    video = pipeline.video(request, texts)
    expert = video.model.experts[0]
    rings: dict[str, dict[str, KeyValueRing]] = {name: {} for name in FORMATS}
    errors = dict.fromkeys(FORMATS, 0.0)
    signal = 0.0
    for chunk, frames in enumerate(lengths):
        noisy = video.noise_of(chunk, frames)
        if chunk:
            exact = _velocities(video, noisy, {})
            signal += float(np.square(exact).sum())
            for name, ring in rings.items():
                errors[name] += float(np.square(_velocities(video, noisy, ring) - exact).sum())
        video.make(frames)
        for name, by_branch in rings.items():
            for branch in ("conditional", "unconditional"):
                full = video.ring(expert.component, branch, noisy)
                by_branch[branch] = _rounded(full, name)
    return {name: 10 * float(np.log10(signal / error)) for name, error in errors.items()}


def _rounded(ring: KeyValueRing, precision: str) -> KeyValueRing:
    """A copy of a float32 ring that holds what a format leaves of it."""
    copy = deepcopy(ring)
    for name, array in copy.inputs().items():
        if name != BIAS:
            array[:] = decoded(encoded(array, precision), precision)
    return copy


def _velocities(video: CausalVideo, noisy: Latents, rings: dict[str, KeyValueRing]) -> Latents:
    """Those of both branches at a middle timestep, with other rings than the video's if there are any."""
    expert = video.model.experts[0]
    given = given_to_branches(expert, noisy, 500.0, *video.texts)
    passing = video.positions(noisy, video.done)
    seen = {
        branch: {**arrays, **passing, **rings.get(branch, video.ring(expert.component, branch, noisy)).inputs()}
        for branch, arrays in given.items()
    }
    found = video.parts(expert.component).run_branches(GRAPH, seen)
    return np.concatenate([entry["velocity"].numpy() for entry in found])


def flat(pipeline: Pipeline) -> dict[str, Any]:
    """Seconds and resident bytes of chunks, early and late in one video, and of a pass over 40 chunks at once."""
    request = Request(PROMPT)
    video = pipeline.video(request, pipeline.encode(request, Timer()))
    seconds, resident = list[float](), list[int]()
    for _ in range(LATE + AROUND + 1):
        started = time.perf_counter()
        video.make(1)
        seconds.append(time.perf_counter() - started)
        resident.append(rss_bytes())
    early, late = (seconds[middle - AROUND : middle + AROUND + 1] for middle in (EARLY, LATE))
    steps = pipeline.bundle.sampling.steps or 0
    once = _whole_context(pipeline, video)
    chunk = median(late)
    return {
        "early_chunk": median(early),
        "late_chunk": chunk,
        "late_over_early": chunk / median(early),
        "memory_late_over_early": resident[LATE] / resident[EARLY],
        "cache_bytes": video.cache_bytes,
        "passes_over_all_of_it": steps * once,
        "times_as_fast_at_chunk_40": steps * once / chunk,
    }


def _whole_context(pipeline: Pipeline, video: CausalVideo) -> float:
    """Seconds of one step, of both branches, that goes over 40 chunks and the one that is made: no cache is seen."""
    expert = video.model.experts[0]
    parts, size = video.parts(expert.component), pipeline.bundle.latent_shape(pipeline.bundle.shapes[0])
    latents = np.zeros((*size[:2], CONTEXT + 1, *size[3:]), np.float32)
    past = {
        name: np.full((*array.shape[:-1], array.shape[-1]), -np.inf if name == BIAS else 0, array.dtype)
        for name, array in video.ring(expert.component, "conditional", latents).inputs().items()
    }
    pairs = next(e.shape[1] for g in parts.graphs.values() for e in g.inputs if e.name == "frame_cos")
    turned = np.ones((CONTEXT + 1, int(pairs)), np.float32)
    known = {"latents": latents, "timestep": np.array([500], np.float32), "frame_cos": turned, "frame_sin": turned}
    given = {
        branch: {**known, **past, "text": text}
        for branch, text in zip(("conditional", "unconditional"), video.texts, strict=True)
    }
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        parts.run_branches(GRAPH, given)
        found.append(time.perf_counter() - started)
    return median(found)


def formats(work: Path) -> dict[str, Any]:
    """Bytes of a ring in each format, and seconds of a chunk's passes with what is stored behind the last one."""
    import torch

    from wanc.bench.ours import build, export
    from wanc.models.wan.causal import graphs

    torch.set_num_threads(CASE.threads)
    source = CASE.save(CASE.module(), work)
    given = {name: tensor.numpy() for name, tensor in CASE.inputs().items()}
    report: dict[str, Any] = {}
    for engine in ("wanc onnxruntime", "wanc openvino bf16"):
        passes, rings = {}, {}
        for cache in FORMATS:
            (graph,) = graphs(CASE.config(), TEXT_LENGTH, cache)
            folder = work / engine.replace(" ", "-") / cache
            ours = build(engine, export(CASE, source, folder / "exported", graph), source, folder, CASE.threads)
            rings[cache] = _full_ring(cache)
            passes[cache] = _Chunk(ours, rings[cache], given)
        measured = contest(passes, ROUNDS, progress=sys.stderr.isatty())
        peer = median(measured[FORMATS[0]][0])
        ratios = {
            name: median(one / two for one, two in zip(seconds, measured[FORMATS[0]][0], strict=True))
            for name, (seconds, _) in measured.items()
        }
        report[engine] = {
            name: {
                "seconds": median(seconds),
                "spread": [min(seconds), max(seconds)],
                "times_the_seconds": ratios[name],
                "bytes": rings[name].bytes,
                "times_less_memory": rings[FORMATS[0]].bytes / rings[name].bytes,
            }
            for name, (seconds, _) in measured.items()
        } | {"seconds_of_16_bits": peer}
    return report


def _full_ring(cache: str) -> KeyValueRing:
    generator = np.random.Generator(np.random.Philox(1))
    heads = CASE.width // 128
    names = [f"past.{block}.{what}" for block in range(CASE.blocks) for what in ("key", "value")]
    shape = (1, CASE.tokens, heads, 128)
    ring = KeyValueRing(WINDOW, dict.fromkeys(names, shape), precision=cache)
    for chunk in range(WINDOW.chunks):
        ring.finish(chunk, {name: generator.standard_normal(shape, dtype=np.float32) for name in names})
    return ring


class _Chunk:
    """The passes of one chunk on one engine, and what is stored behind them."""

    def __init__(self, ours: Any, ring: KeyValueRing, given: dict[str, Any]) -> None:
        self._ours, self._ring = ours, ring
        pairs = next(e.shape[1] for g in ours.graphs.values() for e in g.inputs if e.name == "frame_cos")
        turned = np.ones((CASE.frames, int(pairs)), np.float32)
        self._given = {**given, "frame_cos": turned, "frame_sin": turned}
        self._chunk = WINDOW.chunks

    def __call__(self) -> None:
        results = [self._ours.run({**self._given, **self._ring.inputs()}) for _ in range(PASSES)][-1]
        self._ring.finish(
            self._chunk,
            {name.replace("new.", "past."): value.numpy() for name, value in results.items() if "new" in name},
        )
        self._chunk += 1


class Waiting(Pipeline):
    """Hands on a video's latents when all of them are there."""

    def chunks(self, *arguments: Any, **options: Any) -> Iterator[Latents]:
        yield np.concatenate(list(super().chunks(*arguments, **options)), axis=2)


def streaming(bundle: Path, work: Path) -> dict[str, Any]:
    """Seconds until a video is in its file, in both ways in turn."""
    one, other = sorted(all_cores())[:2]
    quotas = {stage: Quota(cores=(one if stage == DENOISE else other,)) for stage in STAGES}
    rounds: list[dict[str, float]] = []
    with (
        Service(Pipeline.open(bundle), quotas=quotas) as streams,
        Service(Waiting.open(bundle), quotas=quotas) as waits,
    ):
        for number in range(STREAM_ROUNDS + 1):
            entry: dict[str, float] = {}
            for name, service in (("beside", streams), ("behind", waits)):
                started = time.perf_counter()
                made = service.write(work / f"{name}.mp4", PROMPT, frames=STREAM_FRAMES).result()
                entry[name] = time.perf_counter() - started
                if name == "behind":
                    entry["share"] = 1 - (made.seconds["denoise"] + made.seconds.get("text", 0)) / entry[name]
            entry["sooner"] = 1 - entry["beside"] / entry["behind"]
            if number:
                rounds.append(entry)
    return {
        "frames": STREAM_FRAMES,
        "chunks": (STREAM_FRAMES - 1) // 4 + 1,
        "rounds": rounds,
        **{name: median(entry[name] for entry in rounds) for name in rounds[0]},
        **_first_frame(bundle, work),
    }


def _first_frame(bundle: Path, work: Path) -> dict[str, float]:
    """Of one video by itself: when its first frame is there, beside what a chunk takes; and frames per second."""
    pipeline = Pipeline.open(bundle)
    pipeline.generate(PROMPT)
    found: list[dict[str, float]] = []
    for _ in range(STREAM_ROUNDS):
        timer, started, first = Timer(), time.perf_counter(), 0.0
        request = Request(PROMPT, frames=STREAM_FRAMES)
        with pipeline.frames(request, timer) as frames:
            for number, _ in enumerate(frames):
                first = first or time.perf_counter() - started
                del number
        wall = time.perf_counter() - started
        chunk = wall / ((STREAM_FRAMES - 1) // 4 + 1)
        found.append({"first_frame": first, "chunk": chunk, "denoising": STREAM_FRAMES / timer.seconds["denoise"]})
    from wanc.runtime.video_task import run_video

    started = time.perf_counter()
    run_video(bundle, work / "whole.mp4", prompt=PROMPT, frames=STREAM_FRAMES)
    whole = time.perf_counter() - started
    return {
        "first_frame_in_chunks": median(entry["first_frame"] / entry["chunk"] for entry in found),
        "frames_per_second_denoising": median(entry["denoising"] for entry in found),
        "frames_per_second_prompt_to_mp4": STREAM_FRAMES / whole,
    }


def main(bundle: Path) -> None:
    """Measure all of it, and write what was measured."""
    require_writable(RESULT, WHAT)
    with TemporaryDirectory() as name:
        report = {
            "bundle": bundle.name,
            "machine": machine(("onnxruntime", "openvino", "numpy", "av")),
            "kept_db": kept(Pipeline.open(bundle)),
            "flat": flat(Pipeline.open(bundle)),
            "streaming": streaming(bundle, Path(name)),
            "formats": formats(Path(name)),
            "attention_720p_30s": {**BIG, **attention_work(**BIG)},
        }
    write_whole(RESULT, f"{json.dumps(report, indent=1)}\n".encode(), WHAT)
    print(json.dumps(report, indent=1))


def built() -> Path:
    """tiny-wan-causal's bundle."""
    from wanc.compiler.pipeline import build
    from wanc.recipe.load import load

    (loaded,) = load(ROOT / "recipes" / "tiny-wan-causal.yaml")
    return build(loaded, ROOT / "artifacts", progress=False).bundle


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else built())
