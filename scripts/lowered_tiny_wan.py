"""Measures what lowering for GPUs costs tiny-wan: how far what engines are built of is from the float model.

Each variant of recipes/tiny-wan-rtx.yaml is calibrated and lowered, and both of its experts are executed on states that
calibration has not seen: those that the float model comes to from noise of another seed, at four timesteps of each
expert, with a prompt and with the negative one. A lowered graph is executed in its own types, with each operation in 16
bits computed in float32 and rounded. No engine is built and no GPU is needed; what a GPU gives was not measured.

example:
  python -m scripts.lowered_tiny_wan --store build/store --out docs/results
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.calibration.weights import sqnr_db
from wanc.compiler.check.built import Together
from wanc.compiler.check.pieces import by_pieces
from wanc.compiler.check.steps import Workshop, lowered
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.quantize.experts import EXPERTS, QuantizeStages
from wanc.compiler.quantize.quantize import samples_of
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Tree
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.denoise import GRAPH
from wanc.runtime.whole_file import write_whole

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "tiny-wan-rtx.yaml"
NAME = "lowered-tiny-wan"
FLOAT, TARGET = "bf16", "sm89"
SEED, TIMESTEPS = 500_000, 4
"""Of the noise, apart from those of calibration; and how many timesteps of each expert, one of each quarter."""
State = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Variant:
    """A variant's components as its program has them, by name, and what lowers one of their graphs."""

    name: str
    components: Mapping[str, ComponentFiles]
    lowering: Callable[..., Any]

    def program(self, component: str, states: Sequence[State], folder: Path) -> list[Any]:
        """What an expert gives as the host executes its program: in float32, with Q/DQ where it is quantised."""
        files = self.components[component]
        return [by_pieces(files, GRAPH, folder, (), state)["velocity"] for state in states]

    def lowered(self, component: str, states: Sequence[State], folder: Path) -> list[Any]:
        """What it gives as it is lowered."""
        files = self.components[component]
        workshop = Workshop(folder / self.name / component, files.weights, elsewhere=True)
        parts = lowered(lowerable(files), files, lambda part: self.lowering(component, part), workshop, ())
        return [Together(parts).run(GRAPH, state)["velocity"] for state in states]


class Measured:
    """The variants of a recipe, and the states of each expert; all that is computed for them goes through a store."""

    def __init__(self, store: Path, recipe: Path = RECIPE, overrides: Sequence[str] = ()) -> None:
        self._store = Store.open(store)
        with self._store.session():
            self._runner = Runner(self._store, progress=False)
            self.variants = {
                str(loaded.recipe.name).removeprefix(f"{recipe.stem}-"): self._variant(loaded)
                for loaded in load(recipe, list(overrides))
            }

    def _variant(self, loaded: LoadedRecipe) -> Variant:
        resolved = resolve(loaded, SourceDigests(self._store), progress=False)
        plan = BuildPlan.of(resolved)
        exported = self._runner.run(plan.export, {"source": resolved.layout})
        program = fused = self._runner.run(plan.fuse, {"program": exported})
        if plan.quantization is not None:
            program = plan.quantization.run(self._runner.run, program, exported, resolved.source)
            self._sample(plan.quantization, {"program": fused, "exported": exported, "source": resolved.source})
        inputs = {
            name: tree.locate()
            for name, tree in {"program": program, "exported": exported, "source": resolved.source}.items()
        }
        files = {component: ComponentFiles.read(component, inputs) for component in EXPERTS}
        return Variant(loaded.recipe.name, files, plan.engines.engine.compiler(TARGET).lowering)

    def _sample(self, stages: QuantizeStages, inputs: Mapping[str, Tree]) -> None:
        """The states that the float model comes to; the same for every scheme."""
        texts = self._runner.run(stages.texts, inputs)
        self.states: dict[str, list[State]] = {}
        for expert in stages.experts:
            calibrate = replace(expert.calibrate, clips=1, timestep_bins=TIMESTEPS, seed=SEED)
            clips = self._runner.run(calibrate, {**inputs, "texts": texts})
            samples = samples_of(clips.locate(), texts.locate(), calibrate.trajectory, calibrate.component)
            self.states[calibrate.component] = [sample() for sample, _ in samples]


def measure(measured: Measured, folder: Path) -> dict[str, dict[str, dict[str, list[float]]]]:
    """dB of every state, by variant, by expert, and by what is executed: `program` in float32, or `lowered`."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for component, states in measured.states.items():
        expected = measured.variants[FLOAT].program(component, states, folder)
        for name, variant in measured.variants.items():
            gave = {"lowered": variant.lowered(component, states, folder)}
            if name != FLOAT:
                gave["program"] = variant.program(component, states, folder)
            found.setdefault(name, {})[component] = {
                how: [sqnr_db(one, other) for one, other in zip(outputs, expected, strict=True)]
                for how, outputs in gave.items()
            }
    return found


def means(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The mean over the states."""
    return {
        name: {
            component: {how: float(np.mean(figures)) for how, figures in by_how.items()}
            for component, by_how in experts.items()
        }
        for name, experts in found.items()
    }


def report(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> str:
    """The page: a row for each variant and expert."""
    rows = [
        f"| {name} | {component} | {by_how['program']:.1f} | {by_how['lowered']:.1f} |"
        if "program" in by_how
        else f"| {name} | {component} | | {by_how['lowered']:.1f} |"
        for name, experts in means(found).items()
        for component, by_how in experts.items()
    ]
    states = len(next(iter(found[FLOAT].values()))["lowered"])
    head = (
        f"dB against the float model, the mean of {states} states of each expert. Executed on a CPU: each operation of "
        "the lowered graphs in float32, and rounded to its type. No GPU was used.\n\n"
        "| variant | expert | its program in float32 | lowered |\n| --- | --- | ---: | ---: |\n"
    )
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="what was computed before lies here")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the report")
    given = parser.parse_args()
    measured = Measured(given.store)
    with TemporaryDirectory() as folder:
        found = measure(measured, Path(folder))
    given.out.mkdir(parents=True, exist_ok=True)
    rounded = {
        name: {
            component: {how: [round(figure, 2) for figure in figures] for how, figures in by_how.items()}
            for component, by_how in experts.items()
        }
        for name, experts in found.items()
    }
    document = json.dumps({"recipe": RECIPE.name, "seed": SEED, "db": rounded}, indent=1)
    write_whole(given.out / f"{NAME}.json", f"{document}\n".encode(), "the report")
    write_whole(given.out / f"{NAME}.md", report(rounded).encode(), "the report")


if __name__ == "__main__":
    main()
