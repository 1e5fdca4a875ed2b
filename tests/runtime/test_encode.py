"""Text states are kept: what is asked again is not encoded again, as long as there is room."""

from __future__ import annotations

import numpy as np

from wanc.runtime.encode import TextStates

STATES = np.zeros((1, 4, 4), np.float32)


def encoded(prompts: str, most_bytes: int) -> str:
    """What is encoded when these prompts, a letter each, are wanted one after the other."""
    seen: list[str] = []

    def encode(prompt: str) -> np.ndarray:
        seen.append(prompt)
        return STATES + ord(prompt)

    texts = TextStates(encode, most_bytes)
    for prompt in prompts:
        np.testing.assert_array_equal(texts.of(prompt), STATES + ord(prompt))
    return "".join(seen)


def test_each_prompt_is_encoded_once() -> None:
    assert encoded("anbnanbnn", 2**20) == "anb"


def test_what_is_wanted_again_and_again_stays_where_there_is_little_room() -> None:
    assert encoded("anbncndnan", 2 * STATES.nbytes) == "anbcda"


def test_one_is_kept_however_large_it_is() -> None:
    assert encoded("aabba", 0) == "aba"
