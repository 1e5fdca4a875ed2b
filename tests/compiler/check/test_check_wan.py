"""A checkpoint's build is compared with diffusers' and transformers' modules; faults planted on its road fail it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.builder import Project
from wanc.compiler.check.compare import relative
from wanc.errors import EXIT_REFUSED, UserError, render
from wanc.recipe.load import load
from wanc.runtime.manifest import Manifest

from .executed_wan import trials_of
from .planted_wan import build_with

EXPORT = "It differs from the export on"
ANYWAY = "hint: tell us what model it is; until then engine.check: off builds it as it is"


def refusal(project: Project, folder: Path, *, export: str | None = None, fuse: str | None = None) -> list[str]:
    """What a build says that begins with the project's export."""
    store = Path(shutil.copytree(project.output / "store", folder / "store"))
    with pytest.raises(UserError) as caught:
        build_with(project.load("fuse.passes=[]"), store, export=export, fuse=fuse)
    assert caught.value.exit_code == EXIT_REFUSED
    return render(caught.value).splitlines()


def test_every_graph_was_compared_at_the_golden_sizes_and_at_others(project: Project) -> None:
    check = Manifest.read(project.result.bundle).check
    assert (check["mode"], check["against"]) == ("on", "diffusers and transformers, eager")
    graphs: Any = check["graphs"]
    assert graphs.keys() == {
        "denoiser_high/step", "denoiser_low/step", "text_encoder/encode", "vae_decoder/first", "vae_decoder/steady",
    }  # fmt: skip
    for name, graph in graphs.items():
        assert (graph["compared"], graph["random"]) == ({"engine": "float32"}, [])
        assert len({str(trial["sizes"]) for trial in graph["trials"]}) >= 2, name
        # Far below what is allowed: two ways to sum in float32.
        assert all(0 < trial["errors"]["engine"] < 1e-5 for trial in graph["trials"]), name


@pytest.mark.parametrize("component", ["denoiser_high", "text_encoder", "vae_decoder"])
def test_the_source_moves_a_little_where_all_that_enters_it_does(component: str, project: Project) -> None:
    for trial in trials_of(project.root / "model", component):
        moved = trial.moved()
        assert moved.keys() == trial.outputs.keys()
        for name, array in trial.outputs.items():
            assert moved[name].shape == array.shape and array.dtype == np.float32
            assert 0 < relative(moved[name], array) < 1e-4, name


@pytest.mark.parametrize(
    ("fault", "where", "output"),
    [
        ("values for keys", "denoiser_high/step", "velocity"),
        pytest.param("gates exchanged", "text_encoder/encode", "hidden", marks=pytest.mark.slow),
        pytest.param("residual blocks exchanged", "vae_decoder/first", "frames", marks=pytest.mark.slow),
        pytest.param("caches not kept", "vae_decoder/first", "next_0", marks=pytest.mark.slow),
    ],
)
def test_a_fault_of_the_export_is_the_export_s(
    fault: str, where: str, output: str, project: Project, tmp_path: Path
) -> None:
    message, hint = refusal(project, tmp_path, export=fault)
    assert message.startswith(f"error: {where} is not what its source computes: {output} differs by ")
    assert message.endswith(EXPORT)
    assert hint == ANYWAY


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("another split", "denoiser_high/step"),
        pytest.param("another epsilon", "denoiser_high/step", marks=pytest.mark.slow),
        pytest.param("a cache forgotten", "vae_decoder/steady", marks=pytest.mark.slow),
    ],
)
def test_a_fault_of_a_pass_is_the_pass_s(fault: str, where: str, project: Project, tmp_path: Path) -> None:
    message, hint = refusal(project, tmp_path, fuse=fault)
    assert message.startswith(f"error: {where} is not what its source computes: ")
    assert message.endswith("It differs from the pass planted of fuse on")
    assert hint == "hint: leave it out, and tell us: fuse.skip: [planted]"


@pytest.mark.slow
def test_two_blocks_that_stand_for_each_other_are_seen(tiny_recipe: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (loaded,) = load(tiny_recipe, ["fuse.passes=[]"])
    store = Path(shutil.copytree(tiny_bundle.parents[1] / "store", tmp_path / "store"))
    with pytest.raises(UserError) as caught:
        build_with(loaded, store, export="blocks exchanged")
    message = caught.value.message
    assert message.startswith("denoiser_high/step is not what its source computes: velocity differs by ")
    assert message.endswith(EXPORT)
