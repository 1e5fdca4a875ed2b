"""`tokenizer.json`, the format of the `tokenizers` library, as far as umT5's goes: read and bounded before it is used.

The library trusts such a file: it panics where one number leads to nothing, and takes any regular expression. So what
it is given here is of the parts that a SentencePiece Unigram tokenizer has, each with its own limits; what any text of
64 KiB costs with these is bounded as well.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping

from .charsmap import charsmap_fault
from .errors import BundleError
from .strict_json import Fields, JsonObject, JsonValue, parse_object

MAX_BYTES = 64 * 2**20  # umT5's, with 256,384 pieces, has a quarter of that
MOST_PIECE_BYTES = 256
MOST_PIECES_BYTES = 4 * 2**20
"""Of all pieces together: each byte may become a node of the library's trie."""
MOST_ADDED = 1024
MOST_STEPS = 8
"""Of a normalizer or a pre-tokenizer, one after the other."""
MOST_OF_A_KIND = {"Replace": 2}
"""In one row; of any other kind there is one. What one makes longer, the next makes longer again."""
MOST_TEMPLATE = 8
LARGEST_ID = 2**31 - 1
LARGEST_SCORE = 1e6
EXPRESSIONS = frozenset({" {2,}", " +", r"\s{2,}", r"\s+"})
"""Regular expressions that a normalizer may replace: those that need no second look at any character."""

Check = Callable[[Fields, str], object]
Kinds = Mapping[str, Mapping[str, Check]]


def read_definition(data: bytes, *, where: str) -> str:
    """The text that the library is to be given: what the file says, without padding, truncation and decoder.

    Raises BundleError, about the file at `where`, for what is no tokenizer of umT5's kind.
    """
    try:
        fields = parse_object(data, where=where, max_bytes=MAX_BYTES)
        _check(fields)
    except BundleError as error:
        hint = "a tokenizer.json as transformers' T5TokenizerFast saves it"
        raise BundleError(f"not a tokenizer definition: {error.message}", where=error.where, hint=hint) from None
    # These belong to whoever wrote the file; the length that counts is the model's, and nothing is decoded.
    unused: JsonObject = {"truncation": None, "padding": None, "decoder": None}
    return json.dumps({**fields.values, **unused}, ensure_ascii=False)


def _check(fields: Fields) -> None:
    _known(fields, ROOT)
    if fields.values.get("post_processor") is None:
        fields.refuse("post_processor", "is null: nothing adds the end mark, which every prompt has to have")


def _known(fields: Fields, known: Mapping[str, Check]) -> None:
    """Every key is one of these, and its value as it should be."""
    for key in fields.values:
        if key not in known:
            fields.refuse(ascii(key)[:80], f"is not one of {', '.join(known) or 'none'}")
        known[key](fields, key)


def _any(fields: Fields, name: str) -> None:
    """A value that nothing reads."""


def _text(most_bytes: int) -> Check:
    def check(fields: Fields, name: str) -> None:
        size = len(fields.text(name).encode())
        if not 0 < size <= most_bytes:
            fields.refuse(name, f"must be 1 to {most_bytes} bytes long, not {size}")

    return check


def _number(fields: Fields, name: str) -> None:
    fields.integer(name, maximum=LARGEST_ID)


def _character(fields: Fields, name: str) -> None:
    if len(fields.text(name)) != 1:
        fields.refuse(name, "must be a single character")


def _one_of(*words: str) -> Check:
    def check(fields: Fields, name: str) -> None:
        if (value := fields.text(name)) not in words:
            fields.refuse(name, f"is {ascii(value)[:80]}, not one of {', '.join(words)}")

    return check


def _content(fields: Fields, name: str) -> None:
    """What replaces something: a space, or the mark of one."""
    if (size := len(fields.text(name).encode())) > 4:
        fields.refuse(name, f"must be at most 4 bytes long, not {size}")


def _pattern(fields: Fields, name: str) -> None:
    pattern = fields.object(name)
    _known(pattern, {"String": _text(MOST_PIECE_BYTES), "Regex": _one_of(*sorted(EXPRESSIONS))})


def _charsmap(fields: Fields, name: str) -> None:
    if fault := charsmap_fault(fields.text(name)):
        fields.refuse(name, fault)


def _steps(kinds: Kinds, row: str) -> Check:
    """One of these kinds, or a row of them, or null."""

    def check(fields: Fields, name: str) -> None:
        if fields.values[name] is None:
            return
        step = fields.object(name)
        steps = step.objects(row) if step.text("type") == "Sequence" else [step]
        if len(steps) > MOST_STEPS:
            step.refuse(row, f"has {len(steps)} entries, more than the {MOST_STEPS} allowed")
        for entry in steps:
            kind = entry.text("type")
            if kind not in kinds:
                entry.refuse("type", f"is {ascii(kind)[:80]}, not one of {', '.join(kinds)}")
            _known(entry, {"type": Fields.text, **kinds[kind]})
        for kind, count in Counter(entry.text("type") for entry in steps).items():
            if count > MOST_OF_A_KIND.get(kind, 1):
                fields.refuse(name, f"has {count} of the type {kind}")

    return check


