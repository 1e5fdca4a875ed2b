"""What both layouts are made of: JSON documents, and safetensors files, sharded or not. No weight is read."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from wanc.errors import CheckpointError
from wanc.models.wan.causal_marks import CausalMark, Marks
from wanc.models.wan.doubts import Doubt
from wanc.models.wan.foreign_files import instead_of, kind_of_beginning
from wanc.models.wan.tensors import Shapes
from wanc.models.weights import Weight
from wanc.runtime.errors import BundleError
from wanc.runtime.safetensors import UnreadDtypeError, read_header

# Wan was trained with 512 text tokens; a tokenizer may declare fewer, and some declare a meaningless 10^30.
LONGEST_TEXT = 512
# The token </s> of umT5.
END_MARK = 1
ONNX_DTYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}
UNREAD_HINT = "take the same model in bfloat16, float16 or float32"
JSON_LIMIT = 4 * 2**20
JSON_DEPTH = 32
COMPANION = "companion/"
"""What the names of a companion's files begin with."""
WEIGHTS_STEM = "diffusion_pytorch_model"
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")

Layout = Literal["diffusers", "original"]


@dataclass(frozen=True)
class Component:
    """One component as stored: its canonical configuration, and its weights by canonical name.

    `folder` is relative to the checkpoint, as are the files of the weights. Where a text encoder's embedding is stored
    under both of its names, `embedding_twin` is the second one.
    """

    folder: str
    config: Mapping[str, Any]
    weights: Mapping[str, Weight]
    embedding_twin: Weight | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A Wan model on disk. `files` lists everything that was or will be read, relative to `root`.

    A model of one expert has the component `denoiser_high` alone, and no boundary. `tokenizer` is the path of
    `tokenizer.json`, relative to `root`, where the text encoder is among the components, and `end_mark` the token with
    which the text encoder expects a text to end. `shift` is that of the scheduler, None where none is said. `doubts`
    are what the checkpoint says besides, and `causal` is what says that it makes videos chunk by chunk.

    Of a `companion` it has the text encoder, the tokenizer and the VAE: their files are called `companion/…`.
    """

    root: Path
    layout: Layout
    components: Mapping[str, Component]
    boundary: float | None
    text_length: int
    tokenizer: str | None
    files: tuple[str, ...]
    doubts: tuple[Doubt, ...] = ()
    shift: float | None = None
    end_mark: int = END_MARK
    causal: Marks = field(default_factory=dict[str, CausalMark])
    companion: Checkpoint | None = None

    def owner(self, component: str) -> Checkpoint:
        """The checkpoint in whose folder a component lies, and which calls its files as they are called there."""
        is_own = self.companion is None or component not in self.companion.components
        return self if is_own else self.companion  # pyright: ignore[reportReturnType]

    def path(self, name: str) -> Path:
        """Where one of its files lies."""
        if self.companion is not None and name.startswith(COMPANION):
            return self.companion.root / name.removeprefix(COMPANION)
        return self.root / name


def read_json(root: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the checkpoint. Raises CheckpointError for anything else."""
    path = root / name
    try:
        with path.open("rb") as stream:
            data = stream.read(JSON_LIMIT + 1)
        if len(data) > JSON_LIMIT:
            raise CheckpointError(f"more than {JSON_LIMIT} bytes of JSON", where=str(path))
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys)
        _check_depth(document)
    except FileNotFoundError as error:
        raise CheckpointError("missing file", where=str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError("not a readable JSON file", where=str(path)) from error
    if not isinstance(document, dict):
        raise CheckpointError("a JSON object was expected", where=str(path))
    return cast("dict[str, Any]", document)


def parts_wanted(root: Path, present: Sequence[str], components: Sequence[str] | None) -> Sequence[str]:
    """The components to open: those asked for, or all. Raises CheckpointError for one that the model lacks."""
    names = components or present
    if missing := [name for name in names if name not in present]:
        raise CheckpointError(
            f"the model has no component {missing[0]}", where=str(root), hint=f"it has: {', '.join(present)}"
        )
    return names


def sharded_weights(root: Path, single: str) -> dict[str, Weight]:
    """Every tensor of the file `single`, or of the shards that the index beside it lists. Raises CheckpointError."""
    folder, _, _ = single.rpartition("/")
    index_name = f"{single}.index.json"
    if not os.path.isfile(root / index_name):
        return file_weights(root, single)
    located = _weight_map(root, index_name)
    weights: dict[str, Weight] = {}
    for shard in sorted(set(located.values())):
        held = file_weights(root, f"{folder}/{shard}".removeprefix("/"))
        if twice := sorted(weights.keys() & held.keys()):
            raise CheckpointError(
                f"holds {twice[0]}, which {Path(weights[twice[0]].file).name} holds as well",
                where=str(root / held[twice[0]].file),
                hint="are these shards of one download?",
            )
        weights |= held
    for name, file in located.items():
        if name not in weights or Path(weights[name].file).name != file:
            raise CheckpointError(
                f"the index names {name:.512}, which {file} does not hold", where=str(root / index_name)
            )
    if unlisted := sorted(weights.keys() - located.keys()):
        raise CheckpointError(
            f"holds {unlisted[0]}, which {Path(index_name).name} does not list",
            where=str(root / weights[unlisted[0]].file),
        )
    return weights


def file_weights(root: Path, name: str) -> dict[str, Weight]:
    """Every tensor of one safetensors file. Raises CheckpointError."""
    path = root / name
    # Not Path.is_file, which raises for a folder that may not be searched.
    if not os.path.isfile(path):
        found, hint = instead_of(path) or (None, "is the download complete?")
        raise CheckpointError(f"missing weights: {found}" if found else "missing weights", where=str(path), hint=hint)
    try:
        header = read_header(path)
    except UnreadDtypeError as error:
        raise CheckpointError(error.message, where=str(path), hint=UNREAD_HINT) from None
    except BundleError as error:
        raise CheckpointError(
            "not a readable safetensors file", where=str(path), hint=kind_of_beginning(path)
        ) from error
    weights: dict[str, Weight] = {}
    for tensor, info in header.items():
        if info.dtype not in ONNX_DTYPES:
            raise CheckpointError(
                f"{tensor} has dtype {info.dtype}; wanc reads {', '.join(ONNX_DTYPES)}",
                where=str(path),
                hint=UNREAD_HINT,
            )
        weights[tensor] = Weight(name, info.offset, info.length, ONNX_DTYPES[info.dtype], tuple(info.shape))
    return weights


def matched(root: Path, folder: str, stored: Mapping[str, Weight], expected: Shapes) -> dict[str, Weight]:
    """The stored tensors, in the order of the expected ones: exactly these, each of its shape.

    Raises CheckpointError naming the first tensor that is unknown, missing or of another shape, and its file, or the
    folder (relative to the checkpoint) where there is none.
    """
    for name, weight in stored.items():
        if name not in expected:
            raise CheckpointError(
                f"holds {name}, a tensor that a model of this configuration does not have",
                where=str(root / weight.file),
            )
    for name, shape in expected.items():
        if name not in stored:
            files = {weight.file for weight in stored.values()}
            where = root / (files.pop() if len(files) == 1 else folder)
            raise CheckpointError(f"the weights hold no tensor named {name}", where=str(where))
        if stored[name].shape != shape:
            raise CheckpointError(
                f"{name} has shape {list(stored[name].shape)}; its configuration asks for {list(shape)}",
                where=str(root / stored[name].file),
            )
    return {name: stored[name] for name in expected}


def _weight_map(root: Path, index_name: str) -> dict[str, str]:
    """The index's tensor → file. A file elsewhere than beside the index would be read behind the user's back."""
    located = read_json(root, index_name).get("weight_map")
    if not isinstance(located, dict) or not all(
        isinstance(file, str) and _FILE_NAME.fullmatch(file) for file in cast("dict[str, object]", located).values()
    ):
        raise CheckpointError(
            "weight_map must name a file of this folder for each tensor", where=str(root / index_name)
        )
    return cast("dict[str, str]", located)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which one of two equal keys they take."""
    unique = dict(pairs)
    if len(unique) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"duplicate key {counts.most_common(1)[0][0]!r:.80}")
    return unique


def _check_depth(document: object) -> None:
    """What follows may recurse: printing a value does. A scalar has depth 0."""
    level: list[object] = [document]
    for _ in range(JSON_DEPTH + 1):
        level = [child for item in level for child in _children(item)]
    if level:
        raise ValueError(f"nested deeper than {JSON_DEPTH}")


def _children(item: object) -> Iterable[object]:
    if isinstance(item, dict):
        return cast("dict[str, object]", item).values()
    return cast("list[object]", item) if isinstance(item, list) else ()
