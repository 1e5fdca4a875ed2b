"""Whether the graphs of a bundle can make its videos: the whole pipeline on dtypes and sizes, before any engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product

from .cache_facts import NEW, PAST, CacheFacts, left_by_a_chunk
from .denoise import GRAPH as STEP
from .denoise import TIMESTEP
from .encode import COMPONENT as ENCODER
from .encode import GRAPH as ENCODE
from .engine_file import Key
from .errors import BundleError
from .folder import VerifiedFolder
from .interface import Interface, carried
from .kvcache import BIAS, ring_arrays
from .manifest import MANIFEST
from .model import DECODER, HIGH, LOW
from .shape_run import Described, ShapeRun
from .tables import Table, table_file
from .tiling import Tiling
from .video_facts import Shape, VideoFacts

MOST_GRAPHS = 16
"""Of one component: a step has three parts."""
KNOWN = {
    "latents": ("step", "request"),
    TIMESTEP: ("build", "expert"),
    "text": ("request", "branch"),
    **dict.fromkeys(("frame_cos", "frame_sin", "past_cos", "past_sin", BIAS), ("chunk", "request")),
}
"""What the loop gives to an expert: when it becomes known, and for whom. What is kept of its parts goes by that."""


def check_video(
    graphs: Mapping[Key, Interface], facts: VideoFacts, files: Collection[str], folder: VerifiedFolder
) -> None:
    """Raises BundleError, with what was expected, unless the pipeline can execute these graphs for every shape.

    `files` are the paths of the bundle, of which those that are tables have to be tables of these graphs.
    """
    where = folder.shown(MANIFEST)
    runs = {
        name: ShapeRun(name, {graph: entry for (owner, graph), entry in graphs.items() if owner == name}, where)
        for name in (ENCODER, HIGH, LOW, DECODER)
    }
    for name, run in runs.items():
        if len(run.graphs) > MOST_GRAPHS:
            raise BundleError(f"{name} has {len(run.graphs)} graphs, more than the {MOST_GRAPHS} allowed", where=where)
    text = _encode(runs[ENCODER], facts.model.text_length)
    for name in (HIGH,) if facts.model.boundary is None else (HIGH, LOW):
        _check_given(runs[name])
        for shape in facts.shapes:
            _denoise(runs[name], facts, shape, text)
        _check_tables(runs[name], files, folder)
    for shape in facts.shapes:
        _decode(runs[DECODER], facts, shape)


def embedding_width(encode: Interface, where: str) -> int:
    """How wide the rows are that the text encoder takes. Raises BundleError where it does not say."""
    for tensor in encode.inputs:
        if tensor.name == "embeddings" and len(tensor.shape) == 3 and isinstance(tensor.shape[2], int):
            return tensor.shape[2]
    raise BundleError(f"{ENCODER}/{ENCODE} does not say how wide its embeddings are", where=where)


def _encode(run: ShapeRun, text_length: int) -> Described:
    """The text states that an expert is given: the encoder takes as many tokens as a prompt has."""
    width = embedding_width(run.graphs[ENCODE], run.where) if ENCODE in run.graphs else 0
    states = Described("float32", (1, text_length, None))
    for tokens in {1, text_length}:
        embeddings = Described("float32", (1, tokens, width))
        results = run.run(ENCODE, {"embeddings": embeddings, "mask": Described("int64", (1, tokens))})
        run.expect(ENCODE, results, "hidden", Described("float32", (1, tokens, None)))
        states = Described("float32", (1, text_length, results["hidden"].shape[2]))
    return states


def _denoise(run: ShapeRun, facts: VideoFacts, shape: Shape, text: Described) -> None:
    latents = _latents(facts, shape)
    given = {"latents": latents, TIMESTEP: Described("float32", (1,)), "text": text}
    if facts.cache is not None:
        _denoise_chunks(run, facts.cache, latents, given)
        return
    results = _PartsRun(run, given).run(STEP)
    run.expect(STEP, results, "velocity", latents)


def _denoise_chunks(run: ShapeRun, cache: CacheFacts, video: Described, given: Mapping[str, Described]) -> None:
    """A whole chunk, which leaves what the next one takes, and a last one that is shorter."""
    one, channels, frames, *size = video.shape
    assert frames is not None, "a video's size is known"
    left = left_by_a_chunk(
        run.graphs.get(STEP, Interface((), ())), cache.chunk, [side or 0 for side in size], run.where
    )
    ring = ring_arrays(cache.window, left, cache.precision)
    past = {name: Described(dtype, shape) for name, (shape, dtype) in ring.items()}
    if cache.is_relative:
        past |= dict.fromkeys(("past_cos", "past_sin"), Described("float32", (past[BIAS].shape[-1], None)))
    for length in sorted(set(cache.lengths(frames))):
        latents = Described("float32", (one, channels, length, *size))
        turned = Described("float32", (length, None))
        seen = {**given, "latents": latents, "frame_cos": turned, "frame_sin": turned, **past}
        results = _PartsRun(run, seen).run(STEP)
        run.expect(STEP, results, "velocity", latents)
        for name in left:
            run.expect(STEP, results, name.replace(PAST, NEW, 1), Described("float32", (1, None, None, None)))
    taken = {tensor.name for interface in run.graphs.values() for tensor in interface.inputs}
    if untaken := [name for name in past if name not in taken]:
        raise run.fault(STEP, f"does not take {untaken[0]}, which it is given")


def _decode(run: ShapeRun, facts: VideoFacts, shape: Shape) -> None:
    """All pictures that the decoder makes at once: whole ones, or tiles of each size."""
    whole = shape.height, shape.width
    tiling = facts.tilings.get(shape.name) or Tiling(whole, whole)
    heights, widths = ({span.size for span in tiling.spans(side, axis)} for axis, side in enumerate(whole))
    for height, width in product(heights, widths):
        _decode_size(run, facts, replace(shape, height=height, width=width))


def _decode_size(run: ShapeRun, facts: VideoFacts, shape: Shape) -> None:
    """The first latent frame, and two more: what the second gives, the third has to take."""
    _, channels, _, rows, columns = _latents(facts, shape).shape
    latent = Described("float32", (1, channels, 1, rows, columns))
    caches: dict[str, Described] = {}
    for graph, frames in (("first", 1), ("steady", facts.model.temporal_stride), ("steady", None)):
        results = run.run(graph, {"latent": latent, **caches})
        run.expect(graph, results, "frames", Described("float32", (1, 3, frames, shape.height, shape.width)))
        caches = carried(run.graphs[graph].outputs, results)


def _latents(facts: VideoFacts, shape: Shape) -> Described:
    sizes = facts.model.latent_shape(height=shape.height, width=shape.width, frames=shape.frames)
    return Described("float32", sizes)


def _check_given(run: ShapeRun) -> None:
    """What is kept between steps goes by when an input becomes known: a wrong word there is a wrong video."""
    for graph, interface in run.graphs.items():
        for tensor in interface.inputs:
            binding, per = KNOWN.get(tensor.name, ("chunk", "branch"))
            is_known = tensor.name in KNOWN or tensor.name.startswith(PAST)
            if is_known and (tensor.binding, tensor.per) != (binding, per):
                raise run.fault(
                    graph, f"takes {tensor.name} by {tensor.binding} and {tensor.per}, not {binding}, {per}"
                )
            if tensor.name == "latents" and graph != STEP:
                raise run.fault(graph, "takes latents, which are others at every step, and is executed before it")


def _check_tables(run: ShapeRun, files: Collection[str], folder: VerifiedFolder) -> None:
    for graph, interface in run.graphs.items():
        path = table_file(run.component, graph)
        if path not in files:
            continue
        if others := [tensor.name for tensor in interface.inputs if tensor.name != TIMESTEP]:
            raise run.fault(graph, f"has a table and takes {others[0]}: only what takes {TIMESTEP} alone has one")
        folder.read(path, partial(Table, component=run.component, graph=graph, interface=interface))


@dataclass
class _PartsRun:
    """A component in parts, as `Parts` executes it: what the loop has not given, another graph gives."""

    component: ShapeRun
    given: Mapping[str, Described]
    _results: dict[str, dict[str, Described]] = field(default_factory=dict[str, dict[str, Described]])
    _running: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._givers: dict[str, str] = {}
        for graph, interface in sorted(self.component.graphs.items()):
            for output in interface.outputs:
                if (other := self._givers.setdefault(output.name, graph)) != graph:
                    raise self.component.fault(graph, f"gives {output.name}, which {other} gives as well")

    def run(self, graph: str) -> dict[str, Described]:
        """What a graph gives, once everything is executed that it needs."""
        if graph in self._running:
            chain = " → ".join([*self._running[self._running.index(graph) :], graph])
            raise self.component.fault(graph, f"needs what it gives itself: {chain}")
        if graph not in self._results:
            self._running.append(graph)
            inputs = self.component.graphs[graph].inputs if graph in self.component.graphs else ()
            given = {tensor.name: self._input(graph, tensor.name, tensor.shape_of) for tensor in inputs}
            self._results[graph] = self.component.run(graph, given)
            self._running.pop()
        return self._results[graph]

    def _input(self, graph: str, name: str, shape_of: str | None) -> Described:
        if name in self.given:
            return self.given[name]
        if shape_of is not None:
            if shape_of not in self.given:
                raise self.component.fault(graph, f"takes the shape of {shape_of}, which is no input")
            return Described("int64", (len(self.given[shape_of].shape),))
        if name not in self._givers:
            raise self.component.fault(graph, f"takes {name}, which no graph of {self.component.component} gives")
        return self.run(self._givers[name])[name]
