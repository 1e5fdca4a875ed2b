"""Prompts: how long one may be, and a list of them, a text file with a prompt in each line."""

from __future__ import annotations

import io
from pathlib import Path

from .errors import UserError
from .text_file import Kind, read_text

MOST_PROMPT_BYTES = 64 * 2**10
"""Of UTF-8: some hundred times what any text encoder looks at, and little enough to be read in no time."""


def prompt_fault(prompt: str) -> str | None:
    """Why this is too long for a prompt, or None when it is not."""
    size = len(prompt.encode("utf-8", "surrogatepass"))
    return f"has {size} bytes, more than the {MOST_PROMPT_BYTES} allowed" if size > MOST_PROMPT_BYTES else None


def read_prompts(path: Path, *, error: type[UserError] = UserError) -> tuple[str, ...]:
    """The prompts in the file at `path`, without empty lines and comments, which begin with `#`.

    Raises:
        UserError: of the type `error`; the file cannot be read as UTF-8 text, is too large, holds no prompt, or one
            that is too long.
    """
    size = "a list of prompts is a few kilobytes of text, a prompt in each line"
    text = read_text(path, str(path), Kind("list of prompts", "prompts.txt", size, error))
    lines = [line.strip() for line in io.StringIO(text, newline=None)]
    for number, line in enumerate(lines, 1):
        if not line.startswith("#") and (fault := prompt_fault(line)):
            raise error(f"the line {fault}", where=f"{path}:{number}:1", hint="write a shorter prompt")
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise error("it holds no prompt", where=str(path), hint="write a prompt in each line")
    return prompts


def read_changes(path: Path) -> dict[int, str]:
    """The prompts in the file at `path` by the numbers of chunks that stand before them, such as `10 A blue square.`

    Empty lines and comments are left out. Raises UserError as `read_prompts` does, and for a line without a number, or
    with one that does not rise.
    """
    size = "a list of changes is a few kilobytes of text, a number and a prompt in each line"
    text = read_text(path, str(path), Kind("list of changes", "changes.txt", size))
    changes: dict[int, str] = {}
    for number, line in enumerate((line.strip() for line in io.StringIO(text, newline=None)), 1):
        if not line or line.startswith("#"):
            continue
        chunk, _, prompt = line.partition(" ")
        where, hint = f"{path}:{number}:1", "write a chunk's number and a prompt: 10 A blue square moves up."
        if not (chunk.isascii() and chunk.isdecimal() and len(chunk) < 10 and prompt.strip()):
            raise UserError("the line has no number and prompt", where=where, hint=hint)
        if int(chunk) <= max(changes, default=0):
            raise UserError(f"{chunk} does not rise above {max(changes, default=0)}", where=where, hint=hint)
        if fault := prompt_fault(prompt):
            raise UserError(f"the line {fault}", where=where, hint="write a shorter prompt")
        changes[int(chunk)] = prompt.strip()
    if not changes:
        raise UserError("it holds no change", where=str(path), hint="write a chunk's number and a prompt in each line")
    return changes


def require_readable(what: str, text: str) -> None:
    """Raises UserError for a prompt that no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are not UTF-8 are lone surrogates
        raise UserError(f"the {what} is not valid Unicode") from error
    if "\0" in text:
        raise UserError(f"the {what} holds a null character")
