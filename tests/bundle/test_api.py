"""wanc from Python, and a bundle's own runtime without wanc."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wanc as package
from wanc.errors import BundleError, RecipeError, UserError
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline

from .conftest import RunPy, Variant

PROMPT = "A red circle moves to the left."


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return package.open(tiny_bundle)


def test_a_built_recipe_is_found_in_the_store(tiny_recipe: Path, tiny_bundle: Path) -> None:
    result = package.build(tiny_recipe, output=tiny_bundle.parents[1])
    assert (result.bundle, result.id) == (tiny_bundle, package.open(str(tiny_bundle)).bundle.manifest.id)
    assert all(run.cached for run in result.stages if run.name != "resolve")


def test_values_that_are_set_are_the_recipe_s(tiny_recipe: Path, tiny_bundle: Path) -> None:
    settings = {"name": "set", "sampling.negative_prompt": 'a "blur", #1', "sampling.shift": 3.5, "sampling.steps": 3}
    result = package.build(str(tiny_recipe), output=str(tiny_bundle.parents[1]), set=settings)
    sampling = package.open(result.bundle).bundle.sampling
    assert (sampling.negative_prompt, sampling.shift, sampling.steps) == ('a "blur", #1', 3.5, 3)


def test_a_matrix_has_variants(tiny_recipe: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"extends: {tiny_recipe}\nname: many\nmatrix: {{few: {{sampling.steps: 6}}, more: {{}}}}\n")
    with pytest.raises(RecipeError) as caught:
        package.build(recipe, output=tiny_bundle.parents[1])
    assert (caught.value.message, caught.value.hint) == (
        "it has several variants: many-few, many-more",
        "name one as variant, or call wanc.build_variants",
    )
    results = package.build_variants(recipe, output=tiny_bundle.parents[1])
    assert [result.bundle.name for result in results] == ["many-few", "many-more"]


def test_a_video_that_is_saved_is_the_one_that_run_py_writes(
    pipeline: Pipeline, tiny_bundle: Path, run_py: RunPy, tmp_path: Path
) -> None:
    result = pipeline.generate(PROMPT, seed=7, frames=5, steps=2)
    assert result.frames.shape == (5, 64, 64, 3) and result.frames.dtype == np.uint8
    assert result.latents.shape == (1, 16, 2, 8, 8)
    assert set(result.seconds) == {"text", "denoise", "decode"}
    result.save(tmp_path / "saved.mp4")
    options = ("--seed", "7", "--frames", "5", "--steps", "2")
    assert run_py(tiny_bundle, "--prompt", PROMPT, *options, "-o", tmp_path / "run.mp4").code == 0
    assert (tmp_path / "saved.mp4").read_bytes() == (tmp_path / "run.mp4").read_bytes()


def test_latents_replace_the_seed(pipeline: Pipeline) -> None:
    seeded = pipeline.generate(PROMPT, seed=3, frames=5, steps=1)
    given = pipeline.generate(PROMPT, latents=initial_noise((1, 16, 2, 8, 8), 3), frames=5, steps=1)
    np.testing.assert_array_equal(given.frames, seeded.frames)


def test_progress_is_told_phase_by_phase(tiny_bundle: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def on_progress(phase: str, done: int, total: int) -> None:
        told.append((phase, done, total))

    opened = package.open(tiny_bundle, on_progress=on_progress)
    size = sum(file.size for file in opened.bundle.manifest.files)
    assert {(phase, total) for phase, _, total in told} == {("verify", size)}
    assert told[-1][1] == size
    told.clear()
    opened.generate(PROMPT, frames=9, steps=2, on_progress=on_progress)
    assert told == [
        ("text", 0, 2),
        ("text", 2, 2),
        *(("denoise", done, 2) for done in range(3)),
        *(("decode", done, 3) for done in range(4)),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 6}, "6 frames cannot be made: the first latent frame gives one frame, each other one 4"),
        ({"seed": "one"}, "seed is 'one', not a whole number"),
        ({"seed": None}, "seed is None, not a whole number"),
    ],
)
def test_what_cannot_be_made_is_a_user_error(pipeline: Pipeline, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        pipeline.generate(PROMPT, **options)
    assert caught.value.message == message


def test_a_bundle_for_videos_is_no_graph(tiny_bundle: Path, few_step: Variant) -> None:
    with pytest.raises(BundleError, match="the bundle's task is 'text-to-video', not 'graph'"):
        package.open_graph(tiny_bundle)
    with pytest.raises(BundleError):
        package.open(few_step.root / "engines")


@pytest.mark.parametrize("door", [package.open, package.open_service])
def test_how_graphs_are_executed_is_asked_for_at_every_door(door: Callable[..., Any], tiny_bundle: Path) -> None:
    with pytest.raises(UserError, match="a time-out for workers has no effect: this bundle is placed on one device"):
        door(tiny_bundle, worker_timeout=5.0)
    with pytest.raises(UserError, match="there are no processes of workers"):
        door(tiny_bundle, workers="processes")
    with pytest.raises(TypeError, match="unexpected keyword argument 'thread'"):
        door(tiny_bundle, thread=1)


# Without wanc

ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from runtime.api import open
result = open(sys.argv[1]).generate("A red circle moves to the left.", seed=7, frames=5, steps=2)
result.save(sys.argv[2])
foreign = [name for name in sys.modules if name.split(".")[0] in ("wanc", "torch")]
print(json.dumps([list(result.frames.shape), foreign]))
"""


def alone(bundle: Path, video: Path) -> subprocess.CompletedProcess[str]:
    """Run a bundle from Python, where wanc is not looked for and Python keeps its bytecode."""
    return subprocess.run(
        [sys.executable, "-P", "-c", ALONE, bundle, video],
        cwd=bundle.parent,
        env={},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_runtime_of_a_bundle_is_enough(pipeline: Pipeline, tiny_bundle: Path, tmp_path: Path) -> None:
    before = sorted(tiny_bundle.rglob("*"))
    finished = alone(tiny_bundle, tmp_path / "out.mp4")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(finished.stdout) == [[5, 64, 64, 3], []]
    pipeline.generate(PROMPT, seed=7, frames=5, steps=2).save(tmp_path / "ours.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "ours.mp4").read_bytes()
    assert sorted(tiny_bundle.rglob("*")) == before


def test_python_keeps_no_bytecode_in_a_bundle(own_copy: Path, tmp_path: Path) -> None:
    """Of none of its modules, `run.py` included, and so a second run finds it as it was."""
    modules = [path.relative_to(own_copy).with_suffix("").as_posix() for path in own_copy.rglob("*.py")]
    names = [module.removesuffix("/__init__").replace("/", ".") for module in sorted(modules)]
    code = f"import importlib, sys; sys.path.insert(0, sys.argv[1]); [importlib.import_module(n) for n in {names}]"
    subprocess.run([sys.executable, "-P", "-c", code, own_copy], env={}, check=True, timeout=100)
    finished = alone(own_copy, tmp_path / "out.mp4")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert not list(own_copy.rglob("*.pyc"))
