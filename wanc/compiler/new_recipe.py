"""A recipe to start from, for what lies in a folder or a file: what `wanc recipe new` prints."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wanc.compiler.kv_cache import trained_cache
from wanc.compiler.stages.worker import call_in_worker
from wanc.errors import EXIT_NO_INPUT, CheckpointError, RecipeError
from wanc.models.graph import Input
from wanc.models.onnx_keys import symbols_of
from wanc.models.wan.causal_marks import CHUNK_KEYS
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint, read_denoisers
from wanc.models.wan.companion import SHARED
from wanc.models.wan.lints import CONVERTED_SHIFT, EXPERTS, TUNED_SHIFT
from wanc.recipe.new import StarterFacts, check_name, graph_starter, starter
from wanc.recipe.new_causal import causal_starter
from wanc.recipe.paths import path_hint

ORIGINAL_SHIFT = 5.0
"""The default of the original code for models of one expert."""
SMALLEST_WIDTH = 1024
"""Of a denoiser: Wan's own have 1536 channels and more."""
FACTORY_NAMES = ("build", "make", "create", "load", "get", "model")
ALONE = "of denoisers alone name a checkpoint with the text encoder, the tokenizer and the VAE: --companion FOLDER"
GUESSED_SIZE = 8
SIZES = {"batch": 1, "n": 1, "height": 64, "width": 64, "h": 64, "w": 64, "channels": 3}
"""Sizes that names stand for; all others are guessed."""


def new_recipe(source: str, name: str | None, companion: str | None = None) -> str:
    """The text of a recipe for `source`: a Wan checkpoint's folder, an ONNX file, a Python module or its package.

    Paths in the text are as given: it is to be saved in the working directory. Without a name the recipe is called
    after the source. Denoisers alone take what they lack from a `companion`, another checkpoint. Raises UserError where
    the source cannot be read, RecipeError where it is nothing of the kind.
    """
    path = Path(source)
    if name is not None:
        check_name(name)
    if not path.exists():
        hint = path_hint(path, Path.cwd(), ".onnx", ".py")
        raise RecipeError("no such file or folder", where=source, hint=hint, exit_code=EXIT_NO_INPUT)
    name = name if name is not None else _name_of(path)
    if path.suffix.lower() == ".onnx":
        return _for_onnx(source, name)
    if path.suffix == ".py" or (path / "__init__.py").is_file():
        return _for_torch(path, name)
    if path.is_dir() and (found := sorted(path.glob("*.onnx"))) and len(list(path.glob("*.json"))) == 0:
        return _for_onnx(str(found[0]), name)
    checkpoint = _open(path, companion)
    facts, causal = _facts(path, checkpoint, companion), checkpoint.causal
    if not causal:
        return starter(source, name, facts)
    says_chunk = any(key in causal for key in CHUNK_KEYS)
    return causal_starter(source, name, facts, trained_cache(causal), says_chunk=says_chunk)


def _name_of(path: Path) -> str:
    stem = Path(os.path.realpath(path)).stem if path.is_file() else Path(os.path.realpath(path)).name
    return re.sub(r"[^A-Za-z0-9_.-]+|\.(?=\.)|\.$", "-", stem).strip("-._")[:64] or "model"


# Checkpoints


def _open(path: Path, companion: str | None) -> Checkpoint:
    family = "wan-causal" if read_denoisers(path).causal else "wan"
    try:
        checkpoint = open_checkpoint(path, family=family, companion=None if companion is None else Path(companion))
    except CheckpointError as error:
        if companion is not None or family == "wan":
            raise
        hint = f"{error.hint}; {ALONE}" if error.hint else ALONE
        raise CheckpointError(error.message, where=error.where, hint=hint) from error
    if missing := [part for part in SHARED if part not in checkpoint.components]:
        raise CheckpointError(f"the model has no component {missing[0]}", where=str(path), hint=ALONE)
    return checkpoint


