from __future__ import annotations

import math
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe import scalars
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import TextSource, plain

SOURCE = TextSource("recipe.yaml", Path())

CORE_SCHEMA = [
    # text in any form that YAML 1.1 takes for something else
    ("no", "no"),
    ("Yes", "Yes"),
    ("on", "on"),
    ("y", "y"),
    ("12:30:00", "12:30:00"),
    ("2024-01-31", "2024-01-31"),
    ("1_000", "1_000"),
    ("0b101", "0b101"),
    ("0o8", "0o8"),
    ("0xg", "0xg"),
    ("+", "+"),
    (".", "."),
    ("-.", "-."),
    ("1e", "1e"),
    ("1.2.3", "1.2.3"),
    ("inf", "inf"),
    ("nan", "nan"),
    ("tRue", "tRue"),
    ("480p", "480p"),
    ("１２", "１２"),  # full-width digits
    # null, booleans
    ("~", None),
    ("null", None),
    ("Null", None),
    ("true", True),
    ("TRUE", True),
    ("False", False),
    # integers
    ("0", 0),
    ("-0", 0),
    ("+12", 12),
    ("-12", -12),
    ("017", 17),
    ("0o17", 15),
    ("0xFf", 255),
    ("9007199254740992", 2**53),
    ("-9007199254740992", -(2**53)),
    ("0" * 5000 + "7", 7),
    ("0x" + "0" * 5000 + "7", 7),
    # floats
    ("1e5", 100000.0),
    ("1E-5", 0.00001),
    ("1.", 1.0),
    (".5", 0.5),
    ("-.5", -0.5),
    ("-1.5e+3", -1500.0),
    ("0.0", 0.0),
]


@pytest.mark.parametrize(("text", "value"), CORE_SCHEMA, ids=[text[:20] for text, _ in CORE_SCHEMA])
def test_unquoted_text_follows_the_core_schema(text: str, value: object) -> None:
    root = parse(f"key: {text}\n", SOURCE)
    assert plain(root) == {"key": value}
    assert isinstance(root.value, dict)
    assert type(root.value["key"].value) is type(value)


@pytest.mark.parametrize("text", ["no", "12", "1e5", "null", "~", "true", ""])
@pytest.mark.parametrize("form", ['"{}"', "'{}'", "|-\n  {}", ">-\n  {}"])
def test_quotes_and_blocks_mean_text(text: str, form: str) -> None:
    assert plain(parse(f"key: {form.format(text)}\n", SOURCE)) == {"key": text}


def test_nothing_is_null() -> None:
    assert plain(parse("key:\n", SOURCE)) == {"key": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9007199254740993", "an integer beyond 2^53 cannot be kept exactly"),
        ("-9007199254740993", "an integer beyond 2^53 cannot be kept exactly"),
        ("0x" + "f" * 14, "an integer beyond 2^53 cannot be kept exactly"),
        ("9" * 5000, "an integer beyond 2^53 cannot be kept exactly"),
        ("1e999", "a number has to be finite"),
        ("-.inf", "a number has to be finite"),
        (".NaN", "a number has to be finite"),
    ],
)
def test_numbers_that_a_recipe_cannot_keep(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(f"key: {text}\n", SOURCE)
    assert caught.value.message == message
    assert caught.value.where == "recipe.yaml:1:6"
    assert caught.value.hint == "put it in quotes if it is meant as text"


@pytest.mark.parametrize(("text", "value"), CORE_SCHEMA, ids=[text[:20] for text, _ in CORE_SCHEMA])
def test_is_text_agrees_with_what_is_read(text: str, value: object) -> None:
    assert scalars.is_text(text) is isinstance(value, str)


def test_special_floats_are_not_text() -> None:
    assert not any(map(scalars.is_text, (".inf", "+.Inf", ".nan", "1e999")))
    assert math.isinf(float("1e999"))
