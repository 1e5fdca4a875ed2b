"""A null takes a key back to its default. It hides none that the schema does not have, wherever it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load

from .conftest import AssertRefused, Write

TORCH = """\
wanc: 1
name: graph
model:
  torch: modules:make
  inputs:
    - {name: x, dtype: , shape: [n, 4]}
  example: {n: 3}
"""


def refusal(path: Path, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides)
    return caught.value


STEPS = "did you mean steps?"
VALUE = "give it a value, or remove the line: null takes away what a recipe that is extended has"
# name: (what stands in the recipe, what replaces it, line:column, message, hint)
WRONG: dict[str, tuple[str, str, str, str, str | None]] = {
    "misspelt, with nothing behind it": (
        "  steps: 20",
        "  steps: 20\n  stepz:",
        "18:3",
        "sampling has no key stepz",
        STEPS,
    ),
    "misspelt, with a null": ("  steps: 20", "  steps: 20\n  stepz: ~", "18:3", "sampling has no key stepz", STEPS),
    "misspelt section": ("wanc: 1", "wanc: 1\nruntim:", "4:1", "a recipe has no key runtim", "did you mean runtime?"),
    "without a colon": (
        "wanc: 1",
        "wanc: 1\nquantize: {scheme: int8, calibrate: {prompts: p.txt, clips 6}}",
        "4:54",
        "quantize.calibrate has no key clips 6",
        "put a colon and a blank between them: `clips: 6`",
    ),
    "without a blank": (
        "wanc: 1",
        "wanc: 1\nruntime: {threads:4}",
        "4:11",
        "runtime has no key threads:4",
        "put a colon and a blank between them: `threads: 4`",
    ),
    "with an equals sign": (
        "wanc: 1",
        "wanc: 1\nruntime: {threads = 4}",
        "4:11",
        "runtime has no key threads = 4",
        "put a colon and a blank between them: `threads: 4`",
    ),
    "in a list": (
        "{name: 64p,",
        "{name: 64p, fps: ,",
        "12:17",
        "shapes.0 has no key fps",
        "did you mean sampling.fps?",
    ),
    "needed, at the top": ("name: tiny-wan", "name:", "4:1", "name has no value", "The bundle's name."),
    "needed, in a section": (
        "shift: 5.0",
        "shift: null",
        "18:3",
        "sampling.shift has no value",
        "How much the steps lean towards high noise; 1 is not at all, Wan2.2-T2V-A14B was tuned with 12.",
    ),
    "needed, in a list": (
        "{name: 64p, height: 64",
        "{name: 64p, height: ",
        "12:17",
        "shapes.0.height has no value",
        "In pixels, a multiple of 16; the model knows no positions beyond 16384.",
    ),
    "an item": (
        "  steps: 20\n",
        "  timesteps: [1000, ~]\n",
        "17:21",
        "sampling.timesteps.1 has to be a number, not null",
        "Instead of steps, for few-step models: the timesteps before the shift, such as [1000, 750, 500, 250].",
    ),
    "an item that is a section": (
        "  - {name: 96p-wide, height: 64, width: 96, frames: 17}\n",
        "  -\n",
        "13:4",
        "shapes.1 has to be a mapping, not null",
        "its keys are name, height, width, frames",
    ),
    "in a variant": (
        "wanc: 1",
        "wanc: 1\nmatrix: {fast: {sampling.stepz: }}",
        "4:17",
        "sampling has no key stepz",
        STEPS,
    ),
    "in a section of a variant": (
        "wanc: 1",
        "wanc: 1\nmatrix: {fast: {runtime: {thread: }}}",
        "4:27",
        "runtime has no key thread",
        "did you mean threads?",
    ),
    "a variant": (
        "wanc: 1",
        "wanc: 1\nmatrix: {fast: }",
        "4:15",
        "matrix.fast has to be a mapping",
        "write what it sets, such as {sampling.steps: 8}, or {} for the recipe as it is",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_null_does_not_hide(case: str, assert_refused: AssertRefused) -> None:
    assert_refused(*WRONG[case])


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("sampling.stepz=", "sampling has no key stepz", STEPS),
        ("sampling.guidance.hihg=~", "sampling.guidance has no key hihg", "did you mean high?"),
        ("shapes.0.heigth=", "shapes.0 has no key heigth", "did you mean height?"),
        ("shapes.0.height=", "shapes.0.height has no value", None),
        ("colour=", "a recipe has no key colour", None),
        ("runtime={thread: }", "runtime has no key thread", "did you mean threads?"),
    ],
)
def test_what_a_null_of_set_does_not_hide(
    override: str, message: str, hint: str | None, write: Write, tiny: str
) -> None:
    error = refusal(write("recipe.yaml", tiny), override)
    assert (error.message, error.where) == (message, f"--set {override}")
    if hint is not None:
        assert error.hint == hint


@pytest.mark.parametrize(
    ("base", "child", "place", "message"),
    [
        ("runtime: {thread: 4}\n", "runtime:\n", "base.yaml:21:11", "runtime has no key thread"),
        ("runtime: {thread: 4}\n", "runtime: {thread: }\n", "base.yaml:21:11", "runtime has no key thread"),
        ("", "runtime: {thread: }\n", "child.yaml:2:11", "runtime has no key thread"),
        ("quantize: {scheem: int8}\n", "quantize: null\n", "base.yaml:21:12", "quantize has no key scheem"),
        (
            "matrix: {a: {sampling.stpes: 3}}\n",
            "matrix: {a: {sampling.steps: 3}}\n",
            "base.yaml:21:14",
            "sampling has no key stpes",
        ),
        ("matrix: {a: {sampling.stpes: 3}}\n", "matrix: null\n", "base.yaml:21:14", "sampling has no key stpes"),
    ],
)
def test_what_a_higher_layer_takes_away_was_checked_before(
    base: str, child: str, place: str, message: str, write: Write, tiny: str
) -> None:
    write("base.yaml", tiny + base)
    error = refusal(write("child.yaml", f"extends: base.yaml\n{child}"))
    assert (error.message.splitlines()[0], error.where) == (message, place)


def test_a_name_of_the_recipe_s_own_is_taken_away_where_there_is_one(write: Write) -> None:
    write("base.yaml", TORCH.replace("{n: 3}", "{n: 3}\n  values: {x: 2}"))
    (loaded,) = load(write("child.yaml", "extends: base.yaml\nmodel: {values: {x: }}\n"))
    assert loaded.recipe.model.values == {}
    with_set = refusal(Path("child.yaml"), "model.values.y=")
    assert (with_set.message, with_set.where) == ("model.values.y has no value", "--set model.values.y=")
    error = refusal(write("child.yaml", "extends: base.yaml\nmodel: {values: {y: }}\n"))
    assert (error.message, error.where, error.hint) == ("model.values.y has no value", "child.yaml:2:18", VALUE)


def test_a_null_of_a_known_key_is_its_default(write: Write, tiny: str) -> None:
    path = write("recipe.yaml", f"{tiny}  fps:\nruntime: {{threads: ~}}\nprecision:\nfuse: {{skip: null}}\n")
    (loaded,) = load(path, ["engine.kind=", "sampling.solver=~"])
    assert loaded.recipe == load(write("plain.yaml", tiny))[0].recipe
    (loaded,) = load(write("graph.yaml", TORCH))
    assert loaded.recipe.model.inputs[0].dtype == "float32"


def test_a_section_that_a_layer_took_away_can_be_given_anew(write: Write, tiny: str) -> None:
    write("a.yaml", tiny + "runtime: {threads: 4}\n")
    write("b.yaml", "extends: a.yaml\nruntime:\n")
    (loaded,) = load(write("c.yaml", "extends: b.yaml\nruntime: {threads: 2}\n"))
    assert loaded.recipe.runtime.threads == 2
    (loaded,) = load(Path("b.yaml"), ["runtime.threads=3"])
    assert loaded.recipe.runtime.threads == 3


@pytest.mark.parametrize("setting", ["sampling.steps=null", "sampling.guidance=", "sampling=~", "shapes=null"])
def test_the_null_that_took_away_what_is_needed_is_the_place(write: Write, tiny: str, setting: str) -> None:
    key = setting.partition("=")[0]
    error = refusal(write("recipe.yaml", tiny), setting)
    assert (error.where, error.hint) == (
        f"--set {setting}",
        f"{key} is null here, which takes away what was said before: give it a value",
    )


def test_a_null_of_a_variant_is_the_place(write: Write, tiny: str) -> None:
    error = refusal(write("recipe.yaml", f"{tiny}matrix: {{fast: {{sampling.steps: null}}}}\n"))
    assert error.where == f"recipe.yaml:{tiny.count(chr(10)) + 1}:17"
