from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load

Write = Callable[[str, str | bytes], Path]


def refusal(path: Path | str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return caught.value


def test_set_wins_last(write: Write, tiny: str) -> None:
    path = write("recipe.yaml", tiny + "matrix: {fast: {sampling.steps: 8}}\n")
    (loaded,) = load(
        path, ["sampling.steps=9", "sampling.steps=0x0A", "name=other", "sampling.guidance={high: 1, low: 2}"]
    )
    assert loaded.recipe.sampling.steps == 10
    assert loaded.recipe.sampling.guidance.low == 2.0
    assert loaded.recipe.name == "other-fast"
    assert loaded.marks.where("sampling.steps") == "--set sampling.steps=0x0A"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("sampling.negative_prompt=no", "no"),
        ("sampling.negative_prompt = blurry ", "blurry"),
        ("sampling.negative_prompt='a: b'", "a: b"),
        ("sampling.negative_prompt=a=b", "a=b"),
        ('sampling.negative_prompt="1"', "1"),
        ("sampling.negative_prompt=", ""),
        ("sampling.negative_prompt=~", ""),
        ("sampling.negative_prompt=模糊", "模糊"),
    ],
)
def test_values_of_set_are_yaml(override: str, value: str, write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), [override])
    assert loaded.recipe.sampling.negative_prompt == value


def test_set_reaches_into_lists_and_makes_mappings(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny), ["shapes.1.frames=33", "runtime.threads=2"])
    assert [shape.frames for shape in loaded.recipe.shapes] == [17, 33]
    assert loaded.recipe.runtime.threads == 2


def test_set_replaces_a_mapping_as_a_whole(write: Write, tiny: str) -> None:
    error = refusal(write("recipe.yaml", tiny), "sampling={steps: 3}")
    assert error.message == "sampling.shift is missing"
    assert error.where == "--set sampling={steps: 3}"


def test_a_source_of_set_is_relative_to_the_working_directory(write: Write, tiny: str, tmp_path: Path) -> None:
    (loaded,) = load(write("recipes/recipe.yaml", tiny), ["model.source=weights"])
    assert loaded.recipe.model.source == tmp_path / "weights"


NO_PATH = "name the keys from the top, joined by dots, such as sampling.steps"
FROM_FILE = "write it in the recipe's file"


@pytest.mark.parametrize(
    ("override", "message", "where", "hint"),
    [
        (
            "sampling.steps",
            "a value is missing",
            "--set sampling.steps",
            "write --set path=value, such as sampling.steps=8",
        ),
        ("=8", "'' is not a path of keys", "--set =8", NO_PATH),
        ("sampling..steps=8", "'sampling..steps' is not a path of keys", "--set sampling..steps=8", NO_PATH),
        ("sam pling=8", "'sam pling' is not a path of keys", "--set sam pling=8", NO_PATH),
        (f"{'a.' * 16}a=8", "a path has at most 16 keys", f"--set {'a.' * 16}a=8", "a recipe is a few levels deep"),
        ("extends=a.yaml", "extends cannot be set from outside the file", "--set extends=a.yaml", FROM_FILE),
        ("matrix.fast={}", "matrix cannot be set from outside the file", "--set matrix.fast={}", FROM_FILE),
        (
            "sampling.steps.x=8",
            "sampling.steps.x cannot be set: sampling.steps is not a mapping",
            "--set sampling.steps.x=8",
            "set sampling.steps itself; it stands at recipe.yaml:17:10",
        ),
        (
            "shapes.2.frames=5",
            "the list shapes has no item 2",
            "--set shapes.2.frames=5",
            "its items are shapes.0 to shapes.1",
        ),
        (
            "shapes.first.frames=5",
            "the list shapes has no item first",
            "--set shapes.first.frames=5",
            "its items are shapes.0 to shapes.1",
        ),
        (
            "sampling.negative_prompt=a: b",
            "the value reads as a mapping or a list",
            "--set sampling.negative_prompt=a: b",
            "put quotes around text with ': ' in it; write mappings as {key: value} and lists as [a, b]",
        ),
        (
            "shapes=- a",
            "the value reads as a mapping or a list",
            "--set shapes=- a",
            "put quotes around text with ': ' in it; write mappings as {key: value} and lists as [a, b]",
        ),
        (
            "sampling.steps=[1",
            "not valid YAML: expected ',' or ']', but got '<stream end>' "
            "(while parsing a flow sequence, begun in line 1)",
            "--set sampling.steps=[1",
            "close the bracket, and put a comma between items",
        ),
        (
            "sampling.steps=!!int 8",
            "tags such as !!int are not accepted",
            "--set sampling.steps=!!int 8",
            "a recipe is plain data; put quotes around text that begins with '!'",
        ),
        (
            f"sampling.solver={'x' * 100}",
            f"sampling.solver cannot be {'x' * 59}…",
            f"--set sampling.solver={'x' * 43}…",
            "it can be unipc, euler, dpm++ or lcm",
        ),
        ("sampling.solver=x\ny", "sampling.solver cannot be x y", "--set sampling.solver=x�y", None),
    ],
)
def test_what_set_refuses(override: str, message: str, where: str, hint: str | None, write: Write, tiny: str) -> None:
    error = refusal(write("recipe.yaml", tiny), override)
    assert error.message == message
    assert error.where == where
    if hint is not None:
        assert error.hint == hint
