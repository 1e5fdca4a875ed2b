"""Files that hold weights in a form that wanc does not read: they are told as what they are, and not as damaged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from wanc.runtime.safetensors import HEADER_LIMIT

PICKLE = "a pickle, which can run code when it is read"
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How a pickle begins that lies in no zip archive, by its protocol."""
NOT_YET = "not supported yet"
ONE_FILE = f"a model in one file, without its configuration: {NOT_YET}"
# By the pattern that a file's name fits, in lower case; the first one counts.
NAMES: Mapping[str, str] = {
    "*.gguf": f"a GGUF file: {NOT_YET}",
    **dict.fromkeys(("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pkl"), PICKLE),
    "*.h5": f"weights of TensorFlow: {NOT_YET}",
    "*.msgpack": f"weights of Flax: {NOT_YET}",
    "*lora*.safetensors": f"a LoRA, which changes a model and is none: {NOT_YET}",
    "*.safetensors": ONE_FILE,
}
# By a file's first bytes.
BEGINNINGS: Mapping[bytes, str] = {
    b"GGUF": f"this is a GGUF file: {NOT_YET}",
    b"PK\x03\x04": f"this is {PICKLE}",
    **dict.fromkeys(PICKLES, f"this is {PICKLE}"),
    b"\x89HDF": f"these are weights of TensorFlow: {NOT_YET}",
    # The first line of git-lfs's pointer files: a clone without git-lfs leaves them in place of the weights.
    b"version https://git-lfs.github.com/spec/": "this is a pointer of git-lfs, not the file itself: run git lfs pull",
    b"<": "this is a web page: the download was answered with it",
    b"{": "this is a JSON document: the download was answered with it",
    b"\0" * 8: "it begins with zeros: is the download complete?",
}
HINT = "take the same model in safetensors, in bfloat16, float16 or float32"


def kind_of_name(path: Path) -> str | None:
    """What a file is, by its name; None where that tells nothing."""
    return next((kind for pattern, kind in NAMES.items() if fnmatchcase(path.name.lower(), pattern)), None)


def kind_of_beginning(path: Path) -> str | None:
    """What a file is that is no safetensors file, by its first bytes; None where those tell nothing."""
    with path.open("rb") as file:
        start = file.read(max(map(len, BEGINNINGS)))
    if 0 < int.from_bytes(start[:8], "little") <= HEADER_LIMIT:
        return None  # as such a file begins: it is damaged further on
    return next((kind for beginning, kind in BEGINNINGS.items() if start.startswith(beginning)), None)


def what_is_there(folder: Path) -> str | None:
    """The first file of weights that a folder holds in a form that is not read, and what it is; None without one."""
    for name in _files(folder):
        if kind := kind_of_name(Path(name)):
            return f"{name} is {kind}"
    return None


def instead_of(path: Path) -> tuple[str, str] | None:
    """(what is there in place of a safetensors file that is missing, what to do about it); None without anything.

    A variant has its name between the file's name and its suffix, as `model.fp16.safetensors`, in shards or not.
    """
    stem = path.name.removesuffix(".safetensors")
    for name in _files(path.parent):
        rest = name.removeprefix(f"{stem}.")
        variant = rest.removeprefix("safetensors.index.").removesuffix(".json") if rest.endswith(".json") else rest
        variant = variant.removesuffix(".safetensors").split("-")[0]
        if rest != name and variant and "." not in variant and rest.endswith((".safetensors", ".json")):
            hint = f"take the repository's files without .{variant} in their names"
            is_whole = rest == f"{variant}.safetensors"
            return f"{name} is a variant: {NOT_YET}", f"{hint}, or rename it to {path.name}" if is_whole else hint
    found = what_is_there(path.parent)
    return (found, HINT) if found and not found.endswith(ONE_FILE) else None


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    except OSError:  # no such folder, or one that may not be read
        return []
