"""What a recipe will be able to ask for, and cannot yet.

Naming such a thing is not a mistake, so it is answered with "not built yet" instead of "unknown key". A feature that
lands moves from these tables into the schema. In a path, `*` is any item of a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

KEYS = (
    "runtime.offload",
    "runtime.budgets.host",
)

# Values are globs over what YAML would write in one line; "[[]" is how a glob writes "[".
VALUES: Mapping[str, tuple[str, ...]] = {}


def is_planned_key(path: Sequence[str | int]) -> bool:
    """Whether the key at `path`, which the schema does not have, is planned."""
    return any(_fits(key, path) for key in KEYS)


def is_planned_value(path: Sequence[str | int], written: str) -> bool:
    """Whether the value at `path`, which the schema refuses, is planned; `written` is its YAML."""
    return any(fnmatchcase(written, glob) for glob in _globs_at(path))


def keys_under(path: Sequence[str | int]) -> list[str]:
    """The planned keys of the mapping at `path`."""
    split = [key.rpartition(".") for key in KEYS]
    return [name for owner, _, name in split if _fits(owner, path)]


def values_at(path: Sequence[str | int]) -> list[str]:
    """The planned values at `path` that have a name, as against a pattern."""
    return [glob for glob in _globs_at(path) if not set(glob) & set("*?[")]


def _globs_at(path: Sequence[str | int]) -> list[str]:
    return [glob for pattern, globs in VALUES.items() if _fits(pattern, path) for glob in globs]


def _fits(pattern: str, path: Sequence[str | int]) -> bool:
    names = pattern.split(".") if pattern else []
    return len(names) == len(path) and all(name in ("*", str(key)) for name, key in zip(names, path, strict=True))
