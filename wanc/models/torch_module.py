"""A torch module made by a function that the recipe names."""

from __future__ import annotations

import importlib
import sys
from importlib.abc import PathEntryFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType

import torch

from wanc.errors import RecipeError
from wanc.models.foreign_errors import as_cause


def load_module(factory: str, root: Path) -> torch.nn.Module:
    """Import `package.module:function` from `root` and call it: the module in evaluation mode.

    Floats of less than 32 bits are widened to float32; float64 stays what it is. Raises RecipeError where it cannot be
    imported, fails, or returns something else.
    """
    module_name, _, function_name = factory.partition(":")
    sys.path.insert(0, str(root))
    _compile_anew(root, module_name.partition(".")[0])
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        made = function()
    except (Exception, SystemExit) as error:
        # Foreign code: whatever it raises is for its author to read, without our own frames.
        raise RecipeError(f"{factory} fails", hint="it is called without arguments") from as_cause(error)
    if not isinstance(made, torch.nn.Module):
        raise RecipeError(f"{factory} returns a {type(made).__name__}, not a torch.nn.Module")
    return made.eval()._apply(_widened)  # pyright: ignore[reportPrivateUsage]


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


class _SourceLoader(SourceFileLoader):
    """Never takes the bytecode that lies beside a module: it is told from stale one by whole seconds and a size."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _compile_anew(root: Path, package: str) -> None:
    """Let what is imported of the package be what its files say now: they are what the result is kept under."""
    loaders = (ExtensionFileLoader, EXTENSION_SUFFIXES), (_SourceLoader, SOURCE_SUFFIXES)
    finder_of = FileFinder.path_hook(*((loader, list(suffixes)) for loader, suffixes in loaders))

    def is_own(folder: str) -> bool:
        return Path(folder) == root or Path(folder).is_relative_to(root / package)

    def own_finder(folder: str) -> PathEntryFinder:
        if not is_own(folder):
            raise ImportError(f"{folder} is not of {package}")
        return finder_of(folder)

    sys.path_hooks.insert(0, own_finder)
    for folder in filter(is_own, list(sys.path_importer_cache)):
        del sys.path_importer_cache[folder]
