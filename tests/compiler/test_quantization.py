"""Which stages quantising takes, in which order, and what makes each of them run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT
from wanc.artifacts.canonical import key_of
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.program.program import FILE, Program, ProgramComponent
from wanc.compiler.quantize.experts import QuantizeStages
from wanc.compiler.resolve import Resolved, resolve
from wanc.compiler.stages.stage import Stage, Tree
from wanc.errors import RecipeError
from wanc.models.weights import Weight
from wanc.recipe.load import load
from wanc.runtime.model import HIGH, LOW

ALL = ["texts", "calibrate denoiser_high", "quantize denoiser_high", "calibrate denoiser_low", "quantize denoiser_low"]
TEXTS, CALIBRATE_HIGH, QUANTIZE_HIGH, CALIBRATE_LOW, QUANTIZE_LOW = ALL
DECISIONS = [QUANTIZE_HIGH, CALIBRATE_LOW, QUANTIZE_LOW]
TRAJECTORIES = ALL[1:]
MODULES = ["patch_embedding", "condition_embedder.text_embedder.linear_1", "proj_out"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("store"))


def resolved(store: Store, *overrides: str, recipe: str = "tiny-wan-int8") -> Resolved:
    (loaded,) = load(ROOT / "recipes" / f"{recipe}.yaml", overrides)
    return resolve(loaded, SourceDigests(store, paranoid=False), progress=False)


def tree(digest: str) -> Tree:
    def never() -> Mapping[str, Path]:
        raise AssertionError("looked at, not read")

    return Tree({digest: digest}, never)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A program of which only the names of its parameters are looked at."""
    folder = tmp_path_factory.mktemp("program")
    component = ProgramComponent({}, {f"{name}.weight": Weight("weights", 0, 4, "FLOAT", (1,)) for name in MODULES})
    Program("text-to-video", None, dict.fromkeys((HIGH, LOW), component), None).write(folder)
    return Tree({"program": "program"}, lambda: {FILE: folder / FILE})


def keys(quantization: QuantizeStages | None, fused: Tree) -> dict[str, str]:
    """The stages in their order with the keys of their actions, where a result is as new as its key."""
    found: dict[str, str] = {}

    def run(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        key = key_of(stage.key_document(inputs))
        found[" ".join([stage.name, getattr(stage, "component", "")]).strip()] = key
        return tree(key)

    assert quantization is not None
    quantization.run(run, fused, tree("exported"), tree("source"))
    return found


def test_experts_are_quantised_in_the_order_in_which_they_work(store: Store, fused: Tree) -> None:
    assert list(keys(QuantizeStages.of(resolved(store)), fused)) == ALL


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("version=0.2.0", []),
        ("engine.kind=openvino", []),
        ("quantize.keep.patterns=[proj_out]", DECISIONS),
        ("quantize.scheme=int8-weight", DECISIONS),
        ("quantize.smooth.alpha=0.5", DECISIONS),
        ("quantize.calibrate.observer=mse", DECISIONS),
        ("quantize.calibrate.seed=1", TRAJECTORIES),
        ("quantize.calibrate.timestep_bins=3", TRAJECTORIES),
        ("quantize.calibrate.shapes=[{name: small, height: 32, width: 32, frames: 5}]", TRAJECTORIES),
        ("sampling.steps=10", TRAJECTORIES),
        ("sampling.guidance.high=4.0", TRAJECTORIES),
        ("sampling.boundary=0.9", TRAJECTORIES),
        ("shapes=[{name: 64p, height: 64, width: 64, frames: 17}]", TRAJECTORIES),
        ("sampling.negative_prompt=blur", ALL),
        ("quantize.calibrate.clips=2", ALL),
    ],
)
def test_what_runs_again(store: Store, fused: Tree, override: str, again: list[str]) -> None:
    before = keys(QuantizeStages.of(resolved(store)), fused)
    after = keys(QuantizeStages.of(resolved(store, override)), fused)
    assert [name for name, key in after.items() if before[name] != key] == again


