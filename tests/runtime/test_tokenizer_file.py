"""Tokenizer files that lie or blow up: refused when they are opened, without a panic, in bounded time and memory."""

from __future__ import annotations

import base64
import copy
import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoints import tokenizer
from tests.cost import assert_read_or_refused
from wanc.runtime.errors import BundleError
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.prompts import MOST_PROMPT_BYTES
from wanc.runtime.text import Tokenizer

Json = Any
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def definition() -> Json:
    return json.loads(tokenizer(16).backend_tokenizer.to_str())


def write(folder: Path, document: Json) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


def changed(document: Json, *keys: str | int, value: Json) -> Json:
    result = copy.deepcopy(document)
    inner = result
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return result


def replace(pattern: Json, content: str = "▁") -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def trie(*words: tuple[str, str]) -> str:
    """A characters' map: a double-array trie of the words, and what each becomes, as SentencePiece writes it."""
    text, places = b"", {}
    for word, replacement in words:
        places[word.encode()] = len(text)
        text += replacement.encode() + b"\0"
    units: dict[int, int] = {}
    blocks = iter(range(256, 2**20, 256))

    def place(node: bytes, position: int, label: int) -> None:
        """A node's children lie in a block of their own, and its value where a NUL would lead."""
        base = next(blocks)
        units[position] = label | (position ^ base) << 10
        if node in places:
            units[position] |= 1 << 8
            units[base] = 1 << 31 | places[node]
        for child in sorted({word[len(node)] for word in places if word.startswith(node) and len(word) > len(node)}):
            place(node + bytes([child]), base ^ child, child)

    place(b"", 0, 0)
    length = (max(units) | 0xFF) + 1
    packed = b"".join(struct.pack("<I", units.get(index, 0)) for index in range(length))
    return base64.b64encode(struct.pack("<I", len(packed)) + packed + text).decode()


def precompiled(charsmap: str) -> Json:
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


SOUND = trie(("ａ", "a"), ("ｂ", "b"), ("…", "..."), ("ﷺ", "x" * 33), ("é", "e"))


def damaged(change: Any) -> Json:
    data = bytearray(base64.b64decode(SOUND))
    change(data)
    return precompiled(base64.b64encode(bytes(data)).decode())


def lead_away(data: bytearray) -> None:
    data[4:8] = struct.pack("<I", 0x1FFFFF << 10)


def point_away(data: bytearray) -> None:
    """Every value lies behind the replacements."""
    size = int.from_bytes(data[:4], "little")
    for place in range(4, 4 + size, 4):
        (unit,) = struct.unpack_from("<I", data, place)
        if unit >> 31:
            struct.pack_into("<I", data, place, unit | 0xFFFFF)


def point_inside(data: bytearray) -> None:
    """The first replacement becomes part of a character."""
    size = int.from_bytes(data[:4], "little")
    data[4 + size : 4 + size + 4] = "ééé".encode()[:4]
    for place in range(4, 4 + size, 4):
        (unit,) = struct.unpack_from("<I", data, place)
        if unit == 1 << 31:
            struct.pack_into("<I", data, place, unit | 1)


