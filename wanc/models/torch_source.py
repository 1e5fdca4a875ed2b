"""Finding the files of a torch model: the package that its function lies in, and what the recipe lists besides.

They stand for the model in the keys of the stages. Nothing is imported: a build with nothing to do loads no torch.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wanc.errors import EXIT_NO_INPUT, CheckpointError

MODULE = "module"
"""The first part of the names of the package's files; then follows the path that an import would take."""

MOST_FILES = 100_000


def find_files(factory: str, folder: Path, listed: Sequence[Path]) -> Mapping[str, Path]:
    """The files that stand for `package.module:function`, by name.

    The package is looked for in `folder`, the recipe's own, and then where Python looks. Names are
    `module/<package>/…` and `files/<number>/…` for what is `listed`. Raises CheckpointError where something is missing.
    """
    module = factory.partition(":")[0]
    files = dict(_package_files(module.partition(".")[0], folder))
    for number, path in enumerate(listed):
        if not path.exists():
            raise CheckpointError("no such file or folder", where=str(path), exit_code=EXIT_NO_INPUT)
        files |= {f"files/{number}/{name}": file for name, file in _files_of(path)}
    if len(files) > MOST_FILES:
        raise CheckpointError(f"{len(files)} files, more than {MOST_FILES}", where=factory)
    return files


def import_root(files: Mapping[str, Path]) -> Path:
    """The folder that has to be on Python's path for the package among `files` to be imported."""
    name, path = next((name, path) for name, path in files.items() if name.startswith(f"{MODULE}/"))
    return path.parents[name.count("/") - 1]


def _package_files(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    spec = importlib.machinery.PathFinder.find_spec(package, [str(folder), *sys.path])
    if spec is None:
        raise CheckpointError(
            f"there is no module {package} beside the recipe or where Python looks",
            where=os.path.abspath(folder),
            hint="install it, or add its folder to PYTHONPATH",
            exit_code=EXIT_NO_INPUT,
        )
    places = spec.submodule_search_locations
    for place in map(Path, places if places is not None else filter(None, [spec.origin])):
        for name, path in _files_of(place):
            yield (f"{MODULE}/{package}/{name}" if places is not None else f"{MODULE}/{name}"), path


def _files_of(place: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder by relative path, or a file by its name; without caches and hidden folders."""
    if not place.is_dir():
        yield place.name, place
        return
    for directory, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file():
                yield path.relative_to(place).as_posix(), path