CAUSAL = {
    "name": "int8",
    "quantize.scheme": "int8",
    "quantize.calibrate.prompts": ROOT / "recipes" / "prompts" / "tiny-wan-calibrate.txt",
}


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("quantize.scheme=int8-weight", [QUANTIZE_HIGH]),
        ("quantize.scheme=int4-weight", [QUANTIZE_HIGH]),
        ("quantize.scheme=int8-dynamic", [QUANTIZE_HIGH]),
        ("runtime.kv_cache.window=5", [CALIBRATE_HIGH, QUANTIZE_HIGH]),
        ("runtime.kv_cache.sink=1", [CALIBRATE_HIGH, QUANTIZE_HIGH]),
        ("runtime.kv_cache.precision=int8", [CALIBRATE_HIGH, QUANTIZE_HIGH]),
    ],
)
def test_what_of_a_causal_model_runs_again(store: Store, fused: Tree, override: str, again: list[str]) -> None:
    """Clips are made once for all schemes; what is seen of the past makes them others."""
    asked = [f"{key}={value}" for key, value in CAUSAL.items()]
    before, after = (
        keys(QuantizeStages.of(resolved(store, *asked, *more, recipe="tiny-wan-causal")), fused)
        for more in ([], [override])
    )
    assert [*before] == [TEXTS, CALIBRATE_HIGH, QUANTIZE_HIGH]
    assert [name for name, key in after.items() if before[name] != key] == again


def test_another_program_runs_everything_again(store: Store, fused: Tree) -> None:
    quantization = QuantizeStages.of(resolved(store))
    another = replace(fused, digests={"program": "another"})
    assert not set(keys(quantization, fused).values()) & set(keys(quantization, another).values())


def test_a_pattern_has_to_fit_in_one_expert(store: Store, fused: Tree) -> None:
    assert keys(QuantizeStages.of(resolved(store, "quantize.keep.patterns=[denoiser_low/proj_out]")), fused)


def test_a_pattern_that_fits_nothing_runs_nothing(store: Store, fused: Tree) -> None:
    quantization = QuantizeStages.of(resolved(store, "quantize.keep.patterns=[proj_out, blocks.7]"))
    assert quantization is not None

    def never(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        raise AssertionError(stage.name)

    with pytest.raises(RecipeError, match=r"blocks\.7 fits no module of denoiser_high or denoiser_low") as caught:
        quantization.run(never, fused, tree("exported"), tree("source"))
    assert caught.value.key == "quantize.keep.patterns.1"


def test_no_scheme_takes_no_stages(store: Store) -> None:
    assert QuantizeStages.of(resolved(store, recipe="tiny-wan")) is None


def test_texts_are_those_of_the_clips_and_the_negative_prompt(store: Store) -> None:
    recipe = resolved(store, "quantize.calibrate.clips=2", "sampling.negative_prompt=blur")
    quantization = QuantizeStages.of(recipe)
    assert quantization is not None
    assert quantization.texts.prompts == (*recipe.prompts[:2], "blur")
    assert {"onnxruntime", "tokenizers"} <= set(quantization.tools)


def test_every_expert_has_the_guidance_of_its_own(store: Store) -> None:
    quantization = QuantizeStages.of(resolved(store, "sampling.guidance={high: 4, low: 2.5}"))
    assert quantization is not None
    assert [stage.trajectory.guidance(stage.component) for stage, _, _ in quantization.experts] == [4, 2.5]


def test_training_comes_behind_quantising_an_expert(store: Store, fused: Tree) -> None:
    trained = keys(QuantizeStages.of(resolved(store, "quantize.method=qat")), fused)
    names = ["texts", *(f"{stage} {expert}" for expert in (HIGH, LOW) for stage in ("calibrate", "quantize", "train"))]
    assert list(trained) == names
    longer = keys(QuantizeStages.of(resolved(store, "quantize.method=qat", "quantize.train.rounds=5")), fused)
    assert [name for name in names if trained[name] != longer[name]] == names[names.index("train denoiser_high") :]


def test_sizes_to_calibrate_at_are_the_recipes_own_unless_given(store: Store) -> None:
    """Training takes the first of them."""
    sizes = "{name: a, height: 32, width: 32, frames: 5}, {name: b, height: 32, width: 48, frames: 9}"
    small = f"quantize.calibrate.shapes=[{sizes}]"
    for overrides, expected in (((), ((64, 64, 17), (64, 96, 17))), ((small,), ((32, 32, 5), (32, 48, 9)))):
        quantization = QuantizeStages.of(resolved(store, "quantize.method=qat", *overrides))
        assert quantization is not None
        for calibrate, _, train in quantization.experts:
            assert calibrate.shapes == expected
            assert train is not None and train.shape == expected[0]


def test_names_of_sizes_calibrate_nothing_again(store: Store, fused: Tree) -> None:
    small = "quantize.calibrate.shapes=[{{name: {}, height: 32, width: 32, frames: 5}}]"
    first, second = (keys(QuantizeStages.of(resolved(store, small.format(name))), fused) for name in ("a", "b"))
    assert first == second
