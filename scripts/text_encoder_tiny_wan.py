"""Measures what quantising its text encoder costs tiny-wan: text states of held-out prompts beside the float model's.

Each variant of recipes/tiny-wan-text-encoder.yaml is quantised and compiled as a build does it, and its engine
encodes the 200 held-out prompts. The float model is executed by onnxruntime, as the program has it.

example:
  python -m scripts.text_encoder_tiny_wan --store build/store --out docs/results
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from scripts.tiny_wan.evaluation import cases
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.calibration.weights import sqnr_db
from wanc.compiler.engines.stage import Compile
from wanc.compiler.host.chain import chain_of
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.component_files import ComponentFiles, component_inputs
from wanc.compiler.program.laid_out import laid_out
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.texts import prompt_reader
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Tree
from wanc.recipe.load import LoadedRecipe, load
from wanc.runtime.encode import GRAPH
from wanc.runtime.model import TEXT_ENCODER
from wanc.runtime.session import Session
from wanc.runtime.whole_file import write_whole

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "tiny-wan-text-encoder.yaml"
NAME = "text-encoder-tiny-wan"
PROMPTS = 200
Array = np.ndarray[Any, Any]
Decibels = dict[str, list[float]]
"""Of each prompt, by variant."""


@dataclass(frozen=True)
class Variant:
    """A variant of the recipe, as far as its text encoder goes.

    `fused` locates the program before it is quantised, with what its weights lie in, and `engine` the engine's files.
    """

    name: str
    kind: str
    tokenizer: str
    fused: Mapping[str, Files]
    engine: Files

    def given(self, prompts: Sequence[str]) -> list[dict[str, Array]]:
        """What an encoder is given of prompts."""
        read = prompt_reader(Program.read(self.fused["program"][FILE]), self.fused["source"], self.tokenizer)
        return [read(prompt) for prompt in prompts]

    def floats(self, given: Sequence[Mapping[str, Array]], folder: Path) -> list[Array]:
        """What the float model gives."""
        chain = chain_of(ComponentFiles.read(TEXT_ENCODER, self.fused), GRAPH, folder / self.name)
        return [outputs["hidden"] for outputs in chain.run(given)]

    def gave(self, given: Sequence[Mapping[str, Array]], folder: Path) -> list[Any]:
        """What the engine gives."""
        (name,) = [name for name in self.engine if name.endswith((".onnx", ".xml"))]
        with laid_out(self.engine, folder) as laid:
            session = Session(self.kind, laid / name, threads=1)
            return [session.run(inputs)["hidden"] for inputs in given]


def built(store: Path, recipe: Path = RECIPE) -> list[Variant]:
    """The recipe's variants, through a store."""
    opened = Store.open(store)
    with opened.session():
        return [_variant(loaded, opened, recipe.stem) for loaded in load(recipe)]


def _variant(loaded: LoadedRecipe, store: Store, stem: str) -> Variant:
    resolved, runner = resolve(loaded, SourceDigests(store), progress=False), Runner(store, progress=False)
    plan = BuildPlan.of(resolved)
    exported = runner.run(plan.export, {"source": resolved.layout})
    fused = runner.run(plan.fuse, {"program": exported})
    assert plan.quantization is not None, "each variant quantises its text encoder, and nothing else"
    program = plan.quantization.run(runner.run, fused, exported, resolved.source)
    placed = program.joined(runner.run(plan.partition, {"program": program}))
    placement = Program.read(placed.locate()[FILE]).placement
    assert placement is not None
    (segment,) = [segment for segment in placement.segments if segment.component == TEXT_ENCODER]
    assemble, (target,) = plan.engines.assemble, plan.engines.targets
    stage = Compile(plan.engines.engine, segment, target, assemble.allow_not_finite, assemble.zeros)
    engine = runner.run(stage, component_inputs((TEXT_ENCODER,), placed, exported, resolved.source))
    trees: dict[str, Tree] = {"program": fused, "exported": exported, "source": resolved.source}
    return Variant(
        str(loaded.recipe.name).removeprefix(f"{stem}-"),
        loaded.recipe.engine.kind,
        plan.quantization.texts.tokenizer,
        {name: tree.locate() for name, tree in trees.items()},
        engine.only(lambda name: name.startswith("engines/")).locate(),
    )


def measure(variants: Sequence[Variant], prompts: Sequence[str], folder: Path) -> Decibels:
    """The text states of each prompt, beside the float model's."""
    given = variants[0].given(prompts)
    expected = variants[0].floats(given, folder)
    return {
        variant.name: [sqnr_db(*pair) for pair in zip(variant.gave(given, folder), expected, strict=True)]
        for variant in variants
    }


def report(found: Decibels) -> str:
    """The page: a row for each variant."""
    rows = [
        f"| {name} | {np.mean(db):.1f} | {np.percentile(db, 5):.1f} | {min(db):.1f} |" for name, db in found.items()
    ]
    count = len(next(iter(found.values())))
    head = (
        f"SQNR of the text states of {count} held-out prompts, each beside what the float model makes of it, in dB.\n\n"
        "| variant | mean | 5th percentile | worst |\n| --- | ---: | ---: | ---: |\n"
    )
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="what was computed before lies here")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the report")
    given = parser.parse_args()
    prompts = [case.prompt for case in cases(PROMPTS)]
    with TemporaryDirectory() as folder:
        found = measure(built(given.store), prompts, Path(folder))
    given.out.mkdir(parents=True, exist_ok=True)
    rounded = {name: [round(db, 2) for db in figures] for name, figures in found.items()}
    document = json.dumps({"recipe": RECIPE.name, "prompts": PROMPTS, "db": rounded})
    write_whole(given.out / f"{NAME}.json", f"{document}\n".encode(), "the report")
    write_whole(given.out / f"{NAME}.md", report(rounded).encode(), "the report")


if __name__ == "__main__":
    main()
