from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe import load
from wanc.recipe.chain import MAX_FILES
from wanc.recipe.matrix import MAX_VARIANTS

Write = Callable[[str, str | bytes], Path]


def refusal(path: Path | str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return caught.value


# extends


def test_extends_merges_mappings_and_replaces_lists(write: Write, tiny: str) -> None:
    write("base.yaml", tiny)
    child = "extends: base.yaml\nsampling:\n  steps: 8\nshapes: [{name: a, height: 32, width: 32, frames: 5}]\n"
    (loaded,) = load(write("child.yaml", child))
    assert loaded.recipe.sampling.steps == 8
    assert loaded.recipe.sampling.shift == 5.0
    assert [shape.name for shape in loaded.recipe.shapes] == ["a"]
    assert loaded.recipe.name == "tiny-wan"
    assert loaded.variant is None
    assert loaded.files == (Path("child.yaml"), Path("base.yaml"))


def test_marks_point_into_the_file_that_won(write: Write, tiny: str) -> None:
    write("base.yaml", tiny)
    (loaded,) = load(write("child.yaml", "extends: base.yaml\nsampling:\n  steps: 8\n"))
    assert loaded.marks.where("sampling.steps") == "child.yaml:3:10"
    assert loaded.marks.where("sampling.shift") == "base.yaml:18:10"
    assert loaded.marks.where("shapes.1.width") == "base.yaml:13:41"
    assert loaded.marks.where("sampling.fps") == "child.yaml:3:3"


def test_an_error_points_into_the_base(write: Write, tiny: str) -> None:
    write("base.yaml", tiny.replace("steps: 20", "steps: 0"))
    error = refusal(write("child.yaml", "extends: base.yaml\nname: child\n"))
    assert error.where == "base.yaml:17:10"


def test_a_null_removes_what_a_base_gave(write: Write, tiny: str) -> None:
    write("base.yaml", tiny)
    child = "extends: base.yaml\nsampling: {steps: null, guidance: ~, boundary:, timesteps: [1000, 500]}\n"
    (loaded,) = load(write("child.yaml", child))
    assert loaded.recipe.sampling.steps is None
    assert loaded.recipe.sampling.boundary is None
    assert loaded.recipe.sampling.timesteps == (1000.0, 500.0)


def test_an_empty_section_is_its_default(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny + "runtime:\n  # threads: 4\n"))
    assert loaded.recipe.runtime.threads == 0


def test_a_source_stays_relative_to_its_own_file(write: Write, tiny: str, tmp_path: Path) -> None:
    write("recipes/base.yaml", tiny)
    (loaded,) = load(write("mine/deep/child.yaml", "extends: ../../recipes/base.yaml\nname: child\n"))
    assert loaded.recipe.model.source == tmp_path / "models/tiny-wan"
    assert loaded.files == (Path("mine/deep/child.yaml"), Path("mine/deep/../../recipes/base.yaml"))
    (loaded,) = load(write("mine/deep/child.yaml", "extends: ../../recipes/base.yaml\nmodel: {source: w}\n"))
    assert loaded.recipe.model.source == tmp_path / "mine/deep/w"


def test_an_absolute_source_stays(write: Write, tiny: str) -> None:
    (loaded,) = load(write("recipe.yaml", tiny.replace("../models/tiny-wan", "/weights/wan")))
    assert loaded.recipe.model.source == Path("/weights/wan")


def test_three_files_in_a_row(write: Write, tiny: str) -> None:
    write("a.yaml", tiny)
    write("b.yaml", "extends: a.yaml\nsampling: {steps: 10, shift: 7.0}\n")
    (loaded,) = load(write("c.yaml", "extends: b.yaml\nsampling: {steps: 11}\n"))
    assert (loaded.recipe.sampling.steps, loaded.recipe.sampling.shift) == (11, 7.0)
    assert loaded.files == (Path("c.yaml"), Path("b.yaml"), Path("a.yaml"))


