"""Reading a file that people write as text, whatever is found in its place: a recipe, or a list of prompts."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError

MAX_BYTES = 2**20

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Kind:
    """What a file is to be, in the words of its errors, which are of the type `error`."""

    name: str
    example: str
    usual_size: str
    error: type[UserError] = UserError


def read_text(path: Path, where: str, kind: Kind) -> str:
    """The text of the file at `path`.

    Args:
        path: the file.
        where: what asked for it; errors about the file as a whole are reported there.
        kind: what the file is to be.

    Raises:
        UserError: of the kind's type; there is no such file, it cannot be read, it is too large, or it is not UTF-8.
    """
    try:
        # Opening a pipe would wait for a writer, so what kind of file it is comes first.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            hint = f"name the {kind.name} in it, such as {kind.example}"
            raise kind.error(f"{path} is a directory, not a {kind.name}", where=where, hint=hint)
        if not stat.S_ISREG(mode):
            hint = f"save the {kind.name} in a file first"
            raise kind.error(f"{path} is not a regular file", where=where, hint=hint)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise kind.error(f"there is no file {path}", where=where, hint="check the path") from None
    except OSError as error:
        message = f"the {kind.name} {path} cannot be read"
        raise kind.error(message, where=where, hint="check its permissions") from error
    return _decode(content, path, kind)


def _decode(content: bytes, path: Path, kind: Kind) -> str:
    start = f"{path}:1:1"
    if len(content) > MAX_BYTES:
        hint = f"{kind.usual_size}; is this the right file?"
        raise kind.error(f"the file is larger than {MAX_BYTES:,} bytes", where=start, hint=hint)
    if content.startswith(_UTF16_MARKS):
        raise kind.error("the file is UTF-16 text", where=start, hint="save it as UTF-8")
    if content.startswith(_UTF8_MARK):
        hint = "save it as UTF-8 without a byte order mark"
        raise kind.error("the file begins with a byte order mark", where=start, hint=hint)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = position(content[: error.start].decode("utf-8"))
        byte = content[error.start]
        where = f"{path}:{line}:{column}"
        raise kind.error(f"the byte 0x{byte:02x} is not UTF-8 text", where=where, hint="save it as UTF-8") from None


def position(text_before: str) -> tuple[int, int]:
    """The line and column that follow `text_before`, both counted from 1."""
    lines = text_before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1
