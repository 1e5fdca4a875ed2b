"""A bundle that is reported on: open, with what it says of how it was built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanc.report.chunks import division
from wanc.report.document import Facts, WorstLayer
from wanc.runtime.denoise import GRAPH
from wanc.runtime.folder import PlainFolder
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.progress import OnProgress, ignore
from wanc.runtime.request import Request
from wanc.runtime.strict_json import Fields, JsonValue, parse_object

LOCK, ENGINE_REPORT, TABLES = "recipe.lock.json", "engine_report.json", "quantization/"
FLOAT = "float"
OF_PLACES = ("budgets", "offload")
"""What `runtime` says of where engines lie, and of how much memory they have."""
WORST = 10
"""Layers that are named."""


@dataclass(frozen=True)
class Subject:
    """`block_ends` are, by component, the values that go from block to block of its `step` graph. `settings` are the
    recipe's, but for what says where it is cut, and what that takes; `weights` are digests, by the name of the file.
    """

    name: str
    path: Path
    pipeline: Pipeline
    recipe: str
    facts: Facts
    block_ends: Mapping[str, Sequence[str]]
    worst_layers: Sequence[WorstLayer]
    settings: Mapping[str, JsonValue]
    weights: Mapping[str, str]

    @property
    def timesteps(self) -> list[float]:
        """Those of the bundle's own sampling."""
        return self.pipeline.start(Request(""))[0].timesteps.tolist()

    def close(self) -> None:
        """Give its engines' memory back; they are opened again when they are needed."""
        close_engines(self.pipeline)

    @classmethod
    def open(cls, path: Path, name: str, *, threads: int | None = None, on_progress: OnProgress = ignore) -> Subject:
        """Raises what `Pipeline.open` raises, and BundleError where what the bundle says of itself cannot be read."""
        pipeline = Pipeline.open(path, threads=threads, on_progress=on_progress)
        manifest, folder = pipeline.bundle.manifest, pipeline.bundle.folder
        listed = [file.path for file in manifest.files]
        lock = read_sealed(folder, LOCK)
        recipe = lock.object("recipe")
        report = read_sealed(folder, ENGINE_REPORT)
        tables = [read_sealed(folder, file) for file in listed if file.startswith(TABLES)]
        quantize = recipe.object("quantize")
        segments = max(len(segments.files) for segments in pipeline.bundle.engines.values())
        facts = Facts(
            id=manifest.id,
            version=manifest.version,
            engine=report.text("engine"),
            compute=recipe.object("precision").text("compute"),
            scheme=quantize.text("scheme"),
            segments=segments,
            size_bytes=sum(file.size for file in manifest.files),
            int8_linear_share=_shares(report),
            attention_share=_attention(report),
            kv_cache=(cache := pipeline.bundle.cache) and f"{division(cache)}, in {cache.precision}",
            schemes=_schemes(tables),
        )
        return cls(
            name,
            path,
            pipeline,
            recipe.text("name"),
            facts,
            _block_ends(report),
            _worst(tables),
            _settings(recipe),
            _weights(lock),
        )


def close_engines(pipeline: Pipeline) -> None:
    """Give the memory of a pipeline's engines back; they are opened again when they are needed."""
    for component, _ in pipeline.bundle.graphs:
        pipeline.executor.close(component)


def read_sealed(folder: PlainFolder, name: str) -> Fields:
    """One of a bundle's own JSON files. Raises BundleError where it is none."""
    return folder.read(name, lambda path: parse_object(path.read_bytes(), where=folder.shown(name)))


def _settings(recipe: Fields) -> dict[str, JsonValue]:
    runtime = {key: value for key, value in recipe.object("runtime").values.items() if key not in OF_PLACES}
    others = {key: value for key, value in recipe.values.items() if key not in ("name", "version", "partition")}
    return {**others, "runtime": runtime}


def _weights(lock: Fields) -> dict[str, str]:
    inputs = lock.object("inputs")
    return {name: inputs.object(name).text("sha256") for name in inputs.values if name.endswith(".safetensors")}


def _shares(report: Fields) -> dict[str, float]:
    """Of what is executed again and again in each component: the largest of its graphs' shares."""
    shares: dict[str, float] = {}
    components = report.object("components")
    for component in components.values:
        graphs = components.object(component)
        shares[component] = max(graphs.object(graph).number("int8_linear_share") for graph in graphs.values)
    return shares


def _attention(report: Fields) -> dict[str, float]:
    """Of engines that were built where they could be looked into."""
    components = report.object("components")
    steps = {name: components.object(name).values.get(GRAPH) for name in components.values}
    return {
        name: components.object(name).object(GRAPH).number("attention_share")
        for name, step in steps.items()
        if isinstance(step, dict) and "attention_share" in step
    }


def _block_ends(report: Fields) -> dict[str, list[str]]:
    ends: dict[str, list[str]] = {}
    components = report.object("components")
    for component in components.values:
        graphs = components.object(component)
        if GRAPH in graphs.values and "block_ends" in (graph := graphs.object(GRAPH)).values:
            ends[component] = graph.texts("block_ends")
    return ends


def _schemes(tables: Sequence[Fields]) -> dict[str, str]:
    return {
        f"{table.text('component')}/{linear}": _scheme(table.object("linears").object(linear))
        for table in tables
        for linear in table.object("linears").values
    }


def _scheme(linear: Fields) -> str:
    """A scheme, and whether the input was smoothed, which tells as much of how a Linear is computed."""
    return f"{linear.text('scheme')}, smoothed" if linear.values.get("alpha") is not None else linear.text("scheme")


def _worst(tables: Sequence[Fields]) -> list[WorstLayer]:
    """The quantised Linears that are furthest from the float model on the rows of calibration."""
    found: list[WorstLayer] = []
    for table in tables:
        linears = table.object("linears")
        for name in linears.values:
            entry = linears.object(name)
            if entry.values.get("sqnr_db") is not None:
                found.append(
                    WorstLayer(
                        name=f"{table.text('component')}/{name}",
                        scheme=entry.text("scheme"),
                        sqnr_db=entry.number("sqnr_db"),
                        reason=entry.text("reason"),
                    )
                )
    return sorted(found, key=lambda layer: layer.sqnr_db)[:WORST]
