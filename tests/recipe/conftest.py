"""A working directory of its own for each test, so that messages name short paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import NotBuiltYetError, RecipeError
from wanc.recipe.load import load

Write = Callable[[str, str | bytes], Path]
AssertRefused = Callable[[str, str, str, str, str | None], None]

# As recipes/tiny-wan.yaml, which may change: messages here name lines and values of this text.
TINY = """\
# yaml-language-server: $schema=recipe.schema.json
# The smallest recipe that exercises the whole compiler; its model is in this repository.
wanc: 1
name: tiny-wan
version: 0.1.0

model:
  source: ../models/tiny-wan

# Two sizes of unequal proportions, so that height and width cannot be mistaken for each other unnoticed.
shapes:
  - {name: 64p, height: 64, width: 64, frames: 17}
  - {name: 96p-wide, height: 64, width: 96, frames: 17}

sampling:
  solver: unipc
  steps: 20
  shift: 5.0
  guidance: {high: 4.0, low: 3.0}
  boundary: 0.875 # the high-noise expert works at timesteps of 875 and above
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file in the working directory, and returns its path relative to it."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: str | bytes) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def tiny() -> str:
    """The text of a right recipe."""
    return TINY


@pytest.fixture
def assert_refused(write: Write, tiny: str) -> AssertRefused:
    """Checks the whole error that one change to the right recipe gives."""

    def check(old: str, new: str, place: str, message: str, hint: str | None) -> None:
        assert tiny.count(old) == 1
        with pytest.raises(RecipeError) as caught:
            load(write("recipe.yaml", tiny.replace(old, new)))
        assert caught.value.message == message
        assert caught.value.where == f"recipe.yaml:{place}"
        assert caught.value.hint == hint
        assert not isinstance(caught.value, NotBuiltYetError)

    return check
