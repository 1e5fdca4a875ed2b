"""Which stages quantising takes, in which order, and what makes each of them run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from wanc.artifacts.canonical import key_of
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.quantization import Quantization
from wanc.compiler.resolve import Resolved, resolve
from wanc.compiler.stage import Stage, Tree
from wanc.errors import NotBuiltYetError
from wanc.recipe import load

ALL = ["texts", "calibrate denoiser_high", "quantize denoiser_high", "calibrate denoiser_low", "quantize denoiser_low"]
TEXTS, CALIBRATE_HIGH, QUANTIZE_HIGH, CALIBRATE_LOW, QUANTIZE_LOW = ALL
DECISIONS = [QUANTIZE_HIGH, CALIBRATE_LOW, QUANTIZE_LOW]
TRAJECTORIES = ALL[1:]


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


def keys(quantization: Quantization | None, program: str = "program") -> dict[str, str]:
    """The stages in their order with the keys of their actions, where a result is as new as its key."""
    found: dict[str, str] = {}

    def run(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
        key = key_of(stage.key_document(inputs))
        found[" ".join([stage.name, getattr(stage, "component", "")]).strip()] = key
        return tree(key)

    assert quantization is not None
    quantization.run(run, tree(program), tree("exported"), tree("source"))
    return found


def test_experts_are_quantised_in_the_order_in_which_they_work(store: Store) -> None:
    assert list(keys(Quantization.of(resolved(store)))) == ALL


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("version=0.2.0", []),
        ("engine.kind=openvino", []),
        ("quantize.keep.patterns=[proj_out]", DECISIONS),
        ("quantize.scheme=int8-weight", DECISIONS),
        ("quantize.smooth.alpha=0.5", DECISIONS),
        ("quantize.calibrate.observer=absmax", DECISIONS),
        ("quantize.calibrate.seed=1", TRAJECTORIES),
        ("quantize.calibrate.timestep_bins=3", TRAJECTORIES),
        ("sampling.steps=10", TRAJECTORIES),
        ("sampling.guidance.high=4.0", TRAJECTORIES),
        ("sampling.boundary=0.9", TRAJECTORIES),
        ("shapes=[{name: 64p, height: 64, width: 64, frames: 17}]", TRAJECTORIES),
        ("sampling.negative_prompt=blur", ALL),
        ("quantize.calibrate.clips=2", ALL),
    ],
)
def test_what_runs_again(store: Store, override: str, again: list[str]) -> None:
    before = keys(Quantization.of(resolved(store)))
    after = keys(Quantization.of(resolved(store, override)))
    assert [name for name, key in after.items() if before[name] != key] == again


def test_another_program_runs_everything_again(store: Store) -> None:
    quantization = Quantization.of(resolved(store))
    assert not set(keys(quantization).values()) & set(keys(quantization, "another").values())


def test_no_scheme_takes_no_stages(store: Store) -> None:
    assert Quantization.of(resolved(store, recipe="tiny-wan")) is None


def test_texts_are_those_of_the_clips_and_the_negative_prompt(store: Store) -> None:
    recipe = resolved(store, "quantize.calibrate.clips=2", "sampling.negative_prompt=blur")
    quantization = Quantization.of(recipe)
    assert quantization is not None
    assert quantization.texts.prompts == (*recipe.prompts[:2], "blur")
    assert {"onnxruntime", "tokenizers"} <= set(quantization.tools)


@pytest.mark.parametrize(("low", "branches"), [("1", 1), ("2.5", 2)])
def test_without_guidance_there_is_one_branch(store: Store, low: str, branches: int) -> None:
    quantization = Quantization.of(resolved(store, f"sampling.guidance.low={low}"))
    assert quantization is not None
    assert [quantize.branches for _, quantize in quantization.experts] == [2, branches]


@pytest.mark.parametrize(
    ("override", "what"),
    [("quantize.method=qat", "quantize.method: qat"), ("quantize.keep.sensitivity={max_drop_db: 0.5}", "sensitivity")],
)
def test_what_cannot_be_asked_for_yet(store: Store, override: str, what: str) -> None:
    with pytest.raises(NotBuiltYetError, match=what):
        Quantization.of(resolved(store, override))
