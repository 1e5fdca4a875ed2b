"""Converts pickles of tensors (.pth) to safetensors, so that nothing that wanc reads can run code.

A confined process alone reads the pickle, with PyTorch's restricted loader and memory-mapped: names, shapes and values
stay as they are, and anything but tensors is refused.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - only the name of what the restricted loader raises
from typing import Any, cast

import torch
from numpy.typing import NDArray

from wanc.artifacts.files import output_errors, require_space
from wanc.artifacts.private import abandoned, private_directory
from wanc.compiler.weights.tensor_stream import Entry, write_tensors
from wanc.errors import EXIT_NO_INPUT, CheckpointError
from wanc.models.wan.foreign_files import PICKLES
from wanc.runtime.destination import require_replaceable
from wanc.runtime.progress import ProgressBar

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
GENERATORS = ("generator_ema", "generator")
WRAPPED = re.compile(r"^model\.|_fsdp_wrapped_module\.|_orig_mod\.")
PIECE_BYTES = 16 * 2**20
NAME = re.compile(r"[A-Za-z0-9._/-]{1,512}")


def convert(source: Path, target: Path, *, progress: bool = False) -> None:
    """Write the tensors of `source` to `target`, which ends up whole or as it was.

    Raises CheckpointError and OutputError.
    """
    tensors = read_tensors(source)
    # Wide elements first, so that each tensor starts at a multiple of its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries = [Entry(name, DTYPES[tensors[name].dtype], tuple(tensors[name].shape)) for name in names]
    total = sum(entry.nbytes for entry in entries)
    require_replaceable(target, "the checkpoint")
    prefix = f".{target.name}."
    with output_errors(target, total):
        target.parent.mkdir(parents=True, exist_ok=True)
    for _ in abandoned(target.parent, prefix=prefix):
        pass  # left by a run that was killed; removed as the iteration goes on
    with private_directory(target.parent, prefix=prefix) as private, output_errors(target, total):
        require_space(private, total)
        with ProgressBar("convert", total, enabled=progress) as bar:
            write_tensors(private / target.name, entries, lambda entry: _pieces(tensors[entry.name]), bar.advance)
        os.replace(private / target.name, target)


def read_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    """The pickle's tensors by name, memory-mapped. Raises CheckpointError for anything that is not just that."""
    if os.path.isdir(path):
        raise CheckpointError("is a folder", where=str(path), hint="name the files in it, such as *.pth")
    if not os.path.isfile(path):
        raise CheckpointError("no such file", where=str(path), exit_code=EXIT_NO_INPUT)
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError("the file cannot be read", where=str(path)) from error
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        # PyTorch's own text proposes to load it without restrictions.
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it names {named[1]}, which reading it would run" if named else "its pickle is not of that kind"
        raise CheckpointError(f"holds more than tensors: {found}", where=str(path)) from None
    except Exception:  # the loader has no error of its own for a damaged file
        with path.open("rb") as file:
            is_older = file.read(2) in PICKLES
        message = "not a file that torch.save wrote (PyTorch 1.6 or later), or a damaged one"
        hint = "is the download complete?"
        if is_older:
            message = "a pickle that is not in the form which torch.save writes since PyTorch 1.6"
            hint = "where you trust it, load it with torch.load and save it with torch.save once more"
        raise CheckpointError(message, where=str(path), hint=hint) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(f"is of type {type(loaded).__name__}, not tensors by name", where=str(path))
    tensors = _denoiser(cast("dict[object, object]", loaded))
    for name, value in tensors.items():
        if fault := _fault(name, value):
            raise CheckpointError(fault, where=str(path))
    return cast("dict[str, torch.Tensor]", tensors)


def _denoiser(loaded: dict[object, object]) -> dict[object, object]:
    """The tensors of a denoiser that lies in a training's checkpoint, under the names that Wan has for them; all that
    is there where it is none.

    Self-Forcing and CausVid save their generator so, its averaged weights beside the last ones, inside of wrappers.
    """
    found = next((loaded[key] for key in GENERATORS if isinstance(loaded.get(key), dict)), None)
    if found is None:
        return loaded
    tensors = cast("dict[object, object]", found)
    return {WRAPPED.sub("", name) if isinstance(name, str) else name: value for name, value in tensors.items()}


def _fault(name: object, value: object) -> str | None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return f"a tensor is called {name!r:.100}"
    if not isinstance(value, torch.Tensor):
        return f"{name} is of type {type(value).__name__}, not a tensor"
    if value.layout != torch.strided or value.is_quantized or value.dtype not in DTYPES:
        return f"{name} is a tensor of a kind that safetensors does not hold: {value.dtype}, {value.layout}"
    return None


def _pieces(tensor: torch.Tensor) -> Iterator[NDArray[Any]]:
    """The tensor's bytes in row-major order, whatever its strides; only then is it copied, as a whole."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    for start in range(0, data.numel(), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES].numpy()
