"""A torch module made by a function that the recipe names."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

import torch

from wanc.errors import RecipeError


def load_module(factory: str, root: Path) -> torch.nn.Module:
    """Import `package.module:function` from `root` and call it: the module in evaluation mode, computing in float32.

    Raises RecipeError where it cannot be imported, fails, or returns something else.
    """
    module_name, _, function_name = factory.partition(":")
    sys.path.insert(0, str(root))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        made = function()
    except (Exception, SystemExit) as error:
        # Foreign code: whatever it raises is for its author to read, without our own frames.
        cause = RuntimeError(f"{type(error).__name__}: {error}{_place(error)}")
        raise RecipeError(f"{factory} fails", hint="it is called without arguments") from cause
    if not isinstance(made, torch.nn.Module):
        raise RecipeError(f"{factory} returns a {type(made).__name__}, not a torch.nn.Module")
    return made.eval().float()


def _place(error: BaseException) -> str:
    """The innermost line of the foreign code, in brackets; nothing where it failed before any of it ran."""
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<")]
    foreign = [frame for frame in foreign if Path(frame.filename).parent.name != "importlib"]
    return f" ({Path(foreign[-1].filename).name}:{foreign[-1].lineno})" if foreign else ""
