"""A working directory of its own for each test, so that messages name short paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str, str | bytes], Path]

RECIPES = Path(__file__).parents[2] / "recipes"


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
    return (RECIPES / "tiny-wan.yaml").read_text()
