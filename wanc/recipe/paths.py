"""What to write in place of a path that leads nowhere, or to something else than was meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

FOLDER = "/"
"""In place of suffixes: what is wanted is a folder."""
_MOST_LOOKED_AT = 10_000


def path_hint(path: Path, folder: Path, *suffixes: str) -> str | None:
    """What to write instead of `path`; None where it is what it should be, and where nothing is like it.

    Args:
        path: what the text became, absolute or relative to the working directory.
        folder: what relative paths in that text start from.
        suffixes: how the names of files end that are meant, such as ".txt", or FOLDER.
    """
    if not os.path.lexists(path):
        return _missing(path, folder, suffixes)
    if suffixes and suffixes != (FOLDER,) and path.is_dir():
        found = sorted(entry for entry in _entries(path) if entry.suffix.lower() in suffixes and entry.is_file())
        return f"name the file in it: {_shown(found[0], folder)}" if found else None
    if suffixes == (FOLDER,) and path.is_file() and not os.path.samefile(path.parent, folder):
        return f"name the folder that it lies in: {_shown(path.parent, folder)}"
    return None


def _missing(path: Path, folder: Path, suffixes: tuple[str, ...]) -> str | None:
    text = os.path.relpath(path, folder)
    if text.startswith("~"):
        return f"write it out, for nobody's home is in a recipe: {os.path.expanduser(text)}"
    if (elsewhere := Path.cwd() / text).exists() and not os.path.samefile(Path.cwd(), folder):
        start = "relative paths start from the folder of the file that they are written in"
        return f"{start}: write {_shown(elsewhere, folder)}"
    if near := next(_near(path, suffixes), None):
        return f"did you mean {_shown(near, folder)}?"
    # A path has one slash where an address has two; a hub's name for a model is that of its owner, and its own.
    is_address = text.startswith(("http:/", "https:/"))
    is_of_a_hub = FOLDER in suffixes and len(Path(text).parts) == 2 and not (folder / Path(text).parts[0]).exists()
    return "wanc downloads nothing: give the folder that it was downloaded to" if is_address or is_of_a_hub else None


def _near(path: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """What exists and is called much the same, the likeliest first."""
    for suffix in filter(FOLDER.__ne__, suffixes):
        yield from filter(os.path.isfile, (Path(f"{path}{suffix}"), path.with_suffix(suffix)))
    # Names are compared from the first one that is not there; what lies below it has to be found as it is written.
    base, rest = path, list[str]()
    while not base.is_dir() and base.name:
        base, rest = base.parent, [base.name, *rest]
    for name in _like(rest[0], (entry.name for entry in _entries(base))) if rest else ():
        found = base.joinpath(name, *rest[1:])
        yield from [found] if found.exists() else _near_below(base / name, rest[1:], suffixes)
    yield from (entry / path.name for entry in _entries(path.parent) if (entry / path.name).exists())


def _near_below(place: Path, rest: list[str], suffixes: tuple[str, ...]) -> Iterator[Path]:
    if rest and place.is_dir():
        yield from _near(place.joinpath(*rest), suffixes)


def _like(name: str, names: Iterable[str]) -> list[str]:
    by_folded = {other.casefold(): other for other in names if not other.startswith(".")}
    return [by_folded[folded] for folded in get_close_matches(name.casefold(), by_folded, n=3)]


def _entries(folder: Path) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry, _ in zip(entries, range(_MOST_LOOKED_AT), strict=False))
    return []


def _shown(path: Path, folder: Path) -> str:
    """The path as it can stand in the text: relative, unless that is the longer way."""
    relative, absolute = os.path.relpath(path, folder), os.path.abspath(path)
    return relative if relative.count("..") < 4 or len(relative) < len(absolute) else absolute
