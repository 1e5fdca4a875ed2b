"""Ways to damage a checkpoint, and what people see of its refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wanc.errors import EXIT_DATA, CheckpointError, render
from wanc.models.wan.checkpoint import open_checkpoint


def refusal(root: Path, components: tuple[str, ...] | None = None) -> str:
    """What people see of the refusal, with the checkpoint's folder as MODEL."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root, components)
    assert caught.value.exit_code == EXIT_DATA
    return render(caught.value).replace(str(root), "MODEL")


def edit(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file; None removes."""
    document = json.loads(path.read_text())
    document |= changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def change(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda root: edit(root / name, **changes)


def put(name: str, text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).write_text(text)

    return write
