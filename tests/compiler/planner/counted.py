"""Wan2.2-T2V-A14B's costs as the planner has them: of the surveys that ship, at the sizes of its published times."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.recipe_costs import video_costs
from wanc.compiler.planner.survey import Survey, shipped, survey_key
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.recipe.load import load

PROJECT = Path(__file__).resolve().parents[3]
A14B = "wan2.2-t2v-a14b"
TYPED = ("precision.compute=bf16", "engine.kind=tensorrt", "engine.targets=[sm80, sm90]")
ISLANDS = "precision.islands=[residual, modulation, norm, rope, time, vae]"
PUBLISHED_AS = (*TYPED, ISLANDS)
"""All islands, the decoder's among them: as the published times were measured."""


def sparse(model: str, folder: Path) -> Path:
    """A checkpoint of which every header and size is real, and every weight zero."""
    made = folder / model
    if not made.exists():
        make(MODELS[model], "diffusers", made, seed=0, sparse=True)
    return made


@cache
def surveys_of(root: Path) -> dict[str, Survey]:
    checkpoint = open_checkpoint(root)
    fuse = {"passes": None, "skip": (), "hoist": ("time", "shape", "request", "chunk")}
    found = {
        name: shipped(survey_key(name, component.config, checkpoint.text_length, fuse))
        for name, component in checkpoint.components.items()
    }
    assert all(found.values()), "a survey that should ship does not"
    return {name: survey for name, survey in found.items() if survey is not None}


def costs(root: Path, shape: str, *overrides: str) -> VideoCosts:
    """Of the recipe that is there for it."""
    given = [f"model.source={root}", *(overrides or PUBLISHED_AS)]
    (loaded,) = load(PROJECT / "recipes" / f"{A14B}.yaml", given)
    (found,) = [entry for entry in loaded.recipe.shapes or () if entry.name == shape]
    checkpoint: Checkpoint = open_checkpoint(root)
    return video_costs(loaded.recipe, checkpoint, surveys_of(root), found)


@cache
def a14b(shape: str = "480p", linears: str = "bf16", decoder: str = "fp32") -> VideoCosts:
    """In bf16 with a decoder in fp32, or with another, or with its Linears in another format: `int8`, `fp8`."""
    typed = PUBLISHED_AS if decoder == "fp32" else TYPED
    scheme = () if linears == "bf16" else (f"quantize.scheme={linears}", "quantize.calibrate.prompts=p")
    with TemporaryDirectory() as folder:
        return costs(sparse(A14B, Path(folder)), shape, *typed, *scheme)
