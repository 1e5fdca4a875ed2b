"""Whatever the file holds, loading it gives recipes or a RecipeError with a place."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.cost import assert_read_or_refused
from wanc.errors import NotBuiltYetError, RecipeError
from wanc.recipe.fields import all_paths
from wanc.recipe.load import load
from wanc.recipe.planned import KEYS
from wanc.recipe.show import flow
from wanc.recipe.strict_yaml import parse
from wanc.recipe.tree import TextSource, plain

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = (RECIPES / "tiny-wan.yaml").read_bytes()
TORCH = b"""\
wanc: 1
name: encoder
model:
  torch: my_package.models:build_encoder
  inputs:
    - {name: ids, dtype: int64, shape: [1, tokens]}
    - {name: mask, shape: [1, tokens, 16*rows]}
  outputs: [states]
  files: [weights]
  example: {tokens: 7, rows: 2}
  values: {ids: 3}
"""
FOLDER = Path(tempfile.gettempdir())

fuzz = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refusal(action: Callable[[], object]) -> RecipeError | None:
    """What `action` was refused with; any other exception ends the test."""
    try:
        action()
    except RecipeError as error:
        return error
    return None


def load_or_refuse(path: Path, overrides: tuple[str, ...] = ()) -> None:
    if error := assert_read_or_refused(lambda: load(path, overrides)):
        assert type(error) in (RecipeError, NotBuiltYetError)
        assert re.fullmatch(r"--set .*|.+\.yaml(:\d+:\d+)?", error.where or "")


SYNTAX = st.sampled_from(
    [
        *"[]{}:,-?&*!|>'\"%@`#~<\\ \t\n\r\0aé\x85\u2028\ufeff\ud800",
        *("- ", ": ", "? ", "<<", "...", "---\n", "&a ", "*a", "!!", "\n  ", "\\U", "|2-\n", "%YAML 1.2\n"),
        *("0x", "1e9", "extends: ", "matrix:", "wanc: 1\n"),
    ]
)


@settings(fuzz, max_examples=200)
@given(pieces=st.lists(SYNTAX, max_size=40))
def test_any_sequence_of_syntax(pieces: list[str]) -> None:
    text = "".join(pieces)
    if error := refusal(lambda: parse(text, TextSource("fuzz.yaml", FOLDER))):
        assert re.fullmatch(r"fuzz\.yaml:\d+:\d+", error.where or "")
        assert error.hint


@settings(fuzz, max_examples=200)
@given(content=st.binary(max_size=200))
@example(content=b"\xef\xbb\xbf")
@example(content=b"\xff\xfe")
@example(content=b"a: \xf0\x9f")
def test_any_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    load_or_refuse(path)


@settings(fuzz, max_examples=200)
@given(
    content=st.sampled_from([TINY, TORCH]),
    changes=st.lists(
        st.tuples(st.integers(0, len(TINY)), st.integers(0, 30), SYNTAX | st.text(max_size=5)), min_size=1, max_size=4
    ),
)
def test_any_damage_to_a_right_recipe(content: bytes, changes: list[tuple[int, int, str]], tmp_path: Path) -> None:
    for start, length, text in changes:
        content = content[:start] + text.encode("utf-8", "surrogatepass") + content[start + length :]
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    load_or_refuse(path)


NAMES = sorted({str(key) for path in all_paths() for key in path} | {key.split(".")[-1] for key in KEYS})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            "none",
            "int8",
            "int64",
            "tokens",
            "16*rows",
            "a:b",
            "cpu",
            "unipc",
            "default",
            "",
            "é",
            "a/b",
            "0.1.0",
            "fuzz.yaml",
            ".",
            "x" * 300,
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.just("zzz"), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(fuzz, max_examples=200)
@given(data=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8))
def test_any_values_under_the_keys_of_the_schema(data: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text(flow(data), encoding="utf-8")
    load_or_refuse(path)


DOTTED = st.sampled_from([".".join(map(str, path)) for path in all_paths()] + ["shapes.0.height", "shapes.9", "a.b.c"])


@settings(fuzz, max_examples=200)
@given(
    content=st.sampled_from([TINY, TORCH]),
    overrides=st.lists(st.tuples(DOTTED | st.text(max_size=5), VALUES), min_size=1, max_size=3),
)
def test_any_override(content: bytes, overrides: list[tuple[str, object]], tmp_path: Path) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    load_or_refuse(path, tuple(f"{name}={flow(value)}" for name, value in overrides))


@settings(fuzz, max_examples=200)
@given(value=VALUES)
def test_any_value_is_written_so_that_it_is_read_as_itself(value: object) -> None:
    def without_lists(part: object) -> object:
        return plain(parse(flow(part), TextSource("fuzz.yaml", FOLDER)))

    assert flow(without_lists(value)) == flow(value)


@pytest.mark.parametrize("text", ["\udcff=1", "sampling.steps=\udcff", "a\0=1", "sampling.steps=\x1b[31m"])
def test_overrides_that_a_shell_can_pass(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(TINY)
    with pytest.raises(RecipeError) as caught:
        load(path, [text])
    assert (caught.value.where or "").isprintable()
