"""Texts and trajectories of tiny-wan: what the bundle computes, kept where an expert's timesteps ask for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from wanc.artifacts.kept import keep
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.calibrate import LATENTS, PROMPT, TIMESTEPS, Calibrate, clip_file
from wanc.compiler.quantize.experts import QuantizeStages
from wanc.compiler.quantize.texts import RESULT, TENSOR
from wanc.compiler.stages.stage import Files, scratch_of
from wanc.errors import CheckpointError, UserError
from wanc.runtime import safetensors
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.solvers.base import Solver
from wanc.runtime.timer import Timer

from .fusing import relative_error
from .tiny_stages import fused_trees

CLIPS, STEPS, BINS = 3, 6, 2
SEED = 5
SETTINGS = (
    f"quantize.calibrate.clips={CLIPS}",
    f"quantize.calibrate.timestep_bins={BINS}",
    f"quantize.calibrate.seed={SEED}",
    f"sampling.steps={STEPS}",
    "sampling.negative_prompt=blurred",
)
# A component in one graph sums in another order than its parts, and a few guided steps add up what that costs.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Fused:
    """tiny-wan before it is quantised."""

    quantization: QuantizeStages
    inputs: Mapping[str, Files]

    @property
    def program(self) -> Program:
        return Program.read(self.inputs["program"][FILE])


@pytest.fixture(scope="module")
def fused(tiny_bundle: Path) -> Fused:
    """From the store beside `tiny_bundle`."""
    stages, trees = fused_trees(tiny_bundle, *SETTINGS)
    return Fused(stages, {name: tree.locate() for name, tree in trees.items()})


@pytest.fixture(scope="module")
def texts(fused: Fused, tmp_path_factory: pytest.TempPathFactory) -> Files:
    out = tmp_path_factory.mktemp("texts") / "out"
    out.mkdir()
    fused.quantization.texts.run(fused.inputs, out, progress=False)
    return {RESULT: out / RESULT}


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.open(tiny_bundle, threads=1)


Run = Callable[..., list[SafetensorsFile]]


@pytest.fixture
def calibrate(fused: Fused, texts: Files, tmp_path: Path) -> Run:
    """`calibrate(stage, name, inputs)`: the samples of every clip."""

    def run(stage: Calibrate, name: str = "run", **inputs: Files) -> list[SafetensorsFile]:
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        if not scratch_of(out).exists():
            scratch_of(out).mkdir()
        stage.run({**fused.inputs, "texts": texts, **inputs}, out, progress=False)
        assert sorted(path.name for path in out.parent.iterdir()) == ["out", "scratch"]
        assert sorted(path.name for path in out.iterdir()) == [clip_file(clip) for clip in range(stage.clips)]
        return [SafetensorsFile(out / clip_file(clip)) for clip in range(stage.clips)]

    return run


def stage_of(fused: Fused, component: str) -> Calibrate:
    (stage,) = [calibrate for calibrate, _, _ in fused.quantization.experts if calibrate.component == component]
    return stage


# Texts


def test_texts_are_what_the_bundle_makes_of_them(fused: Fused, texts: Files, pipeline: Pipeline) -> None:
    """Sums of one encoder in two sessions."""
    prompts, rows = fused.quantization.texts.prompts, SafetensorsFile(texts[RESULT])[TENSOR]
    assert len(prompts) == len(rows) == CLIPS + 1 and prompts[-1] == "blurred"
    for prompt, row in zip(prompts, rows, strict=True):
        assert relative_error(row[None], pipeline._encode(prompt)) < 1e-5


def test_texts_depend_on_their_own_prompt_alone(fused: Fused, texts: Files, tmp_path: Path) -> None:
    stage = replace(fused.quantization.texts, prompts=fused.quantization.texts.prompts[1:2])
    out = tmp_path / "out"
    out.mkdir()
    stage.run(fused.inputs, out, progress=False)
    np.testing.assert_array_equal(SafetensorsFile(out / RESULT)[TENSOR], SafetensorsFile(texts[RESULT])[TENSOR][1:2])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Trajectories


@dataclass
class Recording:
    """A solver that remembers the latents before each of its steps."""

    solver: Solver
    seen: list[np.ndarray]

    @property
    def timesteps(self) -> np.ndarray:
        return self.solver.timesteps

    @property
    def steps(self) -> int:
        return self.solver.steps

    def step(self, velocity: np.ndarray, latents: np.ndarray) -> np.ndarray:
        self.seen.append(latents)
        return self.solver.step(velocity, latents)


def trajectory(pipeline: Pipeline, clip: int, prompt: str, monkeypatch: pytest.MonkeyPatch) -> dict[float, np.ndarray]:
    """What the bundle's latents are at each timestep."""
    seen: list[np.ndarray] = []
    original = pipeline._solver
    solvers: list[Recording] = []

    def recorded(request: Request) -> Recording:
        solvers.append(Recording(original(request), seen))
        return solvers[-1]

    monkeypatch.setattr(pipeline, "_solver", recorded)
    shape = pipeline.bundle.shapes[clip % 2].name
    request = Request(prompt, negative_prompt="blurred", seed=SEED + clip, steps=STEPS, shape=shape)
    pipeline.denoise(request, Timer())
    monkeypatch.undo()
    return dict(zip(solvers[0].timesteps.tolist(), seen, strict=True))


