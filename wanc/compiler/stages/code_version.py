"""The version of a stage's code: a digest of its module and of every wanc module that it can reach by import.

Computed from the sources, so that nobody has to remember to raise a number when a stage changes; but from what they do,
not from how they are written, so that a comment calibrates nothing again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

from wanc.artifacts.files import looks_of
from wanc.compiler.stages.source_code import Code, Import, read_code
from wanc.errors import EXIT_TEMPORARY, UserError

ROOT = Path(__file__).parents[2]
# What each module's file looked like before it was read.
_looks: dict[Path, tuple[int, ...]] = {}


@functools.cache
def code_version(module: str, *, inside: bool = False) -> str:
    """The digest ("sha256:<hex>") of `module` and of all that it imports from wanc, directly or not.

    Of a package that ships as a whole it is asked for what lies `inside`, whoever imports it.
    """
    digest = hashlib.sha256()
    for name in _inside(module) if inside else reached(module):
        digest.update(f"{name}\0".encode())
        digest.update(_code(name).digest)
    return f"sha256:{digest.hexdigest()}"


def check_code() -> None:
    """Raise UserError where a module has changed since it was read: a stage's process imports it after that."""
    for path, look in _looks.items():
        if path.is_relative_to(ROOT) and _look(path) != look:
            raise UserError(
                "changed while it was building: wanc itself is another one now",
                where=str(path),
                hint="build again",
                exit_code=EXIT_TEMPORARY,
            )


def reached(module: str) -> list[str]:
    """`module`, all that it imports from wanc, directly or not, and the packages that these lie in, by name."""
    used: set[str] = set()
    passed: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += [*_imports(name), *_deferred(name)]
            # Importing a.b.c runs a and a.b as well, but none of their functions.
            packages = set(_packages(name)) - passed
            passed |= packages
            waiting += [found for package in packages for found in _imports(package)]
    return sorted(used | passed)


def _inside(package: str) -> list[str]:
    folder = _source(package).parent
    paths = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py") if path.name != "__init__.py")
    return sorted(".".join((package, *path.parts)) for path in paths)


def _packages(module: str) -> Iterable[str]:
    """Those that a module lies in: a and a.b of a.b.c."""
    return accumulate(module.split(".")[:-1], "{}.{}".format)


@functools.cache
def _imports(module: str) -> list[str]:
    """The wanc modules that are imported when this one is."""
    return _named(module, _code(module).imports)


@functools.cache
def _deferred(module: str) -> list[str]:
    """The wanc modules that functions of this one import."""
    return _named(module, _code(module).deferred)


def _named(module: str, statements: Iterable[Import]) -> list[str]:
    package = module if _source(module).name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in statements:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        else:
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = ".".join(filter(None, [base if node.level else "", node.module]))
            # `from a.b import c`: c may be a module or a name in one.
            found += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] == "wanc" and _exists(name)]


@functools.cache
def _code(module: str) -> Code:
    path = _source(module)
    _looks[path] = _look(path)
    return read_code(path.read_bytes())


def _look(path: Path) -> tuple[int, ...]:
    try:
        return looks_of(path)
    except OSError:
        return ()


def _exists(module: str) -> bool:
    return _source(module).is_file()


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
