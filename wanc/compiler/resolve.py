"""The resolve stage: a recipe and its inputs, found and pinned by their digests.

It runs at every build, needs no torch, and finds what is wrong with the inputs before any work starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.canonical import digest_of
from wanc.artifacts.pins import PinnedFiles
from wanc.artifacts.records import Blob
from wanc.artifacts.sources import SourceDigests, changed
from wanc.compiler.clips import clips_of
from wanc.compiler.kv_cache import check_cache
from wanc.compiler.program.program import Task
from wanc.compiler.stages.stage import Tree
from wanc.compiler.stages.worker import call_in_worker
from wanc.compiler.video_document import check_video
from wanc.errors import CheckpointError, RecipeError, UserError
from wanc.models.source import NEEDED, ModelSource, open_source
from wanc.models.wan.lints import check_sampling
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.model import KINDS, ModelSection
from wanc.recipe.paths import FOLDER, path_hint
from wanc.recipe.prompts import read_prompts
from wanc.recipe.schema import Recipe
from wanc.runtime.progress import ProgressBar
from wanc.runtime.safetensors import header_bytes

ONE_EXPERT_HINT = (
    "a single expert has to be called transformer: rename the folder transformer_2, and write in model_index.json "
    '"transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [null, null], "boundary_ratio": null'
)


@dataclass(frozen=True)
class Resolved:
    """A recipe with its inputs found and pinned."""

    recipe: Recipe
    model: ModelSource
    blobs: Mapping[str, Blob]
    headers: Mapping[str, str]
    """The digest of the header of each of a checkpoint's safetensors files."""
    prompts: tuple[str, ...] = ()
    """What quantisation is measured on; none where nothing is quantised."""
    check: Callable[[], None] = lambda: None
    """Raises UserError naming a file of the model that is no longer what it was, or that came to it."""

    @property
    def task(self) -> Task:
        return "text-to-video" if self.recipe.sampling is not None else "graph"

    @property
    def source(self) -> Tree:
        """The model's files, as the stages read them: whoever asks where they are learns whether they have changed."""
        return Tree({name: blob.digest for name, blob in self.blobs.items()}, self._locate)

    def _locate(self) -> dict[str, Path]:
        self.check()
        return dict(self.model.files)

    @property
    def layout(self) -> Tree:
        """The model's files as the export reads them: of a checkpoint's weights, where they lie and no value.

        So another checkpoint of the same model, one that was trained further, is not traced again.
        """
        return Tree({**self.source.digests, **self.headers}, self.source.locate)

    @property
    def boundary(self) -> float | None:
        """The noise level from which up the high-noise expert works; None where there is one expert."""
        given = self.recipe.sampling and self.recipe.sampling.boundary
        return given if given is not None else self.model.boundary

    @property
    def tokenizer(self) -> str | None:
        """The name of the tokenizer's file among the model's; None where the model has none."""
        return next((name for name, path in self.model.files.items() if path == self.model.tokenizer), None)

    @property
    def prompts_blob(self) -> Blob | None:
        """The prompts as one text, pinned; comments and empty lines of the file say nothing about what is built."""
        if not self.prompts:
            return None
        text = "\n".join(self.prompts).encode()
        return Blob(f"sha256:{hashlib.sha256(text).hexdigest()}", len(text))

    @property
    def described(self) -> dict[str, Any]:
        """The recipe as JSON, with all defaults. Where its files lie says nothing about what is built, nor does what a
        report asks of that.
        """
        described = self.recipe.model_dump(mode="json", exclude_none=True, exclude={"evaluate"})
        model = {
            key: value
            for key, value in described["model"].items()
            if key not in ("source", "companion", "onnx", "files")
        }
        if self.model.components:
            model["components"] = list(self.model.components)
        if (prompts := self.prompts_blob) is not None:
            described["quantize"]["calibrate"]["prompts"] = prompts.digest
        return {**described, "model": model}

    @property
    def recipe_digest(self) -> str:
        """The digest of the resolved recipe, wherever its files lie."""
        return digest_of(self.described)


def resolve(loaded: LoadedRecipe, sources: SourceDigests, *, progress: bool) -> Resolved:
    """Open the model and hash what is used of it. Raises RecipeError or CheckpointError, UserError where it changes."""
    model = open_model(loaded)
    check_fits(loaded, model)
    prompts = prompts_of(loaded)
    if loaded.recipe.evaluate is not None:
        clips_of(loaded)  # what its report lacks is told before there is any work
    pinned = _pinned(model, sources, progress)

    def check() -> None:
        pinned.check()
        # An ONNX file names all others: while it stays what it is, none comes to the model.
        if loaded.recipe.model.onnx is None:
            _check_same(model, loaded)

    headers = _headers(model)
    # What was read before the files were hashed may have been of other ones: it is read again.
    _check_same(model, loaded)
    pinned.check()
    return Resolved(loaded.recipe, model, pinned.blobs, headers, prompts, check)