PIECES = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁a", -1.0]]
REFUSED: dict[str, tuple[tuple[str | int, ...], Json, str]] = {
    "no end mark": (("post_processor",), None, "post_processor is null: nothing adds the end mark"),
    "an end mark for nobody": (("post_processor", "single"), [{"Sequence": {"id": "A", "type_id": 0}}], "no end mark"),
    "an expression": (
        ("normalizer",),
        replace({"Regex": "(a+)+$"}),
        "normalizer.pattern.Regex is '(a+)+$', not one of",
    ),
    "a split by an expression": (
        ("pre_tokenizer",),
        {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False},
        "pre_tokenizer.type is 'Split', not one of WhitespaceSplit, Metaspace",
    ),
    "a replacement without end": (("normalizer",), replace({"String": "a"}, "b" * 10**6), "must be at most 4 bytes"),
    "a replacement of nothing": (("normalizer",), replace({"String": ""}), "must be 1 to 256 bytes long, not 0"),
    "replacements of replacements": (
        ("normalizer",),
        {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aaaa")] * 7},
        "normalizer has 7 of the type Replace",
    ),
    "a row in a row": (
        ("normalizer",),
        {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]},
        "type is 'Sequence', not one of",
    ),
    "a model of words": (("model",), {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, "model"),
    "pairs to merge": (("model", "type"), "BPE", "model.type is 'BPE', not one of Unigram"),
    "no pieces": (("model", "vocab"), [], "model.vocab is empty"),
    "an unknown piece beyond": (("model", "unk_id"), 10**6, "model.unk_id must be at most"),
    "no unknown piece": (("model", "unk_id"), None, "model.unk_id must be an integer, not null"),
    "an empty piece": (("model", "vocab"), [*PIECES, ["", 0.0]], "must be a piece of 1 to 256 bytes, not of 0"),
    "a long piece": (("model", "vocab"), [*PIECES, ["a" * 10**6, 0.0]], "must be a piece of 1 to 256 bytes"),
    "long pieces": (
        ("model", "vocab"),
        [*PIECES, *([f"{index:0256}", 0.0] for index in range(2**14))],
        "bytes, more than the 4194304 allowed",
    ),
    "an absurd score": (("model", "vocab"), [*PIECES, ["b", 1e300]], "must have a score within"),
    "a score that is none": (("model", "vocab"), [*PIECES, ["b", None]], "must be a piece and its score"),
    "many added tokens": (("added_tokens",), [{"id": 1, "content": "a"}] * 2000, "added_tokens has 2000 entries"),
    "an added token of nothing": (("added_tokens", 0, "content"), "", "must be 1 to 256 bytes long"),
    "a template of other marks": (("post_processor", "special_tokens"), {}, "is not one of special_tokens"),
    "a template without a text": (
        ("post_processor", "single"),
        [{"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "must have one text",
    ),
    "a template without end": (
        ("post_processor", "single"),
        [{"Sequence": {"id": "A", "type_id": 0}}] * 10**4,
        "may have 8 entries",
    ),
    "two numbers for one mark": (("post_processor", "special_tokens", "</s>", "ids"), [1, 1], "must be one"),
    "an unknown part": (("kernel",), {}, "'kernel' is not one of version"),
    "a map that is none": (("normalizer",), precompiled("AAAA"), "says 0 bytes of a trie"),
    "a map that is not base64": (("normalizer",), precompiled("$$$$"), "is not base64"),
    "a map that leads away": (("normalizer",), damaged(lead_away), "has a trie that leads out of itself"),
    "a map that points away": (("normalizer",), damaged(point_away), "leads out of its replacements"),
    "a map into the middle of a character": (("normalizer",), damaged(point_inside), "leads out of its replacements"),
    "a map that makes much of little": (("normalizer",), precompiled(trie(("a", "b" * 10**4))), "more than 12 bytes"),
    "a map too large": (("normalizer",), precompiled("A" * (2 * 2**20)), "is longer than the 1048576 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_umt5_has_not_is_refused(case: str, definition: Json, tmp_path: Path) -> None:
    keys, value, said = REFUSED[case]
    write(tmp_path, changed(definition, *keys, value=value))
    refusal = assert_read_or_refused(lambda: Tokenizer.open(tmp_path, 16))
    assert isinstance(refusal, BundleError)
    assert said in refusal.message
    assert refusal.where == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        precompiled(SOUND),
        replace({"Regex": " {2,}"}),
        {
            "type": "Sequence",
            "normalizers": [
                precompiled(SOUND),
                {"type": "Strip", "strip_left": False, "strip_right": True},
                replace({"Regex": " {2,}"}),
            ],
        },
    ],
    ids=["none", "map", "spaces", "all"],
)
def test_what_umt5_has_is_read_as_the_library_reads_it(normalizer: Json, definition: Json, tmp_path: Path) -> None:
    document = changed(definition, "normalizer", value=normalizer)
    ours = Tokenizer.open(write(tmp_path, document), 512)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(document))
    for text in ("", "A red  circle moves… ", "ａｂé", "红色 ﷺ", "x" * 300):
        assert ours.encode(text).tolist() == theirs.encode(text).ids
    assert ours.vocabulary == theirs.get_vocab_size()


def test_a_large_map_is_followed(definition: Json, tmp_path: Path) -> None:
    words = {chr(0x4E00 + index): LETTERS[index % 26] for index in range(0, 6000, 7)}
    document = changed(definition, "normalizer", value=precompiled(trie(*words.items())))
    ours = Tokenizer.open(write(tmp_path, document), 512)
    plain = tokenizers.Tokenizer.from_str(json.dumps(document))
    assert ours.encode("".join(words)[:40]).tolist() == plain.encode("".join(words.values())[:40]).ids


def test_numbers_of_others_do_not_count(definition: Json, tmp_path: Path) -> None:
    """Padding, truncation and strides of 2^31 belong to whoever wrote the file."""
    document = {
        **definition,
        "truncation": {"direction": "Right", "max_length": 2**31, "strategy": "LongestFirst", "stride": 2**31},
        "padding": {"strategy": {"Fixed": 2**31}, "direction": "Right", "pad_to_multiple_of": 2**31,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"},
    }  # fmt: skip
    expected = Tokenizer.open(write(tmp_path, definition), 16).encode("A red circle").tolist()
    assert Tokenizer.open(write(tmp_path, document), 16).encode("A red circle").tolist() == expected


@pytest.mark.parametrize("text_length", [1, 2])
def test_the_longest_prompt_costs_little(text_length: int, definition: Json, tmp_path: Path) -> None:
    """The worst that is allowed: no place to split at, pieces of the largest size that all begin alike."""
    pieces = [*PIECES, *(["a" * length, -1.0] for length in range(1, 257))]
    document = changed(changed(definition, "pre_tokenizer", value=None), "model", "vocab", value=pieces)
    document = changed(document, "normalizer", value={"type": "Sequence", "normalizers": [
        precompiled(trie(("b", "a" * 12))), replace({"String": "a"}, "aaaa"), replace({"String": "aaaa"}, "aaaa")
    ]})  # fmt: skip
    opened = Tokenizer.open(write(tmp_path, document), text_length)
    started, peak = time.process_time(), peak_rss_bytes()
    opened.encode("a" * (MOST_PROMPT_BYTES // 8))
    assert time.process_time() - started < 10
    assert peak_rss_bytes() - peak < 2**30


ODD = st.sampled_from([0, -1, 1, 2, 255, 2**31, 2**53, 1e300, -1e300, "", "a", "▁", "\0", None, True, [], {}, [[]]])
SCRIPT = """
import sys
from wanc.runtime.errors import UserError
from wanc.runtime.text import Tokenizer
from pathlib import Path
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        tokenizer = Tokenizer.open(folder, 16)
        for text in ("", "a red circle 红色 é", "ａ…", "\\0", "x" * 5000):
            tokenizer.encode(text)
    except UserError as error:
        assert error.message
"""


def test_nothing_panics_or_is_printed(definition: Json, tmp_path: Path) -> None:
    """Hundreds of changed files in a process of their own: what a panic prints goes to its descriptor 2."""
    document = changed(definition, "normalizer", value=precompiled(SOUND))
    count = 0

    @settings(
        derandomize=True, deadline=None, max_examples=400, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(data=st.data())
    def make(data: st.DataObject) -> None:
        nonlocal count
        result = copy.deepcopy(document)
        place: Any = result
        for _ in range(data.draw(st.integers(0, 6))):
            places: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            inner: Any = place[data.draw(st.sampled_from(places))]
            if not (isinstance(inner, dict | list) and inner):
                break
            place = cast(Any, inner)
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if key == "precompiled_charsmap":
            raw = bytearray(base64.b64decode(SOUND))
            for _ in range(data.draw(st.integers(1, 8))):
                raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
            place[key] = base64.b64encode(bytes(raw)).decode()
        elif data.draw(st.integers(0, 4)):
            place[key] = data.draw(ODD)
        else:
            del place[key]
        (tmp_path / f"{count:04}").mkdir()
        write(tmp_path / f"{count:04}", result)
        count += 1

    make()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
