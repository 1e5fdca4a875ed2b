"""A list of prompts: a text file with a prompt in each line."""

from __future__ import annotations

import io
from pathlib import Path

from .errors import UserError
from .text_file import Kind, read_text


def read_prompts(path: Path, *, error: type[UserError] = UserError) -> tuple[str, ...]:
    """The prompts in the file at `path`, without empty lines and comments, which begin with `#`.

    Raises:
        UserError: of the type `error`; the file cannot be read as UTF-8 text, is too large, or holds no prompt.
    """
    size = "a list of prompts is a few kilobytes of text, a prompt in each line"
    text = read_text(path, str(path), Kind("list of prompts", "prompts.txt", size, error))
    lines = [line.strip() for line in io.StringIO(text, newline=None)]
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise error("it holds no prompt", where=str(path), hint="write a prompt in each line")
    return prompts
