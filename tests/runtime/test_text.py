"""Prompt cleaning against diffusers' Wan pipeline, token ids against transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from wanc.runtime.errors import EXIT_DATA, EXIT_NO_INPUT, BundleError
from wanc.runtime.text import Tokenizer, clean_prompt
from wanc.runtime.tokenizer_file import MAX_BYTES

PROMPTS = [
    "",
    "   ",
    "A red ball rolls to the left.",
    "  two   spaces,\ttabs\r\nand\n\nlines ",
    "一只猫在雪地里奔跑，镜头跟随。",
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作",
    "全角ＡＢＣ１２３　全角空格",
    "a 👩‍🚀 on 🌕 — 🇨🇳 family 👨‍👩‍👧‍👦",
    "cafÃ© in the rain, itâ€™s dark",  # UTF-8 read as Windows-1252
    "ä½\xa0å¥½",
    "“curly” ‘quotes’ and ﬁne ligatures",
    "fish &amp; chips &lt;3",
    "fish &amp;amp; chips &amp;lt;3",
    "<b>fish</b> &amp;amp;amp; chips",  # with a "<" in the text ftfy leaves entities alone
    "&nbsp;hard&nbsp;&nbsp;spaces\xa0here\u2003and\u3000there",
    "&#29483; &#x732B; &unknown; &amp;#28;x",
    "control\x00\x07\x1b[31m characters \x1c\x1d\x1e\x1f between",
    "e\u0301 combining, \u200bzero width\u200b, \ufeffmark",
    "right to left: מים ماء",
    "\ud83d\ude00",
    "halfwidth ｶﾅ and Ⅷ and ①",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_cleaning_equals_the_pipeline_in_diffusers(prompt: str) -> None:
    assert clean_prompt(prompt) == prompt_clean(prompt)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [" ", "\t", "\xa0", "\u3000", "\x1c", "\x85", "&amp;", "&#31;", "&lt;", "Ã©", "猫", "🐈", "a", ";"]
        )
        | st.characters(),
        max_size=12,
    ).map("".join)
)
def test_cleaning_equals_the_pipeline_on_any_text(prompt: str) -> None:
    assert clean_prompt(prompt) == prompt_clean(prompt)


def test_cleaning_repairs_what_it_promises() -> None:
    assert clean_prompt(" cafÃ©  &amp;amp;\n tea ") == "café & tea"
    assert clean_prompt("1 < 2 &amp;amp; 3") == "1 < 2 & 3"


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer of T5's kind: Unigram pieces over metaspaces, and `</s>` at the end."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    corpus = [prompt for prompt in PROMPTS if prompt.isprintable()] + [
        "the quick brown fox jumps over the lazy dog"
    ] * 20
    backend.train_from_iterator(corpus, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("text_length", [1, 2, 7, 8, 9, 512])
def test_ids_equal_transformers(tokenizer_folder: Path, text_length: int) -> None:
    ours = Tokenizer.open(tokenizer_folder, text_length)
    theirs = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    for prompt in [clean_prompt(prompt) for prompt in PROMPTS] + ["fox " * 300]:
        expected = theirs(prompt, max_length=text_length, truncation=True, add_special_tokens=True).input_ids
        ids = ours.encode(prompt)
        assert ids.dtype == np.int64
        assert ids.tolist() == expected


def test_truncation_at_its_boundary_keeps_the_end_mark(tokenizer_folder: Path) -> None:
    whole = Tokenizer.open(tokenizer_folder, 512).encode("the lazy dog jumps over the fox")
    exact = Tokenizer.open(tokenizer_folder, len(whole))
    short = Tokenizer.open(tokenizer_folder, len(whole) - 1)
    np.testing.assert_array_equal(exact.encode("the lazy dog jumps over the fox"), whole)
    cut = short.encode("the lazy dog jumps over the fox")
    assert cut.tolist() == [*whole[:-2].tolist(), whole[-1]]


def test_truncation_and_padding_of_the_file_do_not_count(tokenizer_folder: Path, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    backend.enable_truncation(max_length=3)
    backend.enable_padding(length=64)
    backend.save(str(tmp_path / "tokenizer.json"))
    expected = Tokenizer.open(tokenizer_folder, 512).encode("the quick brown fox")
    np.testing.assert_array_equal(Tokenizer.open(tmp_path, 512).encode("the quick brown fox"), expected)


def test_a_missing_tokenizer_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no tokenizer here") as caught:
        Tokenizer.open(tmp_path, 512)
    assert caught.value.exit_code == EXIT_NO_INPUT
    assert caught.value.where == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1, 2]", b"\xff\xfe", b'{"model": {"type": "Unigram", "vocab": 3}}'])
def test_a_damaged_tokenizer_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Tokenizer.open(tmp_path, 512)
    assert caught.value.exit_code == EXIT_DATA


def test_the_size_of_a_tokenizer_is_limited(tokenizer_folder: Path, tmp_path: Path) -> None:
    definition = (tokenizer_folder / "tokenizer.json").read_bytes()
    path = tmp_path / "tokenizer.json"
    path.write_bytes(definition + b" " * (MAX_BYTES - len(definition)))
    expected = Tokenizer.open(tokenizer_folder, 8).encode("a").tolist()
    assert Tokenizer.open(tmp_path, 8).encode("a").tolist() == expected
    with path.open("a") as file:
        file.write(" ")
    with pytest.raises(BundleError) as caught:
        Tokenizer.open(tmp_path, 8)
    assert str(caught.value) == f"{path}: larger than the 67108864 bytes that a tokenizer may have"


@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_what_is_not_repaired_needs_no_repair(prompt: str) -> None:
    """Plain text is spared the library that repairs texts; the result is the same."""
    assert clean_prompt(prompt) == prompt_clean(prompt)
