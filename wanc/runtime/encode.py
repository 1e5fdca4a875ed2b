"""Prompt → text states, as Wan was trained to see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .embeddings import EmbeddingTable
from .text import Tokenizer, clean_prompt
from .value import Value

COMPONENT, GRAPH = "text_encoder", "encode"


class Encoder(Protocol):
    """What executes the text encoder: the executor of a bundle, or what stands for them at build time."""

    def run(self, component: str, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, Value]: ...


def encode_prompt(prompt: str, tokenizer: Tokenizer, table: EmbeddingTable, encoder: Encoder) -> NDArray[np.float32]:
    """The text states of a prompt, float32 [1, text_length, width].

    The encoder sees the prompt's own tokens; its output is padded with zeros to the model's text length, and the
    denoiser attends to the padding as well: it has no text mask, and shortening the text would change the result.
    """
    ids = tokenizer.encode(clean_prompt(prompt))
    embeddings = table.gather(ids)[None]
    mask = np.ones((1, len(ids)), np.int64)
    hidden = encoder.run(COMPONENT, GRAPH, {"embeddings": embeddings, "mask": mask})["hidden"].numpy()
    return np.pad(hidden, ((0, 0), (0, tokenizer.text_length - len(ids)), (0, 0)))
