"""The resolve stage: a recipe and its inputs → the lock, which pins everything that the build depends on.

It runs at every build, needs no torch, and finds what is wrong with the inputs before any work starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.canonical import digest_of
from wanc.artifacts.records import Blob
from wanc.artifacts.sources import SourceDigests
from wanc.compiler.stage import Tree, tool_version
from wanc.errors import CheckpointError, RecipeError
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.schema import Recipe
from wanc.runtime.progress import ProgressBar

# What a text-to-video bundle cannot do without. The low-noise expert is a matter of the model.
NEEDED = ("text_encoder", "denoiser_high", "vae_decoder")
TOOLS = (
    "python", "torch", "diffusers", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy",
    "tokenizers", "av", "ftfy",
)  # fmt: skip


@dataclass(frozen=True)
class Resolved:
    """A recipe with its inputs found and pinned."""

    recipe: Recipe
    source: Tree
    boundary: float | None
    lock: Mapping[str, Any]

    @property
    def recipe_digest(self) -> str:
        """The digest of the resolved recipe, wherever its files lie."""
        return digest_of(self.lock["recipe"])


def resolve(
    loaded: LoadedRecipe, sources: SourceDigests, passed_through: Mapping[str, str], *, progress: bool
) -> Resolved:
    """Open the checkpoint, hash what is used of it, and write everything down.

    `passed_through` names the stages that do nothing yet, with the reason. Raises RecipeError or CheckpointError.
    """
    recipe = loaded.recipe
    checkpoint = _open(loaded)
    blobs = _digests(checkpoint, sources, progress)
    source = Tree(
        {name: blob.digest for name, blob in blobs.items()},
        lambda: {name: checkpoint.root / name for name in blobs},
    )
    described = recipe.model_dump(mode="json")
    # Where the checkpoint lies says nothing about what is built: `inputs` holds what it is.
    del described["model"]["source"]
    lock = {
        "schema": "wanc.lock/1.0",
        "recipe": described,
        "inputs": {name: {"size": blob.size, "sha256": blob.digest} for name, blob in sorted(blobs.items())},
        "tools": {tool: tool_version(tool) for tool in TOOLS},
        "passed_through": dict(passed_through),
    }
    boundary = recipe.sampling.boundary if recipe.sampling.boundary is not None else checkpoint.boundary
    return Resolved(recipe, source, boundary, lock)


def _open(loaded: LoadedRecipe) -> Checkpoint:
    recipe = loaded.recipe
    if missing := [name for name in NEEDED if name not in recipe.model.components]:
        raise RecipeError(
            f"a text-to-video bundle needs the component {missing[0]}",
            where=loaded.marks.where("model.components"),
            hint="leave components out to build all of the model's",
        )
    try:
        return open_checkpoint(Path(recipe.model.source), tuple(recipe.model.components))
    except CheckpointError as error:
        # The reader wrote the recipe, not the checkpoint: say first which line led there.
        raise CheckpointError(
            "the model cannot be read", where=loaded.marks.where("model.source"), exit_code=error.exit_code
        ) from error


def _digests(checkpoint: Checkpoint, sources: SourceDigests, progress: bool) -> dict[str, Blob]:
    total = sum((checkpoint.root / name).stat().st_size for name in checkpoint.files)
    with ProgressBar("hash inputs", total, enabled=progress) as bar:
        return {name: sources.blob(checkpoint.root / name, bar.advance) for name in checkpoint.files}
