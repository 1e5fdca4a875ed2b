"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import EXIT_IO, UserError

MODE = 0o644


@contextmanager
def whole_file(path: Path, what: str) -> Generator[BinaryIO]:
    """A stream that becomes the file at `path`, mode 0644, when the block ends well; `what` names it in errors.

    It grows under another name in the same folder, and replaces a file that is there already.

    Raises:
        UserError: exit code 74; the folder is missing or cannot be written to, the disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), MODE)  # the umask does not decide who may read it
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{what} cannot be written", where=str(path), exit_code=EXIT_IO) from error
    finally:
        with suppress(OSError):  # it never came to be, or it has its name by now
            temporary.unlink()
