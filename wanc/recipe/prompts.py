"""A list of prompts: a text file with a prompt in each line."""

from __future__ import annotations

import io
from pathlib import Path

from wanc.errors import RecipeError
from wanc.recipe.text_file import PROMPTS, read_text


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts in the file at `path`, without empty lines and comments, which begin with `#`.

    Raises:
        RecipeError: the file cannot be read as UTF-8 text, is too large, or holds no prompt.
    """
    lines = [line.strip() for line in io.StringIO(read_text(path, str(path), PROMPTS), newline=None)]
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise RecipeError("it holds no prompt", where=str(path), hint="write a prompt in each line")
    return prompts
