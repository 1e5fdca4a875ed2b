"""Prompts to token ids, as Wan does it: cleaning, then the umT5 tokenizer (SentencePiece Unigram, arXiv 1804.10959)."""

from __future__ import annotations

import html
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from .errors import EXIT_NO_INPUT, BundleError
from .tokenizer_file import MAX_BYTES, read_definition

PROBES = ("", "a", "一只红色的猫在雪地里奔跑。")
"""What a tokenizer is tried with: nothing, and two scripts."""


def clean_prompt(prompt: str) -> str:
    """Repairs wrongly decoded text, resolves HTML entities (twice: some are escaped twice), collapses white space.

    The embeddings of a prompt depend on this, so the result is exactly what Wan's pipelines make of it.
    """
    is_plain = prompt.isascii() and prompt.isprintable() and "&" not in prompt
    if not is_plain:
        import ftfy  # imported late: that takes longer than to encode most prompts

        prompt = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    text = prompt.strip()
    return re.sub(r"\s+", " ", text).strip()


class Tokenizer:
    """A tokenizer of a bundle. Ids are int64 [tokens], with the end mark, not padded.

    `vocabulary` is the number of its tokens, those that were added included; `end_mark` is the one that ends each text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, text_length: int, where: str) -> None:
        # What the file says about these two belongs to whoever wrote it; the length that counts is the model's.
        backend.no_padding()
        backend.enable_truncation(max_length=text_length)
        self._backend, self._where = backend, where
        self.text_length = text_length
        self.vocabulary = backend.get_vocab_size(with_added_tokens=True)

    @property
    def end_mark(self) -> int:
        return int(self.encode("")[-1])

    @classmethod
    def open(cls, folder: Path, text_length: int, shown: str | None = None) -> Tokenizer:
        """Reads `tokenizer.json` (the format of the `tokenizers` library) in `folder`.

        Args:
            folder: where the file lies.
            text_length: the most tokens of a prompt, end mark included: 512 for Wan.
            shown: what errors call the file, if not by its path.

        Raises:
            BundleError: no such file, not a tokenizer of umT5's kind, or one that adds no end mark.
        """
        path = folder / "tokenizer.json"
        where = shown or str(path)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BundleError(f"larger than the {MAX_BYTES} bytes that a tokenizer may have", where=where)
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise BundleError("no tokenizer here", where=where, exit_code=EXIT_NO_INPUT) from error
        except OSError as error:
            raise BundleError("the tokenizer cannot be read", where=where) from error
        definition = read_definition(data, where=where)
        with _failing("not a tokenizer definition", where):
            tokenizer = cls(tokenizers.Tokenizer.from_str(definition), text_length, where)
        tokenizer._check_probes()
        return tokenizer

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids of a cleaned prompt; where it exceeds `text_length`, its tail is cut and the end mark kept.

        Raises BundleError where the library fails on it.
        """
        return np.array(self._encoded(text).ids, dtype=np.int64)

    def count(self, text: str) -> int:
        """How many tokens a cleaned prompt has, end mark included, before anything is cut. Raises as `encode` does."""
        encoding = self._encoded(text)
        marks = self._backend.num_special_tokens_to_add(is_pair=False)
        return len(encoding.ids) + sum(len(rest.ids) - marks for rest in encoding.overflowing)

    def _encoded(self, text: str) -> tokenizers.Encoding:
        with _failing("the tokenizer fails on this text", self._where):
            return self._backend.encode(text)

    def _check_probes(self) -> None:
        """Every text ends with the same token, the empty one too: without that mark nothing would be encoded of it."""
        found = [self.encode(probe) for probe in PROBES]
        if not all(len(ids) for ids in found) or len({int(ids[-1]) for ids in found}) > 1:
            raise BundleError(
                "the tokenizer adds no end mark",
                where=self._where,
                hint="its post_processor has to add </s>, as transformers' T5TokenizerFast saves it",
            )
        if (largest := max(int(ids.max()) for ids in found)) >= self.vocabulary:
            raise BundleError(f"the tokenizer gives {largest}, and has {self.vocabulary} tokens", where=self._where)


@contextmanager
def _failing(message: str, where: str) -> Generator[None]:
    """What the library raises as a BundleError.

    Where it panics, it has printed so itself, on the descriptor 2, which no other thread's words should be kept from.
    """
    try:
        yield
    except Exception as error:  # the library raises nothing narrower
        raise BundleError(message, where=where) from error
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # its PanicException cannot be imported
            raise
        raise BundleError(f"{message}: what stands above is the library's own account", where=where) from None
