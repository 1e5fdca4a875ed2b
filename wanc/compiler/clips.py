"""The clips that a recipe's report is about."""

from __future__ import annotations

from wanc.errors import RecipeError
from wanc.recipe.evaluate import EvaluateSection
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.paths import path_hint
from wanc.recipe.prompts import read_prompts


def clips_of(loaded: LoadedRecipe) -> tuple[tuple[str, int], ...]:
    """What a recipe's report is about: a prompt and a seed each. Raises RecipeError at the line that is wrong."""
    asked, key = _asked(loaded), "evaluate.prompts"
    try:
        prompts = read_prompts(asked.prompts)
    except RecipeError as error:
        hint = path_hint(asked.prompts, loaded.marks.folder(key), ".txt")
        raise RecipeError("the prompts cannot be read", where=loaded.marks.where(key), hint=hint) from error
    pairs = [(prompt, seed) for seed in asked.seeds for prompt in prompts]
    return tuple(pairs[: asked.clips])


def _asked(loaded: LoadedRecipe) -> EvaluateSection:
    if loaded.recipe.evaluate is None:
        raise RecipeError(
            "the recipe does not say what its report is about",
            where=str(loaded.files[0]),
            hint="add a line such as `evaluate: {prompts: prompts.txt}`, a text file with a prompt in each line",
        )
    return loaded.recipe.evaluate
