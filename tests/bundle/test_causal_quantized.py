"""Causal experts in fewer bits: they are calibrated on what a bundle meets, pass by pass; planted faults are seen.

The experts are those of `causal_bundle`: a window of two chunks and a sink of one, so that the fifth chunk is the first
one which no longer sees all of the past. So long are the clips.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.fusing import relative_error
from tests.compiler.tiny_stages import run_stage
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.calibration.weights import sqnr_db
from wanc.compiler.host.chain import Chain
from wanc.compiler.host.past import Pasts
from wanc.compiler.host.sample_states import SampleStates
from wanc.compiler.pipeline import BuildPlan, build
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.compiler.program.quant_table import FLOAT, QuantTable, table_file
from wanc.compiler.quantize import decisions
from wanc.compiler.quantize.calibrate import clip_file
from wanc.compiler.quantize.causal_clip import CHUNKS, lengths_of, samples_of_passes
from wanc.compiler.quantize.experts import ExpertStages
from wanc.compiler.quantize.texts import RESULT, TENSOR
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.recipe.load import load
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.model import DECODER, HIGH, LOW
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.safetensors import SafetensorsFile

from ..conftest import ROOT
from .test_causal import Take

pytestmark = pytest.mark.slow
SEED, CLIPS, FRAMES, CHUNKS_OF_A_CLIP = 5, 2, 17, 5
PROMPTS = ROOT / "recipes" / "prompts" / "tiny-wan-calibrate.txt"
CALIBRATE = f"{{prompts: {PROMPTS}, clips: {CLIPS}, timestep_bins: 1, seed: {SEED}}}"
# A component in one graph sums in another order than its parts; what a wrong past gives is a hundred times the bound.
TOLERANCE = 1e-4
# Of nine chunks that each look back at errors, 20 dB are measured; with steps that are wrong there is no picture left.
LEAST_SQNR = 15.0


@dataclass(frozen=True)
class Calibrated:
    """The stages of both experts, and what they begin with; the samples are those of the first one."""

    experts: tuple[ExpertStages, ...]
    inputs: Mapping[str, Files]
    bundle: Path

    @property
    def texts(self) -> np.ndarray:
        return SafetensorsFile(self.inputs["texts"][RESULT])[TENSOR]

    @property
    def clips(self) -> list[SafetensorsFile]:
        return [SafetensorsFile(self.inputs["samples"][clip_file(clip)]) for clip in range(CLIPS)]

    @property
    def files(self) -> ComponentFiles:
        return ComponentFiles.read(HIGH, self.inputs)

    @property
    def cache(self) -> CacheFacts:
        (facts,) = {expert.calibrate.cache for expert in self.experts}
        assert facts is not None
        return facts


@pytest.fixture(scope="module")
def calibrated(causal_recipe: Path, causal_bundle: Path) -> Calibrated:
    """Built beside the float bundle, whose graphs it takes from the store."""
    (loaded,) = load(causal_recipe, ["name=causal-int8", "quantize.scheme=int8", f"quantize.calibrate={CALIBRATE}"])
    bundle = build(loaded, causal_bundle.parents[1], progress=False).bundle
    store = Store.open(causal_bundle.parents[1] / "store")
    with store.session():
        resolved = resolve(loaded, SourceDigests(store, paranoid=False), progress=False)
        plan, runner = BuildPlan.of(resolved), Runner(store, progress=False)
        exported = runner.run(plan.export, {"source": resolved.layout})
        program = runner.run(plan.fuse, {"program": exported})
        assert plan.quantization is not None
        trees = {"exported": exported, "program": program, "source": resolved.source}
        trees["texts"] = runner.run(plan.quantization.texts, trees)
        trees["samples"] = runner.run(plan.quantization.experts[0].calibrate, trees)
        assert all(run.cached for run in runner.runs), "a build with the same scheme samples nothing again"
    return Calibrated(plan.quantization.experts, {name: tree.locate() for name, tree in trees.items()}, bundle)


@pytest.fixture(scope="module")
def takes(calibrated: Calibrated, causal_bundle: Path) -> list[Take]:
    """The same clips as the float bundle makes them, every pass taken down."""
    pipeline, found = Pipeline.open(causal_bundle, threads=1), list[Take]()
    for clip in range(CLIPS):
        request = Request("", seed=SEED + clip, frames=FRAMES)
        texts = (calibrated.texts[clip][None], calibrated.texts[-1][None])
        found.append(Take.of(pipeline.video(request, texts), CHUNKS_OF_A_CLIP))
    return found


# What they are calibrated on


def test_a_clip_goes_on_until_a_chunk_is_given_up() -> None:
    facts = CacheFacts(3, KeyValueWindow(1, 6), "fp32")
    assert lengths_of(facts, 5) == [3] * 9
    assert facts.window.seen(8) == [0, *range(2, 8)] and facts.window.seen(7) == [*range(7)]
    assert lengths_of(facts, 29) == [3] * 9 + [2], "a longer video is as long as it is"


def test_samples_are_the_passes_of_the_bundle(calibrated: Calibrated, takes: list[Take]) -> None:
    """Noisy ones, and the clean one behind every chunk but the last."""
    for clip, take in zip(calibrated.clips, takes, strict=True):
        passes = [one for one in take.passes if one.component == HIGH]
        assert clip[CHUNKS].tolist() == [one.chunk for one in passes] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
        for number, one in enumerate(passes):
            assert clip[f"{number}/timestep"].tolist() == [one.timestep]
            assert relative_error(clip[f"{number}/latents"], one.latents) < TOLERANCE


def velocities(calibrated: Calibrated, folder: Path, change: Callable[[Pasts], Pasts]) -> list[np.ndarray]:
    """What each sample gives, where all of them pass through one piece of the float expert after the other."""
    files, cache = calibrated.files, calibrated.cache
    step = files.component.interfaces[files.only_graph]
    samples, pasts = samples_of_passes(calibrated.inputs["samples"], calibrated.texts, cache, step, is_guided=True)
    for name in ("chain", "states"):
        (folder / name).mkdir(parents=True)
    model = files.model(files.only_graph)
    chain = Chain(model, files.weights, folder / "chain", FiniteCheck(HIGH), most_weight_bytes=2**20)
    assert len(chain.pieces) > 5, "blocks are cut apart, and cut inside"
    states, found = SampleStates(samples, folder / "states", change(pasts)), dict[int, np.ndarray]()
    for index in range(len(chain.pieces)):
        for number, values in decisions._executions(chain, index, states, keep=True):
            if "velocity" in values:
                found[number] = values["velocity"]
        states.pass_segment(chain.taken_behind(index))
        chain.forget(index)
    return [found[number] for number in range(len(samples))]


def errors(found: list[np.ndarray], takes: list[Take]) -> dict[int, float]:
    """The largest of each chunk, relative to what the bundle computes; of a clip first one branch, then the other."""
    largest: dict[int, float] = {}
    passes = [(one, branch) for take in takes for branch in (0, 1) for one in take.passes if one.component == HIGH]
    for velocity, (one, branch) in zip(found, passes, strict=True):
        error = relative_error(velocity, one.velocities[branch][None])
        largest[one.chunk] = max(largest.get(one.chunk, 0.0), error)
    return largest


def test_a_piece_sees_the_past_that_the_bundle_sees(calibrated: Calibrated, takes: list[Take], tmp_path: Path) -> None:
    """Piece by piece, each with the keys and values of its own blocks."""
    assert max(errors(velocities(calibrated, tmp_path, lambda pasts: pasts), takes).values()) < TOLERANCE


def each(**changed: Any) -> Callable[[Pasts], Pasts]:
    return lambda pasts: replace(pasts, passes=[replace(one, **changed) for one in pasts.passes])


def of_noise(pasts: Pasts) -> Pasts:
    """What a noisy pass leaves, and not what the clean one does."""
    return replace(pasts, passes=[replace(one, is_clean=not one.is_clean) for one in pasts.passes])


def of_one_chunk(pasts: Pasts) -> Pasts:
    return replace(pasts, facts=replace(pasts.facts, window=KeyValueWindow(0, 1)))


@pytest.mark.parametrize(
    ("fault", "first"),
    [(each(is_clean=False), 1), (of_noise, 0), (of_one_chunk, 2), (each(video=(0, 0)), 0)],
    ids=["none", "of noise", "of one chunk", "of another video"],
)
def test_another_past_is_seen(
    fault: Callable[[Pasts], Pasts], first: int, calibrated: Calibrated, takes: list[Take], tmp_path: Path
) -> None:
    """From the first chunk on that has a past to be wrong: its own noise is what a first clean pass sees."""
    found = errors(velocities(calibrated, tmp_path, fault), takes)
    wrong = [chunk for chunk, error in found.items() if error > 100 * TOLERANCE]
    assert wrong == [*range(first, CHUNKS_OF_A_CLIP)]


# What comes of it


def test_its_linears_are_integers(calibrated: Calibrated) -> None:
    """As the engine was read back; of a step all but the ends of the model."""
    report = json.loads((calibrated.bundle / ENGINE_REPORT).read_bytes())["components"]
    for component in (HIGH, LOW):
        table = QuantTable.read(calibrated.bundle / table_file(component))
        assert {entry.scheme for entry in table.linears.values()} == {"int8", FLOAT}
        assert len(table.quantized) == 50 and all(entry.activation_scale for entry in table.quantized.values())
        assert report[component]["step"]["int8_linear_share"] > 0.9, report[component]["step"]


def latents(calibrated: Calibrated, folder: Path, program: Files) -> np.ndarray:
    """A clip that nothing was calibrated on, of three times the window, as a program's experts make it."""
    stage = replace(calibrated.experts[0].calibrate, component=DECODER, clips=1, seed=77, shapes=((64, 64, 33),))
    made = run_stage(stage, {**calibrated.inputs, "program": program}, folder / "out")
    (clip,) = SafetensorsFile(made[clip_file(0)])["latents"]
    assert clip.shape[2] == 9
    return clip


