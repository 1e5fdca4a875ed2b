"""The reference of a recipe's report: made once, and kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.clips import clips_of
from wanc.compiler.kv_cache import cache_facts
from wanc.compiler.pipeline import export_stage
from wanc.compiler.quantize.experts import trajectory_of
from wanc.compiler.reference.stage import SampleReference
from wanc.compiler.resolve import Resolved, resolve
from wanc.compiler.stages.runner import Runner
from wanc.recipe.load import LoadedRecipe
from wanc.runtime.voice import say


def make_reference(loaded: LoadedRecipe, root: Path, *, progress: bool) -> tuple[str, Mapping[str, Path]]:
    """Sample the untouched model as a recipe says, unless the store at `root` has it; the stage's key, and its files.

    Raises RecipeError, CheckpointError, OutputError.
    """
    clips = clips_of(loaded)
    store = Store.open(root)
    with store.session(on_wait=say):
        runner = Runner(store, progress)
        resolved = resolve(loaded, SourceDigests(store), progress=progress)
        exported = runner.run(export_stage(resolved), {"source": resolved.layout})
        made = runner.run(_stage(resolved, clips), {"exported": exported, "source": resolved.source})
        key = runner.runs[-1].key
        assert key is not None
        # A cleaning of the store keeps it for as long as it is the recipe's.
        store.set_ref(f"{loaded.recipe.name[:100]}.reference", [key])
        return key, made.locate()


def _stage(resolved: Resolved, clips: tuple[tuple[str, int], ...]) -> SampleReference:
    recipe, cache = resolved.recipe, cache_facts(resolved.recipe)
    assert recipe.evaluate is not None and recipe.sampling is not None and recipe.shapes is not None
    assert resolved.tokenizer is not None, "a text-to-video model has a tokenizer"
    wanted = recipe.evaluate.shape or recipe.shapes[0].name
    shape = next(shape for shape in recipe.shapes if shape.name == wanted)
    return SampleReference(
        components=resolved.model.components,
        trajectory=trajectory_of(recipe.sampling, resolved.boundary),
        size=(shape.height, shape.width, shape.frames),
        clips=clips,
        negative_prompt=recipe.sampling.negative_prompt,
        draws=recipe.evaluate.draws,
        tokenizer=resolved.tokenizer,
        # In whatever a bundle keeps the past, the reference has it in float32.
        cache=cache and replace(cache, precision="fp32"),
    )
