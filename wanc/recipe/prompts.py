"""A list of prompts to calibrate on: what `--prompts` reads as well. One that is none is a fault of the recipe."""

from __future__ import annotations

from pathlib import Path

from wanc.errors import RecipeError
from wanc.runtime import prompts


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts in the file at `path`. Raises RecipeError."""
    return prompts.read_prompts(path, error=RecipeError)
