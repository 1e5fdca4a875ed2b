"""Prompt → text states, as Wan was trained to see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .embeddings import EmbeddingTable
from .events import CACHE_HITS, CACHE_MISSES, count
from .model import ENCODE, TEXT_ENCODER
from .pool import Empty
from .text import Tokenizer, clean_prompt
from .value import Value, expect

COMPONENT, GRAPH = TEXT_ENCODER, ENCODE
MOST_KEPT_BYTES = 256 * 2**20
"""Of text states: the longest prompt's are 8 MiB for umT5-xxl."""


class Encoder(Protocol):
    """What executes the text encoder: the executor of a bundle, or what stands for them at build time."""

    def run(self, component: str, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, Value]: ...


class TextStates:
    """The text states of prompts, each encoded once: those that were wanted last, as many as `most_bytes` hold."""

    def __init__(self, encode: Callable[[str], NDArray[np.float32]], most_bytes: int = MOST_KEPT_BYTES) -> None:
        self._encode, self._most_bytes = encode, most_bytes
        self._kept: dict[str, NDArray[np.float32]] = {}
        self._lock = Lock()

    def of(self, prompt: str) -> NDArray[np.float32]:
        """The states of a prompt, float32 [1, text_length, width]. Several threads may ask; one encodes at a time."""
        with self._lock:
            states = self._kept.pop(prompt, None)
            count(CACHE_MISSES if states is None else CACHE_HITS, cache="text")
            if states is None:
                states = self._encode(prompt)
            self._kept[prompt] = states  # behind all others
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._most_bytes:
                del self._kept[next(iter(self._kept))]
            return states


def encode_prompt(
    prompt: str, tokenizer: Tokenizer, table: EmbeddingTable, encoder: Encoder, empty: Empty = np.empty
) -> NDArray[np.float32]:
    """The text states of a prompt, float32 [1, text_length, width], an array that `empty` makes."""
    inputs = encoder_inputs(prompt, tokenizer, table, empty)
    return text_states(encoder.run(COMPONENT, GRAPH, inputs), inputs, tokenizer.text_length, empty)


def encoder_inputs(
    prompt: str, tokenizer: Tokenizer, table: EmbeddingTable, empty: Empty = np.empty
) -> dict[str, NDArray[Any]]:
    """What the encoder is given of a prompt, its own tokens: embeddings float32 [1, tokens, width], mask int64."""
    ids = tokenizer.encode(clean_prompt(prompt))
    return {"embeddings": table.gather(ids, empty)[None], "mask": np.ones((1, len(ids)), np.int64)}


def text_states(
    results: Mapping[str, Value], inputs: Mapping[str, NDArray[Any]], text_length: int, empty: Empty = np.empty
) -> NDArray[np.float32]:
    """What the encoder has made of such inputs as a denoiser sees it, float32 [1, text_length, width].

    It is padded with zeros to the model's text length, and the denoiser attends to the padding as well: it has no text
    mask, and shortening the text would change the result.
    """
    tokens = inputs["mask"].shape[1]
    hidden = expect(results["hidden"], "hidden", (1, tokens, None))
    states = empty((1, text_length, hidden.shape[2]), np.float32)
    states[:, :tokens], states[:, tokens:] = hidden, 0
    return states
