from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.recipe.matrix import MAX_VARIANTS

Write = Callable[[str, str | bytes], Path]


def refusal(path: Path | str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return caught.value


def test_each_variant_is_a_recipe(write: Write, tiny: str) -> None:
    matrix = "matrix:\n  fast: {sampling.steps: 8}\n  plain: {}\n  small: {shapes.0.frames: 5}\n"
    loaded = load(write("recipe.yaml", tiny + matrix))
    assert [(one.variant, one.recipe.name) for one in loaded] == [
        ("fast", "tiny-wan-fast"),
        ("plain", "tiny-wan-plain"),
        ("small", "tiny-wan-small"),
    ]
    assert [one.recipe.sampling.steps for one in loaded] == [8, 20, 20]
    assert [one.recipe.shapes[0].frames for one in loaded] == [17, 17, 5]
    assert loaded[0].marks.where("sampling.steps") == "recipe.yaml:22:26"


def test_a_null_in_a_variant_removes(write: Write, tiny: str) -> None:
    matrix = "matrix: {few: {sampling.steps: null, sampling.guidance: null, sampling.timesteps: [1000, 500]}}\n"
    (loaded,) = load(write("recipe.yaml", tiny + matrix))
    assert loaded.recipe.sampling.timesteps == (1000.0, 500.0)


def test_variants_are_inherited_and_replaced_by_name(write: Write, tiny: str) -> None:
    write("base.yaml", tiny + "matrix: {a: {sampling.steps: 1}, b: {sampling.steps: 2, sampling.shift: 2.0}}\n")
    child = "extends: base.yaml\nmatrix: {b: {sampling.steps: 3}, c: {sampling.steps: 4}}\n"
    loaded = load(write("child.yaml", child))
    assert [(one.variant, one.recipe.sampling.steps) for one in loaded] == [("a", 1), ("b", 3), ("c", 4)]
    assert loaded[1].recipe.sampling.shift == 5.0
    (alone,) = load(write("child.yaml", "extends: base.yaml\nmatrix: null\n"))
    assert alone.variant is None


def test_a_source_in_a_variant_is_relative_to_the_file(write: Write, tiny: str, tmp_path: Path) -> None:
    path = write("recipes/recipe.yaml", tiny + "matrix: {a: {model.source: weights}, b: {model: {source: other}}}\n")
    assert [one.recipe.model.source for one in load(path)] == [tmp_path / "recipes/weights", tmp_path / "recipes/other"]


def test_a_fault_that_variants_share_is_said_once(write: Write, tiny: str) -> None:
    text = tiny.replace("steps: 20", "steps: 0") + "matrix: {a: {}, b: {sampling.shift: 0}, c: {}}\n"
    error = refusal(write("recipe.yaml", text))
    assert error.where == "recipe.yaml:17:10"
    assert error.message.splitlines()[0] == "sampling.steps has to be at least 1, not the number 0"
    assert [line.split(" ")[3] for line in error.message.splitlines()[1:]] == ["recipe.yaml:21:37:"]


@pytest.mark.parametrize(
    ("matrix", "place", "message", "hint"),
    [
        (
            "[a, b]",
            "21:9",
            "matrix has to be a mapping of variants",
            "write a name and what it sets, such as `matrix: {fast: {sampling.steps: 8}}`",
        ),
        (
            "{a: 1}",
            "21:13",
            "matrix.a has to be a mapping",
            "write what it sets, such as {sampling.steps: 8}, or {} for the recipe as it is",
        ),
        (
            "{a: }",
            "21:12",
            "matrix.a has to be a mapping",
            "write what it sets, such as {sampling.steps: 8}, or {} for the recipe as it is",
        ),
        (
            "{a/b: {}}",
            "21:10",
            "matrix.a/b is no name for a variant",
            "it has to be letters, digits, '_' and '-', beginning with a letter or a digit",
        ),
        ("{a: {extends: b}}", "21:14", "extends cannot be set from outside the file", "write it in the recipe's file"),
        (
            "{a: {sampling steps: 3}}",
            "21:14",
            "'sampling steps' is not a path of keys",
            "name the keys from the top, joined by dots, such as sampling.steps",
        ),
        ("{a: {sampling.stesp: 3}}", "21:14", "sampling has no key stesp", "did you mean steps?"),
        (
            "{a: {name.x: 3}}",
            "21:14",
            "name.x cannot be set: name is not a mapping",
            "set name itself; it stands at recipe.yaml:4:7",
        ),
    ],
)
def test_what_a_matrix_refuses(matrix: str, place: str, message: str, hint: str, write: Write, tiny: str) -> None:
    error = refusal(write("recipe.yaml", f"{tiny}matrix: {matrix}\n"))
    assert (error.message, error.where, error.hint) == (message, f"recipe.yaml:{place}", hint)


def test_the_number_of_variants_is_limited(write: Write, tiny: str) -> None:
    def matrix(count: int) -> str:
        return f"matrix: {{{', '.join(f'v{number}: {{}}' for number in range(count))}}}\n"

    assert len(load(write("recipe.yaml", tiny + matrix(MAX_VARIANTS)))) == MAX_VARIANTS
    error = refusal(write("recipe.yaml", tiny + matrix(MAX_VARIANTS + 1)))
    assert error.message == "the matrix has more than 16 variants"