def quantized(calibrated: Calibrated, folder: Path, samples: Files) -> Files:
    """The program with its first expert quantised on these."""
    stage = calibrated.experts[0].quantize
    made = run_stage(stage, {**calibrated.inputs, "samples": samples}, folder / "quantized" / "out")
    return {**calibrated.inputs["program"], **made}


def test_latents_are_nearly_those_of_the_float_model(
    calibrated: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of steps that are a quarter of what they should be, the codes of most inputs are clipped."""
    expected = latents(calibrated, tmp_path / "float", calibrated.inputs["program"])
    right = quantized(calibrated, tmp_path / "right", calibrated.inputs["samples"])
    threshold = decisions.threshold
    monkeypatch.setattr(decisions, "threshold", lambda *observed: threshold(*observed) / 4)
    wrong = quantized(calibrated, tmp_path / "wrong", calibrated.inputs["samples"])
    found = [
        sqnr_db(latents(calibrated, tmp_path / name, program), expected)
        for name, program in (("right", right), ("wrong", wrong))
    ]
    assert found[0] > LEAST_SQNR > found[1], found


@pytest.mark.long
def test_positions_may_be_relative(causal_recipe: Path, relative_bundle: Path) -> None:
    """What is past is turned anew in every pass that is calibrated on, as the bundle turns it."""
    positions = ["runtime.kv_cache.chunk=2", "runtime.kv_cache.positions=relative"]
    quantised = ["name=relative-int8", "quantize.scheme=int8", f"quantize.calibrate={CALIBRATE}"]
    (loaded,) = load(causal_recipe, [*positions, *quantised])
    bundle = build(loaded, relative_bundle.parents[1], progress=False).bundle
    found, expected = (
        Pipeline.open(root, threads=1).generate("A red circle moves to the left.", seed=SEED, frames=33).latents
        for root in (bundle, relative_bundle)
    )
    assert sqnr_db(found, expected) > LEAST_SQNR
