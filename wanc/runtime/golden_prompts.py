"""Where the golden record of a video's bundle begins: prompts, and the token ids that they had where it was built.

The first one's ids give the rows of the embedding table that the text encoder's golden inputs are. So a library that
makes other tokens of a text shows in the self-test, and not in a video of something else.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .folder import VerifiedFolder
from .golden import FOLDER
from .prompts import prompt_fault
from .strict_json import Fields, parse_object

if TYPE_CHECKING:
    from .embeddings import EmbeddingTable
    from .text import Tokenizer

FILE = f"{FOLDER}/prompts.json"
MOST_BYTES = 2**20
MOST_PROMPTS = 64


@dataclass(frozen=True)
class GoldenPrompt:
    """A prompt as somebody writes it, and its ids, the end mark included."""

    prompt: str
    ids: tuple[int, ...]

    @classmethod
    def record(cls, prompt: str, tokenizer: Tokenizer) -> GoldenPrompt:
        from .text import clean_prompt  # imported late: a bundle is opened without the libraries that texts take

        return cls(prompt, tuple(tokenizer.encode(clean_prompt(prompt)).tolist()))

    def fits(self, tokenizer: Tokenizer) -> bool:
        """Whether the tokenizer still gives these ids."""
        return GoldenPrompt.record(self.prompt, tokenizer) == self


def write_prompts(prompts: Sequence[GoldenPrompt], out: Path) -> None:
    """Write the record to its place below `out`."""
    document = {"prompts": [{"prompt": entry.prompt, "ids": list(entry.ids)} for entry in prompts]}
    (out / FILE).write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_prompts(folder: VerifiedFolder, text_length: int) -> list[GoldenPrompt]:
    """The record of a bundle. Raises BundleError for what is none: at least one prompt, and as many ids as may be."""
    where = folder.shown(FILE)
    document = parse_object(folder.read(FILE, _first_bytes), where=where, max_bytes=MOST_BYTES)
    entries = document.objects("prompts")
    if not 1 <= len(entries) <= MOST_PROMPTS:
        document.refuse("prompts", f"has {len(entries)} entries; there are 1 to {MOST_PROMPTS}")
    return [GoldenPrompt(_prompt(entry), _ids(entry, text_length)) for entry in entries]


def has_rows(table: EmbeddingTable, prompt: GoldenPrompt, embeddings: NDArray[Any]) -> bool:
    """Whether the table's rows of a prompt are these embeddings, [1, tokens, width], bit by bit."""
    return np.array_equal(table.gather(np.array(prompt.ids, np.int64))[None], embeddings)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MOST_BYTES + 1)


def _prompt(entry: Fields) -> str:
    prompt = entry.text("prompt")
    if fault := prompt_fault(prompt):
        entry.refuse("prompt", fault)
    return prompt


def _ids(entry: Fields, text_length: int) -> tuple[int, ...]:
    found = entry.numbers("ids", minimum=0, maximum=2**31)
    if not 1 <= len(found) <= text_length or any(number % 1 for number in found):
        entry.refuse("ids", f"must be 1 to {text_length} token numbers")
    return tuple(map(int, found))