def _added(fields: Fields, name: str) -> None:
    entries = fields.objects(name)
    if len(entries) > MOST_ADDED:
        fields.refuse(name, f"has {len(entries)} entries, more than the {MOST_ADDED} allowed")
    for entry in entries:
        _known(entry, ADDED)


def _pieces(fields: Fields, name: str) -> None:
    total = 0
    for index, item in enumerate(_list(fields, name)):
        piece, score = item if isinstance(item, list) and len(item) == 2 else (None, None)
        if not isinstance(piece, str) or isinstance(score, bool) or not isinstance(score, (int, float)):
            fields.refuse(f"{name}[{index}]", "must be a piece and its score")
        size = len(piece.encode())
        if not 0 < size <= MOST_PIECE_BYTES:
            fields.refuse(f"{name}[{index}]", f"must be a piece of 1 to {MOST_PIECE_BYTES} bytes, not of {size}")
        if abs(score) > LARGEST_SCORE:
            fields.refuse(f"{name}[{index}]", f"must have a score within {LARGEST_SCORE:g}, not {score}")
        total += size
    if total > MOST_PIECES_BYTES:
        fields.refuse(name, f"has pieces of {total} bytes, more than the {MOST_PIECES_BYTES} allowed")


def _model(fields: Fields, name: str) -> None:
    model = fields.object(name)
    _known(model, MODEL)
    pieces = _list(model, "vocab")
    if not pieces:
        model.refuse("vocab", "is empty")
    model.integer("unk_id", maximum=len(pieces) - 1)


def _template(fields: Fields, name: str) -> None:
    """A prompt and the marks that are added to it."""
    if fields.values[name] is None:
        return
    template = fields.object(name)
    _known(template, TEMPLATE)
    marks, single = template.object("special_tokens"), template.objects("single")
    if max(len(marks.values), len(single)) > MOST_TEMPLATE:
        template.refuse("single", f"and special_tokens may have {MOST_TEMPLATE} entries")
    for mark in marks.values:
        entry = marks.object(mark)
        ids = [_id(entry, index, item) for index, item in enumerate(_list(entry, "ids"))]
        if not 1 == len(ids) == len(entry.texts("tokens")):
            entry.refuse("ids", "must be one, of one token")
    texts = 0
    for piece in single:
        _known(piece, {"Sequence": _sequence, "SpecialToken": _any})
        texts += "Sequence" in piece.values
        if "SpecialToken" in piece.values and piece.object("SpecialToken").text("id") not in marks.values:
            piece.refuse("SpecialToken.id", "is not one of special_tokens")
    if texts != 1:
        template.refuse("single", "must have one text")


def _sequence(fields: Fields, name: str) -> None:
    _known(fields.object(name), {"id": _one_of("A"), "type_id": _number})


def _id(fields: Fields, index: int, item: JsonValue) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= LARGEST_ID:
        fields.refuse(f"ids[{index}]", "must be a token's number")
    return item


def _list(fields: Fields, name: str) -> list[JsonValue]:
    value = fields.values.get(name)
    if not isinstance(value, list):
        fields.refuse(name, "must be a list")
    return value


NORMALIZERS: Kinds = {
    "NFC": {},
    "NFD": {},
    "NFKC": {},
    "NFKD": {},
    "Nmt": {},
    "Lowercase": {},
    "Strip": {"strip_left": Fields.boolean, "strip_right": Fields.boolean},
    "Replace": {"pattern": _pattern, "content": _content},
    "Precompiled": {"precompiled_charsmap": _charsmap},
}
PRE_TOKENIZERS: Kinds = {
    "WhitespaceSplit": {},
    "Metaspace": {
        "replacement": _character,
        "prepend_scheme": _one_of("always", "first", "never"),
        "split": Fields.boolean,
        # As older versions of the library wrote it.
        "add_prefix_space": Fields.boolean,
        "str_rep": _character,
    },
}
MODEL: Mapping[str, Check] = {
    "type": _one_of("Unigram"),
    "unk_id": _number,
    "vocab": _pieces,
    "byte_fallback": Fields.boolean,
}
ADDED: Mapping[str, Check] = {
    "id": _number,
    "content": _text(MOST_PIECE_BYTES),
    **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), Fields.boolean),
}
TEMPLATE: Mapping[str, Check] = {
    "type": _one_of("TemplateProcessing"),
    "single": _any,
    "pair": _any,
    "special_tokens": _any,
}
ROOT: Mapping[str, Check] = {
    "version": _one_of("1.0"),
    "truncation": _any,
    "padding": _any,
    "added_tokens": _added,
    "normalizer": _steps(NORMALIZERS, "normalizers"),
    "pre_tokenizer": _steps(PRE_TOKENIZERS, "pretokenizers"),
    "post_processor": _template,
    "decoder": _any,
    "model": _model,
}
