"""What fusing and hoisting change of a bundle, how often things are computed, and what they do not: the video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wanc.bench.reference import psnr, relative_error
from wanc.runtime.executor import Executor
from wanc.runtime.golden import EXPECTED, FOLDER, INPUTS, named
from wanc.runtime.pipeline import Pipeline, choose_expert
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.selftest import relative_error as graph_error
from wanc.runtime.solvers.create import create_solver
from wanc.runtime.video_bundle import VideoBundle

from .conftest import MakeVariant, RunPy, Variant

PROMPT = "A red circle moves to the left."
STEPS = 50
SEED = 3
EXPERTS = ("denoiser_high", "denoiser_low")

# The same sums in another order, over fifty guided steps.
MOST_LATENT_ERROR = 1e-5
LEAST_PSNR = 45.0
# Products of 8 bits are off by some 0.3 %, and fifty steps add up a part of it; noise of one level everywhere is 48 dB.
LEAST_PSNR_BFLOAT16 = 40.0


class Result:
    """A bundle, its video, and how often each graph was executed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        pipeline = Pipeline.open(root)
        generated = pipeline.generate(PROMPT, seed=SEED, frames=5, steps=STEPS)
        self.latents, self.frames = generated.latents, generated.frames
        self.executions = {name: int(entry["executions"]) for name, entry in pipeline.executor.counters().items()}


@pytest.fixture(scope="module")
def result(variant: MakeVariant) -> Callable[..., Result]:
    """What a variant of tiny-wan gives: `result("name", "engine.kind=openvino")`, made once."""
    results: dict[str, Result] = {}

    def of(name: str, *overrides: str) -> Result:
        if name not in results:
            made: Variant = variant(name, *overrides)
            results[name] = Result(made.root)
        return results[name]

    return of


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path) -> Result:
    """The recipe as it is: fused and hoisted."""
    return Result(tiny_bundle)


def test_what_is_known_is_computed_once(plain: Result) -> None:
    """Prompts once for each expert and branch, sizes once for each expert, timesteps once each, and steps for both."""
    bundle = VideoBundle.open(plain.root)
    sampling = bundle.sampling
    solver = create_solver(sampling.solver, shift=sampling.shift, steps=STEPS, timesteps=None)
    experts = [choose_expert(bundle.model, sampling, float(t)).component for t in solver.timesteps]
    counts = {name: experts.count(name) for name in EXPERTS}
    own = create_solver(sampling.solver, shift=sampling.shift, steps=sampling.steps, timesteps=None)
    tabled = set(own.timesteps.tolist())
    new = Counter(expert for expert, t in zip(experts, solver.timesteps.tolist(), strict=True) if t not in tabled)
    assert 0 < new.total() < STEPS
    assert sum(counts.values()) == STEPS and all(counts.values())
    wanted = {"text_encoder/encode": 2, "vae_decoder/first": 1, "vae_decoder/steady": 1}
    for name, count in counts.items():
        wanted |= {f"{name}/request": 2, f"{name}/shape": 1, f"{name}/time": new[name], f"{name}/step": 2 * count}
    assert plain.executions == wanted


