"""Whether a tokenizer's settings say what it does.

What makes ids of a text is `tokenizer.json`. transformers adds to it the tokens that `tokenizer_config.json` names
besides, and texts come out otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from wanc.models.wan.configuration import Config, shown
from wanc.models.wan.doubts import Doubt

CLASSES = ("T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
"""The classes that take a text as `tokenizer.json` says; the last two know nothing else."""
END = "</s>"
SINGLE = tuple(f"{name}_token" for name in ("bos", "cls", "eos", "mask", "pad", "sep", "unk"))
SEVERAL = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")
TOKEN_KEYS = (*SINGLE, *SEVERAL, "extra_ids")
"""The settings that name tokens."""


def doubts_of_settings(document: Config, definition: bytes, where: str) -> list[Doubt]:
    """What `tokenizer_config.json`, at `where`, says that `tokenizer.json`, of which these are the bytes, does not.

    Of a file without an end mark nothing: what is wrong with it is told when it is opened.
    """
    if not _holds(definition, END):
        return []
    doubts: list[Doubt] = []
    for key, tokens in _named_tokens(document):
        if absent := [token for token in tokens if not _holds(definition, token)]:
            doubts.append(Doubt(key, f"{key} names {shown(absent[0])}, which is no token of tokenizer.json", where))
    if _content(document.get("eos_token", END)) not in (END, None):
        doubts.append(
            Doubt("eos_token", f"eos_token is {shown(document['eos_token'])}; it must be {shown(END)}", where)
        )
    if (name := document.get("tokenizer_class")) not in (*CLASSES, None):
        doubts.append(Doubt("tokenizer_class", f"tokenizer_class is {shown(name)}; it must be {CLASSES[0]}", where))
    return doubts


def _named_tokens(document: Config) -> Iterator[tuple[str, list[object]]]:
    """The keys that name tokens, each with those that it names."""
    for key in SINGLE:
        if (value := document.get(key)) is not None:
            yield key, [_content(value)]
    for key in SEVERAL:
        if value := document.get(key):
            entries = cast("Any", value).values() if isinstance(value, dict) else value
            yield key, [_content(entry) for entry in entries] if isinstance(value, dict | list) else [value]
    if count := document.get("extra_ids"):
        is_number = isinstance(count, int) and not isinstance(count, bool)
        yield "extra_ids", [f"<extra_id_{cast('int', count) - 1}>" if is_number else count]


def _content(entry: object) -> object:
    """A token stands as its text, or as an object that has it as its content."""
    return cast("dict[str, object]", entry).get("content") if isinstance(entry, dict) else entry


def _holds(definition: bytes, token: object) -> bool:
    texts = {json.dumps(token, ensure_ascii=ascii) for ascii in (True, False)}
    return isinstance(token, str) and any(text.encode() in definition for text in texts)