@pytest.mark.parametrize("component", [HIGH, LOW])
def test_samples_are_what_the_bundle_meets(
    fused: Fused, calibrate: Run, pipeline: Pipeline, component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each bin one step, of each clip a prompt, a size and a seed of its own."""
    stage = stage_of(fused, component)
    boundary = 1000 * stage.trajectory.boundary if stage.trajectory.boundary else 0
    for clip, samples in enumerate(calibrate(stage)):
        assert samples.keys() == {LATENTS, TIMESTEPS, PROMPT}
        assert samples[PROMPT].tolist() == [clip]
        timesteps = samples[TIMESTEPS].tolist()
        assert len(timesteps) == BINS == len(samples[LATENTS])
        assert timesteps == sorted(timesteps, reverse=True)
        assert all((timestep >= boundary) == (component == HIGH) for timestep in timesteps)
        met = trajectory(pipeline, clip, fused.quantization.texts.prompts[clip], monkeypatch)
        own = [timestep for timestep in met if (timestep >= boundary) == (component == HIGH)]
        bins = [set(part.tolist()) for part in np.array_split(own, BINS)]
        for timestep, latents, inside in zip(timesteps, samples[LATENTS], bins, strict=True):
            assert timestep in {float(np.float32(entry)) for entry in inside}
            (expected,) = [array for entry, array in met.items() if np.float32(entry) == timestep]
            assert relative_error(latents, expected) < TOLERANCE


def test_more_bins_than_steps_are_all_steps(fused: Fused, calibrate: Run) -> None:
    """And what the first step sees is the noise of the clip's seed."""
    stage = replace(stage_of(fused, HIGH), timestep_bins=50, clips=1)
    (samples,) = calibrate(stage)
    solver = stage.trajectory.create_solver()
    own = [timestep for timestep in solver.timesteps.tolist() if timestep >= 875]
    np.testing.assert_array_equal(samples[TIMESTEPS], np.array(own, np.float32))
    assert fused.program.model is not None
    height, width, frames = stage.shapes[0]
    shape = fused.program.model.latent_shape(height=height, width=width, frames=frames)
    np.testing.assert_array_equal(samples[LATENTS][0], initial_noise(shape, SEED))


def test_clips_take_prompts_in_turn(fused: Fused, calibrate: Run, texts: Files, tmp_path: Path) -> None:
    few = tmp_path / RESULT
    safetensors.write(few, {TENSOR: SafetensorsFile(texts[RESULT])[TENSOR][-3:]})
    stage = replace(stage_of(fused, HIGH), timestep_bins=1)
    assert [samples[PROMPT].tolist() for samples in calibrate(stage, texts={RESULT: few})] == [[0], [1], [0]]


def test_a_clip_that_is_there_is_not_sampled_again(fused: Fused, calibrate: Run, tmp_path: Path) -> None:
    """What it holds is not even looked at: it is what was kept."""
    scratch = tmp_path / "run" / "scratch"
    scratch.mkdir(parents=True)
    given = {LATENTS: np.zeros((1, 2), np.float32), TIMESTEPS: np.ones(1, np.float32), PROMPT: np.zeros(1, np.int64)}
    keep(scratch / clip_file(1), lambda path: safetensors.write(path, given))
    (scratch / clip_file(2)).with_suffix(".part").write_bytes(b"half of it")
    stage = replace(stage_of(fused, HIGH), timestep_bins=1)
    clips = calibrate(stage)
    np.testing.assert_array_equal(clips[1][LATENTS], given[LATENTS])
    fresh = calibrate(stage, "fresh")
    for clip in (0, 2):
        np.testing.assert_array_equal(clips[clip][LATENTS], fresh[clip][LATENTS])
    assert fresh[1][LATENTS].shape != given[LATENTS].shape


def test_a_clip_that_is_not_what_was_kept_is_sampled_again(
    fused: Fused, calibrate: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = replace(stage_of(fused, HIGH), timestep_bins=1)
    calibrate(stage)
    right = [(tmp_path / "run/out" / clip_file(clip)).read_bytes() for clip in range(CLIPS)]
    scratch = tmp_path / "run/scratch"
    first, second, third = (scratch / clip_file(clip) for clip in range(CLIPS))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    second.rename(tmp_path / "aside")
    third.rename(second)
    (tmp_path / "aside").rename(third)
    (tmp_path / "run/out").rename(tmp_path / "run/before")
    shutil.rmtree(tmp_path / "run/before")
    calibrate(stage)
    assert [(tmp_path / "run/out" / clip_file(clip)).read_bytes() for clip in range(CLIPS)] == right
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is not what was kept: it is made again" for path in (first, second, third)
    ]


def test_the_low_noise_expert_is_behind_the_programs_high_noise_expert(
    fused: Fused, calibrate: Run, tmp_path: Path
) -> None:
    """Another model in its place leaves other latents; the noise that it begins with is the same."""
    program = fused.program
    swapped = {**program.components, HIGH: program.components[LOW]}
    replace(program, components=swapped).write(tmp_path)
    inputs = {**fused.inputs["program"], FILE: tmp_path / FILE}
    low, high = (replace(stage_of(fused, name), clips=1) for name in (LOW, HIGH))
    (plain,), (changed,) = calibrate(low, "plain"), calibrate(low, "changed", program=inputs)
    np.testing.assert_array_equal(plain[TIMESTEPS], changed[TIMESTEPS])
    assert all(relative_error(*pair) > 0.01 for pair in zip(changed[LATENTS], plain[LATENTS], strict=True))
    # And it is not executed where only the high-noise expert is asked for.
    components = {name: entry for name, entry in program.components.items() if name != LOW}
    replace(program, components=components).write(tmp_path)
    assert calibrate(high, "high", program=inputs)


def test_latents_that_are_not_finite_are_the_models_fault(
    fused: Fused, calibrate: Run, texts: Files, tmp_path: Path
) -> None:
    spoilt = np.array(SafetensorsFile(texts[RESULT])[TENSOR])
    spoilt[1] = np.nan
    safetensors.write(tmp_path / RESULT, {TENSOR: spoilt})
    stage = replace(stage_of(fused, LOW), timestep_bins=1)
    with pytest.raises(CheckpointError, match=f"{HIGH}: the latents of clip 1 are not finite at timestep"):
        calibrate(stage, texts={RESULT: tmp_path / RESULT})
    assert sorted(path.name for path in (tmp_path / "run/scratch").iterdir()) == [clip_file(0), f"{clip_file(0)}.kept"]


@pytest.mark.parametrize(("component", "boundary"), [(HIGH, 2.0), (LOW, 0.0)])
def test_an_expert_that_never_works(fused: Fused, calibrate: Run, component: str, boundary: float) -> None:
    """Which a recipe may allow."""
    stage = stage_of(fused, component)
    stage = replace(stage, trajectory=replace(stage.trajectory, boundary=boundary))
    with pytest.raises(UserError, match=f"none of the recipe's timesteps is for {component}") as caught:
        calibrate(stage)
    assert caught.value.hint
