"""Finding the files of a torch model: the package that its function lies in, and what the recipe lists besides.

They stand for the model in the keys of the stages. Nothing is imported: a build with nothing to do loads no torch.
"""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from wanc.errors import EXIT_NO_INPUT, CheckpointError, RecipeError

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


def check_factory(factory: str, files: Mapping[str, Path]) -> None:
    """Raises RecipeError where the files of `package.module:function` plainly hold no such module or function.

    Nothing is imported: what is put together when the module is executed cannot be found this way, and passes.
    """
    module, _, function = factory.partition(":")
    stem = f"{MODULE}/{module.replace('.', '/')}"
    path = files.get(f"{stem}.py") or files.get(f"{stem}/__init__.py")
    if path is None:
        if any(name.startswith((f"{stem}.", f"{stem}/")) for name in files):
            return  # compiled, or a folder of modules
        modules = {name.removeprefix(f"{MODULE}/").removesuffix(".py").replace("/", ".") for name in files}
        raise _absent(f"there is no module {module}", module, modules, lambda name: f"{name}:{function}")
    names = _names_in(path)
    if names is not None and function not in names:
        message = f"{path.name} has no function {function}"
        raise _absent(message, function, names, lambda name: f"{module}:{name}")


def _absent(message: str, name: str, known: Collection[str], written: Callable[[str], str]) -> RecipeError:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {written(near[0])}?" if near else "name a function of the module that returns the model"
    return RecipeError(message, hint=hint, key="model.torch")


def _names_in(path: Path) -> set[str] | None:
    """The names that a module may have; None where its text does not tell."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None  # the export says what is wrong, with the line
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name):
            names.add(node.id)
    # A star brings names of another module; the others make names out of text.
    return None if names & {"*", "__getattr__", "globals", "setattr", "exec", "vars", "locals"} else names


def _package_files(package: str, folder: Path) -> Iterator[tuple[str, Path]]:
    spec = importlib.machinery.PathFinder.find_spec(package, [str(folder), *sys.path])
    if spec is None:
        raise CheckpointError(
            f"there is no module {package} beside the recipe or where Python looks",
            where=os.path.abspath(folder),
            hint=_module_hint(package, folder),
            exit_code=EXIT_NO_INPUT,
        )
    places = spec.submodule_search_locations
    for place in map(Path, places if places is not None else filter(None, [spec.origin])):
        for name, path in _files_of(place):
            yield (f"{MODULE}/{package}/{name}" if places is not None else f"{MODULE}/{name}"), path


def _module_hint(package: str, folder: Path) -> str:
    beside = [path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    near = get_close_matches(package, beside, n=1)
    return f"did you mean {near[0]}?" if near else "install it, or add its folder to PYTHONPATH"


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