def test_timesteps_of_the_recipe_are_looked_up(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed for them, and what is found is what the graph would have given."""
    pipeline = Pipeline.open(tiny_bundle)
    looked_up = pipeline.generate(PROMPT, seed=SEED, frames=1)
    assert [name for name in pipeline.executor.counters() if name.endswith("/time")] == []
    monkeypatch.setattr(VideoBundle, "tables", lambda *_: {})
    pipeline = Pipeline.open(tiny_bundle)
    computed = pipeline.generate(PROMPT, seed=SEED, frames=1)
    counters = pipeline.executor.counters()
    executions = sum(counters[f"{name}/time"]["executions"] for name in EXPERTS)
    assert executions == pipeline.bundle.sampling.steps
    assert relative_error(looked_up.latents, computed.latents) <= MOST_LATENT_ERROR


def test_a_second_request_is_computed_for_itself(tiny_bundle: Path) -> None:
    """Nothing of the first is left: neither its prompt nor its size."""
    pipeline = Pipeline.open(tiny_bundle)
    pipeline.generate(PROMPT, seed=SEED, frames=5, steps=2)
    again = pipeline.generate("一个蓝色的正方形向上移动。", seed=SEED, frames=1, steps=2)
    alone = Pipeline.open(tiny_bundle).generate("一个蓝色的正方形向上移动。", seed=SEED, frames=1, steps=2)
    np.testing.assert_array_equal(again.latents, alone.latents)
    counters = pipeline.executor.counters()
    assert [counters[f"denoiser_high/{graph}"]["executions"] for graph in ("request", "shape")] == [4, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [("fuse.hoist=[]",), ("fuse.passes=[]",), ("fuse.hoist=[]", "fuse.passes=[]")],
    ids=["not hoisted", "not fused", "neither"],
)
def test_the_video_is_that_of_the_graphs_as_exported(
    plain: Result, result: Callable[..., Result], overrides: tuple[str, ...]
) -> None:
    other = result(f"plain-{len(overrides)}-{overrides[0][5:9]}", *overrides)
    graphs = {key.partition("/")[2] for key in other.executions if key.startswith("denoiser")}
    assert "step" in graphs
    assert (graphs == {"step"}) == ("fuse.hoist=[]" in overrides)
    assert plain.frames.std() > 5, "a blank video proves nothing"
    assert relative_error(plain.latents, other.latents) <= MOST_LATENT_ERROR
    assert psnr(plain.frames, other.frames) >= LEAST_PSNR


@pytest.mark.parametrize(
    ("name", "overrides", "least"),
    [
        pytest.param("openvino", ["engine.kind=openvino"], LEAST_PSNR, id="fp32", marks=pytest.mark.slow),
        pytest.param(
            "bf16",
            ["engine.kind=openvino", "precision.compute=bf16"],
            LEAST_PSNR_BFLOAT16,
            id="bf16",
            marks=pytest.mark.slow,
        ),
    ],
)
class TestOpenVino:
    """Bundles of the other engine."""

    def test_its_video_is_that_of_onnxruntime(
        self, plain: Result, result: Callable[..., Result], name: str, overrides: list[str], least: float
    ) -> None:
        other = result(name, *overrides)
        assert other.executions == plain.executions
        assert psnr(other.frames, plain.frames) >= least

    def test_it_asks_for_its_engine_alone(
        self, result: Callable[..., Result], name: str, overrides: list[str], least: float
    ) -> None:
        root = result(name, *overrides).root
        packages = [line.partition("==")[0] for line in (root / "requirements.txt").read_text().splitlines()]
        assert "openvino" in packages and "onnxruntime" not in packages
        assert {path.suffix for path in (root / "engines").rglob("*.s0.cpu.*")} == {".xml", ".bin"}

    def test_it_tests_itself(
        self, result: Callable[..., Result], run_py: RunPy, name: str, overrides: list[str], least: float
    ) -> None:
        finished = run_py(result(name, *overrides).root, "--selftest")
        assert (finished.code, finished.err) == (0, "")


@pytest.mark.slow
def test_single_steps_agree_to_float32(plain: Result, result: Callable[..., Result]) -> None:
    """Each graph that both bundles have: what one of the engines gives for the other's golden inputs."""
    inputs, expected = (SafetensorsFile(plain.root / FOLDER / file) for file in (INPUTS, EXPECTED))
    bundle = VideoBundle.open(result("openvino", "engine.kind=openvino").root)
    assert bundle.engines.keys() == VideoBundle.open(plain.root).engines.keys()
    executor = Executor(bundle.folder, bundle.engines, threads=1)
    for component, graph in bundle.engines:
        outputs = executor.run(component, graph, named(inputs, component, graph))
        for name, array in named(expected, component, graph).items():
            # The self-test's error, because caches of the first chunk are zeros.
            assert graph_error(outputs[name].numpy(), array) <= MOST_LATENT_ERROR, f"{component}/{graph}: {name}"