def _facts(path: Path, checkpoint: Checkpoint, companion: str | None) -> StarterFacts:
    experts = [checkpoint.components[name] for name in EXPERTS if name in checkpoint.components]
    config = experts[0].config if experts else {}
    width = config.get("num_attention_heads", 0) * config.get("attention_head_dim", 0)
    shift = _declared_shift(path) or (_declared_shift(Path(companion)) if companion else None)
    if len(experts) == 2 and shift in (None, CONVERTED_SHIFT):
        shift = TUNED_SHIFT
    return StarterFacts(
        experts=len(experts),
        shift=shift or ORIGINAL_SHIFT,
        says_boundary=checkpoint.boundary is not None,
        is_small=width < SMALLEST_WIDTH,
        about=f"It has {', '.join(checkpoint.components)}, and reads {checkpoint.text_length} tokens of a prompt.",
        companion=companion,
    )


def _declared_shift(path: Path) -> float | None:
    """What the scheduler's configuration of the diffusers layout says."""
    with suppress(OSError, ValueError, AttributeError):
        shift = json.loads((path / "scheduler/scheduler_config.json").read_bytes()).get("flow_shift")
        return float(shift) if isinstance(shift, int | float) and shift > 0 else None
    return None


# ONNX files


def _for_onnx(source: str, name: str) -> str:
    inputs = call_in_worker("new", _onnx_inputs, Path(os.path.abspath(source)))
    sizes = {symbol: _size_of(symbol) for symbol in symbols_of(inputs)}
    model: dict[str, Any] = {"onnx": source, **({"example": sizes} if sizes else {})}
    comments = [f"{entry.name}: {entry.dtype} [{', '.join(map(str, entry.shape))}]" for entry in inputs]
    if sizes:
        comments.append("Sizes that work together, guessed by their names: look whether they do.")
    return graph_starter(name, model, comments)


def _onnx_inputs(path: Path) -> tuple[Input, ...]:
    from wanc.models.onnx_file import open_onnx

    return open_onnx(path).inputs


def _size_of(symbol: str) -> int:
    words = re.split(r"[^a-z]+", symbol.casefold())
    return next((SIZES[word] for word in words if word in SIZES), GUESSED_SIZE)


# Torch modules


def _for_torch(path: Path, name: str) -> str:
    file = path if path.is_file() else path / "__init__.py"
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise RecipeError("cannot be read as Python", where=str(path)) from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and _takes_nothing(node)}
    if not functions:
        hint = "write one that returns the torch.nn.Module, such as `def build(): return Encoder()`"
        raise RecipeError("it has no function without arguments", where=str(file), hint=hint)
    factory = min(functions, key=lambda function: (not function.startswith(FACTORY_NAMES), function.startswith("_")))
    inputs = tuple(_inputs(tree, functions[factory])) or ({"name": "x", "dtype": "float32", "shape": [1, 4]},)
    module, folder = _import_name(path)
    comments = [
        f"Found beside this recipe, which is to be saved in {os.path.relpath(folder)}, or where Python looks.",
        "The arguments of forward, in order: write the dtypes and sizes that they have.",
    ]
    return graph_starter(name, {"torch": f"{module}:{factory}", "inputs": inputs}, comments)


def _takes_nothing(function: ast.FunctionDef) -> bool:
    given = function.args
    return len(given.posonlyargs) + len(given.args) == len(given.defaults) and None not in given.kw_defaults


def _inputs(tree: ast.Module, factory: ast.FunctionDef) -> Iterator[Mapping[str, object]]:
    """The arguments that forward needs, of the class that the function names first."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    named = [node.id for node in ast.walk(factory) if isinstance(node, ast.Name) and node.id in classes]
    members = classes[named[0]].body if named else []
    forward = next((one for one in members if isinstance(one, ast.FunctionDef) and one.name == "forward"), None)
    if forward is not None:
        needed = [*forward.args.posonlyargs, *forward.args.args][1:]
        for argument in needed[: len(needed) - len(forward.args.defaults)]:
            yield {"name": argument.arg, "dtype": _dtype_of(argument.arg), "shape": [1, 4]}


def _dtype_of(name: str) -> str:
    """By its name: what counts, or points into a table, is a whole number."""
    return "int64" if name.endswith(("ids", "mask", "index", "indices", "tokens", "lengths", "labels")) else "float32"


def _import_name(path: Path) -> tuple[str, Path]:
    """The dotted name that a module is imported by, and the folder that this begins in."""
    path = Path(os.path.abspath(path))
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts, folder = [folder.name, *parts], folder.parent
    return ".".join(part for part in parts if part != "__init__"), folder
