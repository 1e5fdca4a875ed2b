"""Lists of prompts: what counts as one, and what is said of files that are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.errors import RecipeError
from wanc.recipe.prompts import read_prompts

from .conftest import Write


def test_a_prompt_in_each_line(write: Write) -> None:
    text = "# a list\nA red circle.\n\n  一个红色的圆形。\t\n#not this\nNo. 1 # is red\n   # nor this\nA red circle."
    prompts = ("A red circle.", "一个红色的圆形。", "No. 1 # is red", "A red circle.")
    assert read_prompts(write("prompts.txt", text)) == prompts


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system(end: str, write: Write) -> None:
    assert read_prompts(write("prompts.txt", f"one{end}{end}two{end}")) == ("one", "two")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    prompts=st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)
        .map(str.strip)
        .filter(lambda text: text and text[0] not in "#\ufeff"),
        min_size=1,
    )
)
def test_what_is_written_is_read(prompts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "prompts.txt"
    path.write_text("\n".join(prompts), encoding="utf-8", newline="")
    assert read_prompts(path) == tuple(prompts)


# name: (what the file holds, where, message, hint)
WRONG: dict[str, tuple[bytes, str, str, str]] = {
    "nothing": (b"", "", "it holds no prompt", "write a prompt in each line"),
    "comments alone": (b"# one\n\n  \n#two\n", "", "it holds no prompt", "write a prompt in each line"),
    "no UTF-8": (b"a\ncaf\xe9\n", ":2:4", "the byte 0xe9 is not UTF-8 text", "save it as UTF-8"),
    "UTF-16": ("ein Kreis".encode("utf-16"), ":1:1", "the file is UTF-16 text", "save it as UTF-8"),
    "a mark": (
        b"\xef\xbb\xbfa",
        ":1:1",
        "the file begins with a byte order mark",
        "save it as UTF-8 without a byte order mark",
    ),
    "too much": (
        b"a\n" * 2**19 + b"b",
        ":1:1",
        "the file is larger than 1,048,576 bytes",
        "a list of prompts is a few kilobytes of text, a prompt in each line; is this the right file?",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_list_of_prompts(case: str, write: Write) -> None:
    content, place, message, hint = WRONG[case]
    with pytest.raises(RecipeError) as caught:
        read_prompts(write("prompts.txt", content))
    assert (caught.value.message, caught.value.where, caught.value.hint) == (message, f"prompts.txt{place}", hint)


def test_a_folder(write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        read_prompts(write("prompts/a.txt", "a").parent)
    assert caught.value.message == "prompts is a directory, not a list of prompts"
    assert caught.value.hint == "name the list of prompts in it, such as prompts.txt"


def test_as_much_as_is_allowed(write: Write) -> None:
    assert len(read_prompts(write("prompts.txt", b"a\n" * 2**19))) == 2**19
