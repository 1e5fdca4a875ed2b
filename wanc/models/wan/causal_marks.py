"""What says of a checkpoint that its model makes videos chunk by chunk: a class's name, or a key of a configuration.

Weights say nothing: a causal model has those of the bidirectional one that it was made of, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wanc.errors import CheckpointError
from wanc.models.wan.configuration import shown

CLASS = "_class_name"
CHUNK_KEYS = ("num_frame_per_block", "num_frames_per_block")
"""Latent frames that are made together."""
KEYS = (
    *CHUNK_KEYS,
    "causal",
    "is_causal",
    "local_attn_size",
    "sink_size",
    "kv_cache_size",
    "sliding_window_num_frames",
)
COUNTED = (*CHUNK_KEYS, "local_attn_size", "sink_size")
"""What is a number of latent frames."""
FIRST_FRAME_ALONE = "independent_first_frame"


class CausalMark(NamedTuple):
    """A value that says it, and the document that has it."""

    value: Any
    where: str


Marks = Mapping[str, CausalMark]
"""What marks a model as causal, by key; nothing of one that is not."""


def is_causal_class(name: object) -> bool:
    """Whether a class's name says that its models are causal."""
    return isinstance(name, str) and "causal" in name.lower()


def causal_marks(document: Mapping[str, Any], where: str) -> dict[str, CausalMark]:
    """Those of a configuration. Raises CheckpointError for a model whose chunks are not all alike, and where a number
    is none.
    """
    if document.get(FIRST_FRAME_ALONE):
        raise CheckpointError(
            f"this is a causal model that makes its first frame alone, by its {FIRST_FRAME_ALONE}: not built yet; "
            "today all chunks of a video are of the same length",
            where=where,
        )
    found = [CLASS] if is_causal_class(document.get(CLASS)) else []
    found += [key for key in KEYS if document.get(key) not in (None, False, 0, -1)]
    for key in found:
        if key in COUNTED and (type(document[key]) is not int or document[key] < 0):
            message = f"{key} is {shown(document[key])}, and not a number of latent frames"
            raise CheckpointError(message, where=where)
    return {key: CausalMark(document[key], where) for key in found}


def unread(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys of a configuration that are about this alone."""
    return frozenset({*KEYS, FIRST_FRAME_ALONE} & document.keys())