def test_circles_are_named(write: Write) -> None:
    write("a.yaml", "extends: sub/../b.yaml\n")
    write("sub/x.yaml", "")
    error = refusal(write("b.yaml", "name: b\nextends: a.yaml\n"))
    circle = "b.yaml → a.yaml → sub/../b.yaml"
    assert error.message == f"the recipes extend one another in a circle: {circle}"
    assert error.where == "a.yaml:1:10"
    assert error.hint == "remove one link"


def test_a_recipe_cannot_extend_itself(write: Write) -> None:
    error = refusal(write("a.yaml", "extends: a.yaml\n"))
    assert error.message == "the recipes extend one another in a circle: a.yaml → a.yaml"


def test_a_circle_through_a_link_is_found(write: Write) -> None:
    path = write("a.yaml", "extends: link.yaml\n")
    os.symlink("a.yaml", "link.yaml")
    assert refusal(path).message == "the recipes extend one another in a circle: a.yaml → link.yaml"


def test_the_number_of_files_is_limited(write: Write, tiny: str) -> None:
    write("0.yaml", tiny)
    for number in range(1, MAX_FILES + 1):
        write(f"{number}.yaml", f"extends: {number - 1}.yaml\n")
    assert len(load(Path(f"{MAX_FILES - 1}.yaml"))[0].files) == MAX_FILES
    error = refusal(f"{MAX_FILES}.yaml")
    assert error.message == "more than 16 recipes extend one another"
    assert error.where == "1.yaml:1:10"


@pytest.mark.parametrize("value", ["3", "[a.yaml]", '""', "true"])
def test_extends_is_a_path(value: str, write: Write) -> None:
    error = refusal(write("recipe.yaml", f"extends: {value}\n"))
    assert error.message == "extends has to be a path"
    assert error.where == "recipe.yaml:1:10"
    assert error.hint == "name one recipe's file, such as `extends: base.yaml`"


def test_a_fault_in_the_yaml_of_a_base_names_the_base(write: Write) -> None:
    write("base.yaml", "a: [\n")
    assert refusal(write("recipe.yaml", "extends: base.yaml\n")).where == "base.yaml:2:1"


# files that cannot be read


def test_missing_file(write: Write) -> None:
    error = refusal(write("x", "").parent / "nowhere.yaml")
    assert (error.message, error.where, error.hint) == (
        "there is no file nowhere.yaml",
        "nowhere.yaml",
        "check the path",
    )


def test_missing_base(write: Write) -> None:
    error = refusal(write("recipe.yaml", "wanc: 1\nextends: ../nowhere.yaml\n"))
    assert (error.message, error.where) == ("there is no file ../nowhere.yaml", "recipe.yaml:2:10")


def test_directory(write: Write) -> None:
    write("recipes/a.yaml", "")
    error = refusal("recipes")
    assert error.message == "recipes is a directory, not a recipe"
    assert error.hint == "name the recipe in it, such as recipe.yaml"


def test_file_as_directory(write: Write) -> None:
    error = refusal(write("recipe.yaml", "") / "inner.yaml")
    assert error.message == "the recipe recipe.yaml/inner.yaml cannot be read"
    assert isinstance(error.__cause__, NotADirectoryError)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(write: Write) -> None:
    path = write("recipe.yaml", "")
    path.chmod(0)
    error = refusal(path)
    assert error.message == "the recipe recipe.yaml cannot be read"
    assert error.hint == "check its permissions"


def test_a_pipe_is_not_waited_for(write: Write) -> None:
    write("x", "")
    os.mkfifo("pipe.yaml")
    assert refusal("pipe.yaml").message == "pipe.yaml is not a regular file"


# --set


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
            "it can be unipc, euler or dpm++",
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


# matrix


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
        ("{a: {extends: b}}", "21:14", "extends cannot be set from outside the file", FROM_FILE),
        ("{a: {sampling steps: 3}}", "21:14", "'sampling steps' is not a path of keys", NO_PATH),
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
    assert error.message == "the matrix has more than 32 variants"
