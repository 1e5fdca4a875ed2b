"""What the tests of bundles share: variants of tiny-wan, copies to break, and a bundle's own command line."""

from __future__ import annotations

import fcntl
import json
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

from ..conftest import ROOT, Finished


@dataclass(frozen=True)
class Variant:
    """A bundle, and the recipe that it was built from."""

    recipe: Recipe
    root: Path


WITHIN = ("partition.cut=blocks", "runtime.budgets.device=160MiB")
CAUSAL_WITHIN = ("partition.cut=2", "runtime.budgets.device=160MiB")
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


CAUSAL = """\
wanc: 1
name: causal
model: {{source: {source}, family: wan-causal, companion: {companion}}}
shapes: [{{name: 64p, height: 64, width: 64, frames: 17}}]
sampling: {{solver: unipc, steps: 2, shift: 4.0, guidance: {{high: 3.0, low: 3.0}}}}
runtime: {{kv_cache: {{chunk: 1, window: 2, sink: 1}}}}
"""


@pytest.fixture(scope="session")
def causal_recipe(together: Path) -> Path:
    """Of the experts of tiny-wan, as a fine-tune that makes videos chunk by chunk would come: denoisers alone."""
    companion, folder = ROOT / "models" / "tiny-wan", together / "causal"
    recipe = folder / "recipe.yaml"
    with (together / "causal.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not recipe.exists():
            _write_causal_experts(companion, folder)
            recipe.write_text(CAUSAL.format(source=folder, companion=companion))
    return recipe


def _write_causal_experts(companion: Path, folder: Path) -> None:
    kind = "CausalWanTransformer3DModel"
    index: dict[str, object] = {"_class_name": "WanCausalPipeline", "boundary_ratio": 0.875}
    for name in ("transformer", "transformer_2"):
        index[name] = ["diffusers", kind]
        shutil.copytree(companion / name, folder / name)
        config = json.loads((companion / name / "config.json").read_bytes())
        (folder / name / "config.json").write_text(json.dumps({**config, "_class_name": kind}))
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def causal_bundle(causal_recipe: Path, together: Path) -> Path:
    """A bundle of two causal experts. Tests read it and never change it.

    It is in the store of `tiny_bundle`: the text encoder and the decoder are the same.
    """
    (loaded,) = load(causal_recipe)
    return build(loaded, together / "tiny", progress=False).bundle


@pytest.fixture(scope="session")
def pairwise_bundle(causal_recipe: Path, causal_bundle: Path) -> Path:
    """The same with chunks of two latent frames, so that the last one of an odd number is shorter."""
    (loaded,) = load(causal_recipe, ["name=causal-pairs", "runtime.kv_cache.chunk=2"])
    return build(loaded, causal_bundle.parents[1], progress=False).bundle


@pytest.fixture(scope="session")
def causal_within(causal_recipe: Path, causal_bundle: Path) -> Path:
    """The same in two pieces, within a budget of memory in which all of it finds room: runs get smaller ones."""
    (loaded,) = load(causal_recipe, ["name=causal-within", *CAUSAL_WITHIN])
    return build(loaded, causal_bundle.parents[1], progress=False).bundle


@pytest.fixture(scope="session")
def relative_bundle(causal_recipe: Path, causal_bundle: Path) -> Path:
    """That with positions which are relative to what is in sight."""
    overrides = ["name=causal-relative", "runtime.kv_cache.chunk=2", "runtime.kv_cache.positions=relative"]
    (loaded,) = load(causal_recipe, overrides)
    return build(loaded, causal_bundle.parents[1], progress=False).bundle


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
