"""Reading a recipe's file as text, whatever is found in its place."""

from __future__ import annotations

import stat
from pathlib import Path

from wanc.errors import RecipeError

MAX_BYTES = 2**20

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path, where: str) -> str:
    """The text of the file at `path`.

    Args:
        path: the file.
        where: what asked for it; errors about the file as a whole are reported there.

    Raises:
        RecipeError: there is no such file, it cannot be read, it is too large, or it is not UTF-8.
    """
    try:
        # Opening a pipe would wait for a writer, so what kind of file it is comes first.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            hint = "name the recipe in it, such as recipe.yaml"
            raise RecipeError(f"{path} is a directory, not a recipe", where=where, hint=hint)
        if not stat.S_ISREG(mode):
            raise RecipeError(f"{path} is not a regular file", where=where, hint="save the recipe in a file first")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError(f"there is no file {path}", where=where, hint="check the path") from None
    except OSError as error:
        raise RecipeError(f"the recipe {path} cannot be read", where=where, hint="check its permissions") from error
    return _decode(content, path)


def _decode(content: bytes, path: Path) -> str:
    start = f"{path}:1:1"
    if len(content) > MAX_BYTES:
        hint = "a recipe is a few kilobytes of settings; is this the right file?"
        raise RecipeError(f"the file is larger than {MAX_BYTES:,} bytes", where=start, hint=hint)
    if content.startswith(_UTF16_MARKS):
        raise RecipeError("the file is UTF-16 text", where=start, hint="save it as UTF-8")
    if content.startswith(_UTF8_MARK):
        hint = "save it as UTF-8 without a byte order mark"
        raise RecipeError("the file begins with a byte order mark", where=start, hint=hint)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = position(content[: error.start].decode("utf-8"))
        byte = content[error.start]
        where = f"{path}:{line}:{column}"
        raise RecipeError(f"the byte 0x{byte:02x} is not UTF-8 text", where=where, hint="save it as UTF-8") from None


def position(text_before: str) -> tuple[int, int]:
    """The line and column that follow `text_before`, both counted from 1."""
    lines = text_before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1
