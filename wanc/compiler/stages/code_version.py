"""The version of a stage's code: a digest of its module and of every wanc module that it can reach by import.

Computed from the sources, so that nobody has to remember to raise a number when a stage changes; but from what they do,
not from how they are written, so that a comment calibrates nothing again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

import wanc
from wanc.compiler.stages.source_code import Code, read_code

ROOT = Path(wanc.__file__).parent


@functools.cache
def code_version(module: str) -> str:
    """The digest ("sha256:<hex>") of `module` and of all that it imports from wanc, directly or not."""
    digest = hashlib.sha256()
    for name in reached(module):
        digest.update(f"{name}\0".encode())
        digest.update(_code(name).digest)
    return f"sha256:{digest.hexdigest()}"


def reached(module: str) -> list[str]:
    """`module`, all that it imports from wanc, directly or not, and the packages that these lie in, by name."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name)
            # Importing a.b.c runs a and a.b as well.
            if package := name.rpartition(".")[0]:
                waiting.append(package)
    return sorted(found)


@functools.cache
def _code(module: str) -> Code:
    return read_code(_source(module).read_bytes())


@functools.cache
def _imports(module: str) -> list[str]:
    """The wanc modules that a module names in import statements, at any depth of nesting."""
    package = module if _source(module).name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in _code(module).imports:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        else:
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            origin = ".".join(filter(None, [base if node.level else "", node.module]))
            # `from a.b import c`: c may be a module or a name in one.
            found += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] == "wanc" and _exists(name)]


def _exists(module: str) -> bool:
    return _source(module).is_file()


def _source(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
