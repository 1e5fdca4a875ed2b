from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.chain import MAX_FILES
from wanc.recipe.load import load

Write = Callable[[str, str | bytes], Path]


def refusal(path: Path | str, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return caught.value


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
    assert error.hint == "name the file in it: recipes/a.yaml"


def test_file_as_directory(write: Write) -> None:
    error = refusal(write("recipe.yaml", "") / "inner.yaml")
    assert error.message == "the recipe recipe.yaml/inner.yaml cannot be read"
    assert isinstance(error.__cause__, NotADirectoryError)


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write("recipe.yaml", "")
    monkeypatch.setattr(Path, "open", refuse)  # a mode would not stop root
    error = refusal(path)
    assert error.message == "the recipe recipe.yaml cannot be read"
    assert error.hint == "check its permissions"


def test_a_pipe_is_not_waited_for(write: Write) -> None:
    write("x", "")
    os.mkfifo("pipe.yaml")
    assert refusal("pipe.yaml").message == "pipe.yaml is not a regular file"
