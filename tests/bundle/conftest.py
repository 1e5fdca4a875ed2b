"""What the tests of bundles share: variants of tiny-wan, copies to break, and a bundle's own command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.recipe.schema import Recipe
from wanc.runtime import bundle as bundle_module
from wanc.runtime.main import main

from ..conftest import Finished


@dataclass(frozen=True)
class Variant:
    """A bundle, and the recipe that it was built from."""

    recipe: Recipe
    root: Path


WITHIN = ("partition.cut=blocks", "runtime.budgets.device=160MiB")
MakeVariant = Callable[..., Variant]
RunPy = Callable[..., Finished]


@pytest.fixture(scope="session")
def variant(tiny_recipe: Path, tiny_bundle: Path) -> MakeVariant:
    """Builds tiny-wan with some settings changed: `variant("euler", "sampling.solver=euler")`.

    The engines come from the store beside `tiny_bundle`, so that only the seal is made again.
    """

    def make(name: str, *overrides: str) -> Variant:
        (loaded,) = load(tiny_recipe, [f"name={name}", *overrides])
        return Variant(loaded.recipe, build(loaded, tiny_bundle.parents[1], progress=False).bundle)

    return make


@pytest.fixture(scope="session")
def few_step(variant: MakeVariant) -> Variant:
    """A bundle of the kind that few-step distilled models make: listed timesteps, no guidance."""
    return variant(
        "few-step",
        "sampling.steps=null",
        "sampling.timesteps=[1000, 750, 500, 250]",
        "sampling.shift=5.0",
        "sampling.guidance={high: 1, low: 1}",
    )


@pytest.fixture(scope="session")
def within(variant: MakeVariant) -> Variant:
    """A bundle within a budget of memory, in which all of it finds room: runs get smaller ones."""
    return variant("within", *WITHIN)


@pytest.fixture
def own_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def unworked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle is not even verified: what is refused is refused before the work."""

    def never(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(bundle_module, "verified", never)


@pytest.fixture
def run_py(capfd: pytest.CaptureFixture[str]) -> RunPy:
    """Runs the command line of a bundle's run.py in this process: `run_py(root, "--prompt", "…", "-o", path)`."""

    def run(root: Path, *arguments: object) -> Finished:
        capfd.readouterr()
        try:
            code = main(root, [str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            assert isinstance(stop.code, int)
            code = stop.code
        return Finished(code, *capfd.readouterr())

    return run
