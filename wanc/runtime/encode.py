"""Prompt → text states, as Wan was trained to see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .embeddings import EmbeddingTable
from .sessions import Sessions
from .text import Tokenizer, clean_prompt


def encode_prompt(prompt: str, tokenizer: Tokenizer, table: EmbeddingTable, sessions: Sessions) -> NDArray[np.float32]:
    """The text states of a prompt, float32 [1, text_length, width].

    The encoder sees the prompt's own tokens; its output is padded with zeros to the model's text length, and the
    denoiser attends to the padding as well: it has no text mask, and shortening the text would change the result.
    """
    ids = tokenizer.encode(clean_prompt(prompt))
    embeddings = table.gather(ids)[None]
    mask = np.ones((1, len(ids)), np.int64)
    hidden = sessions.run("text_encoder", "encode", {"embeddings": embeddings, "mask": mask})["hidden"]
    return np.pad(hidden, ((0, 0), (0, tokenizer.text_length - len(ids)), (0, 0)))
