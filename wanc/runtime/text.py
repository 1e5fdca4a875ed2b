"""Prompts to token ids, as Wan does it: cleaning, then the umT5 tokenizer (SentencePiece Unigram, arXiv 1804.10959)."""

from __future__ import annotations

import html
import re
from pathlib import Path

import ftfy
import numpy as np
import tokenizers
from numpy.typing import NDArray

from .errors import EXIT_NO_INPUT, BundleError

MAX_BYTES = 64 * 2**20  # umT5's, with 256,384 pieces, has a quarter of that


def clean_prompt(prompt: str) -> str:
    """Repairs wrongly decoded text, resolves HTML entities (twice: some are escaped twice), collapses white space.

    The embeddings of a prompt depend on this, so the result is exactly what Wan's pipelines make of it.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


class Tokenizer:
    """A tokenizer of a bundle. Ids are int64 [tokens], with the end mark, not padded."""

    def __init__(self, backend: tokenizers.Tokenizer, text_length: int) -> None:
        # What the file says about these two belongs to whoever wrote it; the length that counts is the model's.
        backend.no_padding()
        backend.enable_truncation(max_length=text_length)
        self._backend = backend
        self.text_length = text_length

    @classmethod
    def open(cls, folder: Path, text_length: int) -> Tokenizer:
        """Reads `tokenizer.json` (the format of the `tokenizers` library) in `folder`.

        Args:
            folder: where the file lies.
            text_length: the most tokens of a prompt, end mark included: 512 for Wan.

        Raises:
            BundleError: no such file, or not a tokenizer.
        """
        path = folder / "tokenizer.json"
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BundleError(f"larger than the {MAX_BYTES} bytes that a tokenizer may have", where=str(path))
            definition = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise BundleError("no tokenizer here", where=str(path), exit_code=EXIT_NO_INPUT) from error
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError("the tokenizer cannot be read", where=str(path)) from error
        try:
            backend = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises nothing narrower
            raise BundleError("not a tokenizer definition", where=str(path)) from error
        return cls(backend, text_length)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids of a cleaned prompt; where it exceeds `text_length`, its tail is cut and the end mark kept."""
        return np.array(self._backend.encode(text).ids, dtype=np.int64)

    def count(self, text: str) -> int:
        """How many tokens a cleaned prompt has, end mark included, before anything is cut."""
        encoding = self._backend.encode(text)
        marks = self._backend.num_special_tokens_to_add(is_pair=False)
        return len(encoding.ids) + sum(len(rest.ids) - marks for rest in encoding.overflowing)
