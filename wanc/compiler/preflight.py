"""All that is wrong with a recipe and can be found before anything is made of it: what `wanc recipe check` says.

Headers, configurations and the files that a recipe names are opened; no weight is read, and nothing is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanc.compiler.planner.recipe_cluster import cluster_of
from wanc.compiler.quantize.keep_patterns import check_patterns
from wanc.compiler.resolve import check_fits, open_model, prompts_of
from wanc.errors import CheckpointError, NotBuiltYetError, RecipeError, UserError, render
from wanc.models.source import ModelSource
from wanc.models.torch_source import check_factory
from wanc.models.wan.checkpoint import open_located
from wanc.models.wan.tokenizer import check_tokenizer
from wanc.recipe.load import LoadedRecipe, load_all
from wanc.recipe.problems import as_error

Check = Callable[[LoadedRecipe, ModelSource], None]


@dataclass(frozen=True)
class RecipeCheckup:
    """The bundles that a recipe would make, by name, and what is wrong with it; one of the two is empty."""

    bundles: tuple[str, ...]
    faults: tuple[UserError, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of the first fault, but of one that wanc could mend only where there is no other."""
        own = [fault for fault in self.faults if not isinstance(fault, NotBuiltYetError)]
        return next((fault.exit_code for fault in own or self.faults), 0)

    def as_json(self) -> dict[str, object]:
        problems = [
            {"message": fault.message, "where": fault.where, "hint": fault.hint, "text": render(fault)}
            for fault in self.faults
        ]
        return {"ok": not self.faults, "bundles": list(self.bundles), **({"problems": problems} if problems else {})}


def check_recipe(path: Path, overrides: Sequence[str] = ()) -> RecipeCheckup:
    """Look at a recipe, all of its variants, and what they name."""
    try:
        variants, problems = load_all(path, overrides)
    except RecipeError as error:
        return RecipeCheckup((), (error,))
    if problems:
        return RecipeCheckup((), tuple(as_error([problem]) for problem in problems))
    if faults := faults_of(variants):
        return RecipeCheckup((), tuple(faults))
    return RecipeCheckup(tuple(loaded.recipe.name for loaded in variants))


def faults_of(variants: Sequence[LoadedRecipe]) -> list[UserError]:
    """What is wrong with what recipes name, each fault once: variants share most of their lines."""
    opened: dict[str, OpenedModel] = {}
    faults = [fault for loaded in variants for fault in _faults(loaded, opened)]
    return list({render(fault): fault for fault in faults}.values())


def _faults(loaded: LoadedRecipe, opened: dict[str, OpenedModel]) -> Iterator[UserError]:
    text = loaded.recipe.model.model_dump_json()
    if text not in opened:
        opened[text] = OpenedModel.of(loaded)
    yield from opened[text].faults
    if (model := opened[text].source) is not None:
        yield from _found(loaded, model, (check_fits, _check_patterns))
    for read in (prompts_of, cluster_of):
        try:
            read(loaded)
        except RecipeError as error:
            yield error


@dataclass(frozen=True)
class OpenedModel:
    """A model that variants share, and what is wrong with it whatever else a variant says."""

    source: ModelSource | None
    faults: tuple[UserError, ...]

    @classmethod
    def of(cls, loaded: LoadedRecipe) -> OpenedModel:
        """A recipe's model; none where it cannot be opened."""
        try:
            source = open_model(loaded)
        except UserError as error:
            return cls(None, (error,))
        return cls(source, tuple(_found(loaded, source, (_check_factory, _check_tokenizer))))


def _found(loaded: LoadedRecipe, model: ModelSource, checks: Iterable[Check]) -> Iterator[UserError]:
    for check in checks:
        try:
            check(loaded, model)
        except UserError as error:
            error.where = error.where or loaded.marks.where(getattr(error, "key", None) or "model")
            yield error


def _check_factory(loaded: LoadedRecipe, model: ModelSource) -> None:
    if loaded.recipe.model.torch is not None:
        check_factory(loaded.recipe.model.torch, model.files)


def _check_tokenizer(loaded: LoadedRecipe, model: ModelSource) -> None:
    if loaded.recipe.model.source is None:
        return
    try:
        check_tokenizer(open_located(model.files, model.components))
    except UserError as error:
        raise CheckpointError("the model cannot be read", where=loaded.marks.where("model.source")) from error


def _check_patterns(loaded: LoadedRecipe, model: ModelSource) -> None:
    asked = loaded.recipe.quantize
    if quantized := asked.components(model.components):
        components = open_located(model.files, quantized).components
        check_patterns({name: component.weights for name, component in components.items()}, asked.patterns)