def open_model(loaded: LoadedRecipe) -> ModelSource:
    """What the recipe's model consists of. Raises CheckpointError at the line that names it."""
    model, marks = loaded.recipe.model, loaded.marks
    (kind,) = [kind for kind in KINDS if getattr(model, kind) is not None]
    folder = marks.folder(f"model.{kind}")
    try:
        if model.onnx is not None:
            # Libraries parse it that others' files can crash. Those of a checkpoint are read by wanc alone.
            return call_in_worker("resolve", open_source, model, folder)
        return open_source(model, folder)
    except RecipeError as error:
        error.where = error.where or marks.where(error.key or f"model.{kind}")
        raise
    except UserError as error:
        # The reader wrote the recipe, not the model: say first which line led there.
        key, hint = _wrong_path(loaded) or (f"model.{_guilty(model, kind, error)}", None)
        message = "the model cannot be read"
        raise CheckpointError(message, where=marks.where(key), hint=hint, exit_code=error.exit_code) from error


def _guilty(model: ModelSection, kind: str, error: UserError) -> str:
    """The key of the checkpoint whose files are at fault, where the model is of two."""
    if model.companion is None or model.source is None or error.where is None:
        return kind
    where = Path(error.where)
    return "companion" if where.is_relative_to(model.companion) and not where.is_relative_to(model.source) else kind


def _wrong_path(loaded: LoadedRecipe) -> tuple[str, str] | None:
    """The key of a path that leads nowhere, and what to write there; None where nothing is like it."""
    model = loaded.recipe.model
    if model.source is not None and model.source.suffix == ".onnx" and model.source.is_file():
        return "model.source", "an ONNX file is given as `onnx`, in place of `source`"
    folders = [("source", model.source, (FOLDER,)), ("companion", model.companion, (FOLDER,))]
    paths = [*folders, ("onnx", model.onnx, (".onnx",))]
    paths += [(f"files.{number}", path, ()) for number, path in enumerate(model.files or ())]
    for key, path, wanted in paths:
        folder = loaded.marks.folder(f"model.{key}")
        if path is not None and (hint := path_hint(path, folder, *wanted)):
            return f"model.{key}", hint
    return None


def check_fits(loaded: LoadedRecipe, model: ModelSource) -> None:
    """Raises RecipeError where recipe and model do not agree on what is built, or on how videos are made."""
    if loaded.recipe.model.source is not None:
        _check_components(loaded, model)
        assert model.facts is not None, "a model with all of its components has facts"
        check_sampling(loaded, model.components, model.boundary, model.facts.shift)
        check_video(loaded, model.facts)
        check_cache(loaded, model.causal)


def _check_components(loaded: LoadedRecipe, model: ModelSource) -> None:
    if missing := [name for name in NEEDED if name not in model.components]:
        hint = "leave components out to build all of the model's"
        if loaded.recipe.model.components is None:
            hint = "is the download complete? model_index.json has to name all of the model's parts"
            if missing[0] == "denoiser_high" and "denoiser_low" in model.components:
                hint = ONE_EXPERT_HINT
        raise RecipeError(
            f"a text-to-video bundle needs the component {missing[0]}",
            where=loaded.marks.where("model.components"),
            hint=hint,
        )


def prompts_of(loaded: LoadedRecipe) -> tuple[str, ...]:
    """What quantisation is measured on. Raises RecipeError at the line that names the file."""
    path = loaded.recipe.quantize.calibrate.prompts
    if path is None:
        return ()
    try:
        return read_prompts(path)
    except RecipeError as error:
        key = "quantize.calibrate.prompts"
        hint = path_hint(path, loaded.marks.folder(key), ".txt")
        raise RecipeError("the prompts cannot be read", where=loaded.marks.where(key), hint=hint) from error


def _pinned(model: ModelSource, sources: SourceDigests, progress: bool) -> PinnedFiles:
    total = sum(map(_size, model.files.values()))
    with ProgressBar("hash inputs", total, enabled=progress, transient=True) as bar:
        return PinnedFiles(model.files, sources, bar.advance)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise changed(path) from error


def _check_same(model: ModelSource, loaded: LoadedRecipe) -> None:
    """A file that comes to a model, or goes, may make it another one though none of the others has changed."""
    try:
        found = open_model(loaded)
    except UserError as error:
        first, *_ = model.files.values()
        raise changed(first.parent) from error
    if found != model:
        different = {path for _, path in found.files.items() ^ model.files.items()}
        raise changed(min(different, default=next(iter(model.files.values())).parent))


def _headers(model: ModelSource) -> dict[str, str]:
    files = {name: path for name, path in model.files.items() if model.components and name.endswith(".safetensors")}
    return {name: f"sha256:{hashlib.sha256(header_bytes(path)).hexdigest()}" for name, path in files.items()}
