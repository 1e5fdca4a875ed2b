"""Builds the bilingual tokenizer of the tiny model: a unigram vocabulary in the arrangement of T5.

The vocabulary is read off the captions: whole English words, single Chinese characters, and single ASCII characters
for words that no caption holds. One token per Chinese character is on purpose: longer pieces would glue a colour to a
shape, and the held-out combinations could not be spelt with pieces that were trained.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import Unigram

from .captions import LANGUAGES, TEMPLATES, caption, spellings
from .configuration import MAX_TEXT_TOKENS
from .scenes import TRAINING

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "\u2581"
ASCII_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-"


def vocabulary() -> list[tuple[str, float]]:
    """Pieces with their log-probabilities; the identifiers are the positions, pad 0, end 1, unknown 2."""
    counts: Counter[str] = Counter({SPACE: 1, **dict.fromkeys(ASCII_LETTERS, 1)})
    for language in LANGUAGES:
        for template in range(len(TEMPLATES[language])):
            for attributes in TRAINING:
                for sentence in spellings(caption(attributes, language, template)):
                    for word in sentence.split():
                        counts.update(_pieces(word))
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0)] + [(piece, math.log(count / total)) for piece, count in ranked]


def _pieces(word: str) -> list[str]:
    """An English word is one piece with its space mark, punctuation is apart, and Chinese goes by characters."""
    if not word.isascii():
        # ftfy, which cleans prompts in the pipeline, turns the full-width comma into the ASCII one: know both.
        return [SPACE, *word, *([","] if "，" in word else [])]
    stem = word.rstrip(".,")
    return [SPACE + stem, *word[len(stem) :]]


def build() -> Tokenizer:
    """The same parts, in the same order, that ``transformers.T5TokenizerFast`` puts together."""
    tokenizer = Tokenizer(Unigram(vocabulary(), unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", END], pair=["$A", END, "$B", END], special_tokens=[(END, 1)]
    )
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    return tokenizer


def save(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    build().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": MAX_TEXT_TOKENS,
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "extra_ids": 0,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
