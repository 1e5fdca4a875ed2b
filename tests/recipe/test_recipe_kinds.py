"""Recipes for models that make no videos: an ONNX file, or a torch module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.recipe.model import InputSection

from .conftest import Write

ONNX = """\
wanc: 1
name: vad
model:
  onnx: silero_vad.onnx
  example: {batch: 1, samples: 512}
  values: {sr: 16000}
"""
TORCH = """\
wanc: 1
name: encoder
model:
  torch: my_package.models:build_encoder
  inputs:
    - {name: ids, dtype: int64, shape: [1, tokens]}
    - {name: mask, shape: [1, tokens, 16*rows]}
  example: {tokens: 7, rows: 2}
"""
WAN = """\
wanc: 1
name: wan
model:
  source: checkpoint
shapes: [{name: small, height: 64, width: 64, frames: 5}]
sampling: {steps: 4, shift: 5.0, guidance: {high: 4.0, low: 3.0}}
"""

Refuse = Callable[..., RecipeError]


@pytest.fixture
def refuse(write: Write) -> Refuse:
    """What a text is refused with, after one replacement."""

    def run(text: str, old: str, new: str) -> RecipeError:
        assert text.count(old) == 1
        with pytest.raises(RecipeError) as caught:
            load(write("recipe.yaml", text.replace(old, new)))
        return caught.value

    return run


# what is accepted


def test_an_onnx_recipe(write: Write, tmp_path: Path) -> None:
    (loaded,) = load(write("recipe.yaml", ONNX))
    model = loaded.recipe.model
    assert (model.onnx, model.source, model.torch) == (tmp_path / "silero_vad.onnx", None, None)
    assert (model.example, model.values) == ({"batch": 1, "samples": 512}, {"sr": 16000.0})
    assert (loaded.recipe.shapes, loaded.recipe.sampling) == (None, None)


def test_the_shortest_onnx_recipe(write: Write) -> None:
    (loaded,) = load(write("recipe.yaml", "wanc: 1\nname: a\nmodel: {onnx: a.onnx}\n"))
    assert (loaded.recipe.model.example, loaded.recipe.model.values) == (None, None)


def test_a_torch_recipe(write: Write, tmp_path: Path) -> None:
    (loaded,) = load(write("recipe.yaml", f"{TORCH}  outputs: [states, pooled]\n  files: [weights, /abs/vocab.txt]\n"))
    model = loaded.recipe.model
    assert model.torch == "my_package.models:build_encoder"
    assert model.inputs == (
        InputSection(name="ids", dtype="int64", shape=(1, "tokens")),
        InputSection(name="mask", dtype="float32", shape=(1, "tokens", "16*rows")),
    )
    assert model.example == {"tokens": 7, "rows": 2}
    assert model.outputs == ("states", "pooled")
    assert model.files == (tmp_path / "weights", Path("/abs/vocab.txt"))


@pytest.mark.parametrize("shape", ["[]", "[0]", "[2147483647]", "[1, 3]"])
def test_an_input_without_names_needs_no_example(shape: str, write: Write) -> None:
    (loaded,) = load(
        write("recipe.yaml", f"wanc: 1\nname: a\nmodel: {{torch: 'a:b', inputs: [{{name: x, shape: {shape}}}]}}\n")
    )
    assert loaded.recipe.model.example is None


def test_paths_start_from_the_file_that_they_are_written_in(write: Write, tmp_path: Path) -> None:
    write("base/base.yaml", f"{TORCH}  files: [weights]\n")
    write("base/onnx.yaml", ONNX)
    (loaded,) = load(write("mine/child.yaml", "extends: ../base/base.yaml\nname: child\n"))
    assert loaded.recipe.model.files == (tmp_path / "base/weights",)
    (loaded,) = load(write("mine/child.yaml", "extends: ../base/base.yaml\nmodel: {files: [w, ../x]}\n"))
    assert loaded.recipe.model.files == (tmp_path / "mine/w", tmp_path / "x")
    (loaded,) = load(write("mine/child.yaml", "extends: ../base/onnx.yaml\n"))
    assert loaded.recipe.model.onnx == tmp_path / "base/silero_vad.onnx"
    (loaded,) = load(write("mine/child.yaml", "extends: ../base/onnx.yaml\nmodel: {onnx: m.onnx}\n"))
    assert loaded.recipe.model.onnx == tmp_path / "mine/m.onnx"


def test_set_reaches_every_part(write: Write, tmp_path: Path) -> None:
    path = write("recipes/recipe.yaml", f"{TORCH}  files: [weights, more]\n")
    overrides = [
        "model.example.tokens=9",
        "model.values={mask: 1}",
        "model.values.ids=3",
        "model.inputs.1.dtype=float16",
        "model.files.1=here",
        "model.outputs=[states]",
    ]
    (loaded,) = load(path, overrides)
    model = loaded.recipe.model
    assert model.inputs is not None
    assert (model.example, model.values) == ({"tokens": 9, "rows": 2}, {"mask": 1.0, "ids": 3.0})
    assert model.inputs[1].dtype == "float16"
    assert model.files == (tmp_path / "recipes/weights", tmp_path / "here")
    assert model.outputs == ("states",)
    assert loaded.marks.where("model.example.tokens") == "--set model.example.tokens=9"
    (loaded,) = load(write("onnx.yaml", ONNX), ["model.onnx=other.onnx"])
    assert loaded.recipe.model.onnx == tmp_path / "other.onnx"


def test_extends_merges_sizes_and_replaces_inputs(write: Write) -> None:
    write("base.yaml", TORCH)
    child = "extends: base.yaml\nmodel: {inputs: [{name: x, shape: [tokens]}], example: {rows: null, tokens: 5}}\n"
    (loaded,) = load(write("child.yaml", child))
    assert loaded.recipe.model.inputs == (InputSection(name="x", shape=("tokens",)),)
    assert loaded.recipe.model.example == {"tokens": 5}


def test_extends_can_change_the_kind(write: Write) -> None:
    write("base.yaml", TORCH)
    child = "extends: base.yaml\nmodel: {torch: null, inputs: null, onnx: a.onnx}\n"
    (loaded,) = load(write("child.yaml", child))
    assert (loaded.recipe.model.torch, loaded.recipe.model.inputs) == (None, None)
    write("wan.yaml", WAN)
    child = "extends: wan.yaml\nmodel: {source: null, onnx: a.onnx}\nshapes: null\nsampling: null\n"
    (loaded,) = load(write("child.yaml", child))
    assert (loaded.recipe.shapes, loaded.recipe.sampling) == (None, None)


def test_a_matrix_of_sizes(write: Write) -> None:
    loaded = load(write("recipe.yaml", f"{TORCH}matrix: {{a: {{}}, b: {{model.example.tokens: 9}}}}\n"))
    assert [one.recipe.name for one in loaded] == ["encoder-a", "encoder-b"]
    assert [(one.recipe.model.example or {})["tokens"] for one in loaded] == [7, 9]


# what is refused

VIDEO = "only a model given as source makes videos"
NAMES = "it has to be letters, digits, '_' and '-', beginning with a letter or a digit"
ONLY_ONE = "remove one of them"
IDENTIFIER = "it has to be letters, digits and '_', beginning with no digit"
FACTORY = "it has to be a module and a function in it, such as my_package.models:build_encoder"
SIZE = "a size has to be a whole number, a name or a multiple of a name"
SIZES = "such as 3, tokens or 16*rows"
DTYPES = "it can be bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32 or float64"
EXAMPLE = "Sizes that work together, by name, such as {tokens: 7}: for tracing, and for the bundle's self-test."
VALUES = "What the self-test fills an input with where noise, ones for integers, would not do, such as {rate: 16000}."
OUTPUTS = "Names for what a torch module returns, in order; output_0, output_1, ... unless given."
FILES = "Files and folders that the torch function reads besides its own package: a change in them builds again."
INPUTS = "The arguments of a torch module's forward, in order."

# name: (recipe, what stands in it, what replaces it, line:column, message, hint)
WRONG: dict[str, tuple[str, str, str, str, str, str | None]] = {
    # which kind
    "no kind": (
        ONNX,
        "  onnx: silero_vad.onnx\n",
        "",
        "4:3",
        "model: none of source, onnx and torch is given",
        "give the folder of a Wan checkpoint as source, an ONNX file as onnx, or a function as torch",
    ),
    "source and onnx": (
        WAN,
        "  source: checkpoint",
        "  onnx: a.onnx\n  source: checkpoint",
        "4:9",
        "model.onnx: source and onnx exclude each other",
        ONLY_ONE,
    ),
    "source and torch": (
        WAN,
        "  source: checkpoint",
        "  source: checkpoint\n  torch: a:b",
        "5:10",
        "model.torch: source and torch exclude each other",
        ONLY_ONE,
    ),
    "onnx and torch": (
        TORCH,
        "model:\n",
        "model:\n  onnx: a.onnx\n",
        "5:10",
        "model.torch: onnx and torch exclude each other",
        ONLY_ONE,
    ),
    # keys of another kind
    "components of an ONNX file": (
        ONNX,
        "  onnx:",
        "  components: [vae_decoder]\n  onnx:",
        "4:15",
        "model.components: onnx models have no components",
        "remove it; it says something only of a model given as source",
    ),
    "components of a torch module": (
        TORCH,
        "  torch:",
        "  components: [vae_decoder]\n  torch:",
        "4:15",
        "model.components: torch models have no components",
        "remove it; it says something only of a model given as source",
    ),
    "inputs of an ONNX file": (
        ONNX,
        "  onnx:",
        "  inputs: [{name: x, shape: [1]}]\n  onnx:",
        "4:11",
        "model.inputs: onnx models have no inputs",
        "remove it; it says something only of a model given as torch",
    ),
    "outputs of an ONNX file": (
        ONNX,
        "  onnx:",
        "  outputs: [x]\n  onnx:",
        "4:12",
        "model.outputs: onnx models have no outputs",
        "remove it; it says something only of a model given as torch",
    ),
    "files of an ONNX file": (
        ONNX,
        "  onnx:",
        "  files: [x]\n  onnx:",
        "4:10",
        "model.files: onnx models have no files",
        "remove it; it says something only of a model given as torch",
    ),
    "example of a checkpoint": (
        WAN,
        "  source: checkpoint",
        "  source: checkpoint\n  example: {tokens: 7}",
        "5:12",
        "model.example: source models have no example",
        "remove it; it says something only of a model given as onnx or torch",
    ),
    "values of a checkpoint": (
        WAN,
        "  source: checkpoint",
        "  source: checkpoint\n  values: {}",
        "5:11",
        "model.values: source models have no values",
        "remove it; it says something only of a model given as onnx or torch",
    ),
    "shapes of an ONNX file": (
        ONNX,
        "name: vad\n",
        "name: vad\nshapes: [{name: small, height: 64, width: 64, frames: 5}]\n",
        "3:9",
        f"shapes: {VIDEO}",
        "remove it",
    ),
    "sampling of a torch module": (
        TORCH,
        "name: encoder\n",
        "name: encoder\nsampling: {steps: 4, shift: 5.0, guidance: {high: 4.0, low: 3.0}}\n",
        "3:11",
        f"sampling: {VIDEO}",
        "remove it",
    ),
    # onnx
    "empty onnx": (
        ONNX,
        "silero_vad.onnx",
        '""',
        "4:9",
        "model.onnx: the path is empty",
        "name a file or a folder",
    ),
    "onnx as number": (
        ONNX,
        "silero_vad.onnx",
        "1",
        "4:9",
        "model.onnx has to be text, not the number 1",
        "put it in quotes",
    ),
    # torch
    "factory without a function": (
        TORCH,
        "my_package.models:build_encoder",
        "my_package.models",
        "4:10",
        "model.torch cannot be my_package.models",
        FACTORY,
    ),
    "factory as a path": (
        TORCH,
        "my_package.models:build_encoder",
        "../models.py:build",
        "4:10",
        "model.torch cannot be ../models.py:build",
        FACTORY,
    ),
    "no inputs": (
        TORCH,
        "  inputs:\n    - {name: ids, dtype: int64, shape: [1, tokens]}\n"
        "    - {name: mask, shape: [1, tokens, 16*rows]}\n",
        "",
        "4:3",
        "model: a torch model needs its inputs described",
        "add a line such as `inputs: [{name: ids, dtype: int64, shape: [1, tokens]}]`",
    ),
    "empty inputs": (
        TORCH,
        "  inputs:\n    - {name: ids, dtype: int64, shape: [1, tokens]}\n"
        "    - {name: mask, shape: [1, tokens, 16*rows]}\n",
        "  inputs: []\n",
        "5:11",
        "model.inputs has to be a list of at least 1, not an empty list",
        INPUTS,
    ),
    "input as text": (
        TORCH,
        "{name: mask, shape: [1, tokens, 16*rows]}",
        "mask",
        "7:7",
        "model.inputs.1 has to be a mapping, not the text mask",
        "its keys are name, dtype, shape",
    ),
    "input without a shape": (
        TORCH,
        "{name: mask, shape: [1, tokens, 16*rows]}",
        "{name: mask}",
        "7:7",
        "model.inputs.1.shape is missing",
        "Its sizes: whole numbers, and names for those that may change, such as [1, tokens] or [1, 3, 16*rows, 64].",
    ),
    "input twice": (
        TORCH,
        "name: mask",
        "name: ids",
        "7:14",
        "model.inputs.1.name: ids stands twice",
        "give each input a name of its own",
    ),
    "input's name": (TORCH, "name: ids", "name: input.1", "6:14", "model.inputs.0.name cannot be input.1", IDENTIFIER),
    "misspelt dtype": (
        TORCH,
        "dtype: int64",
        "dtype: itn64",
        "6:26",
        "model.inputs.0.dtype cannot be itn64",
        "did you mean int64?",
    ),
    "strange dtype": (
        TORCH,
        "dtype: int64",
        "dtype: q",
        "6:26",
        "model.inputs.0.dtype cannot be q",
        DTYPES,
    ),
    "strange key of an input": (
        TORCH,
        "dtype: int64",
        "qqq: int64",
        "6:19",
        "model.inputs.0 has no key qqq",
        "its keys are name, dtype, shape",
    ),
    "shape as a number": (
        TORCH,
        "shape: [1, tokens]}",
        "shape: 1}",
        "6:40",
        "model.inputs.0.shape has to be a list, not the number 1",
        "write [1]",
    ),
    "size below 0": (TORCH, "[1, tokens]", "[-1, tokens]", "6:41", f"model.inputs.0.shape.0: {SIZE}", SIZES),
    "size too large": (TORCH, "[1, tokens]", "[2147483648, tokens]", "6:41", f"model.inputs.0.shape.0: {SIZE}", SIZES),
    "size as true": (TORCH, "[1, tokens]", "[true, tokens]", "6:41", f"model.inputs.0.shape.0: {SIZE}", SIZES),
    "size as float": (TORCH, "[1, tokens]", "[1.0, tokens]", "6:41", f"model.inputs.0.shape.0: {SIZE}", SIZES),
    "size as null": (TORCH, "[1, tokens]", "[~, tokens]", "6:41", f"model.inputs.0.shape.0: {SIZE}", SIZES),
    "size as formula": (TORCH, "[1, tokens]", "[1, tokens*2]", "6:44", f"model.inputs.0.shape.1: {SIZE}", SIZES),
    "sum of sizes": (TORCH, "[1, tokens]", "[1, tokens+1]", "6:44", f"model.inputs.0.shape.1: {SIZE}", SIZES),
    # example
    "no example": (
        TORCH,
        "  example: {tokens: 7, rows: 2}\n",
        "",
        "4:3",
        "model.example: no size is given for tokens",
        "write sizes that work: {tokens: 7, rows: 7}",
    ),
    "half of the example": (
        TORCH,
        "{tokens: 7, rows: 2}",
        "{tokens: 7}",
        "8:12",
        "model.example: no size is given for rows",
        "write sizes that work: {tokens: 7, rows: 7}",
    ),
    "misspelt size": (
        TORCH,
        "{tokens: 7, rows: 2}",
        "{tokens: 7, rwos: 2}",
        "8:30",
        "model.example.rwos: no input has a size called rwos",
        "the names are tokens, rows",
    ),
    "a size for nothing": (
        "wanc: 1\nname: a\nmodel: {torch: 'a:b', inputs: [{name: x, shape: [1]}]}\n",
        "shape: [1]}]}",
        "shape: [1]}], example: {n: 1}}",
        "3:69",
        "model.example.n: no input has a size called n",
        "remove it",
    ),
    "example of nothing": (
        TORCH,
        "tokens: 7",
        "tokens: 0",
        "8:21",
        "model.example.tokens has to be at least 1, not the number 0",
        EXAMPLE,
    ),
    "example too large": (
        ONNX,
        "batch: 1",
        "batch: 2147483648",
        "5:20",
        "model.example.batch has to be at most 2147483647, not the number 2147483648",
        EXAMPLE,
    ),
    "example as float": (
        ONNX,
        "batch: 1",
        "batch: 1.0",
        "5:20",
        "model.example.batch has to be a whole number, not the number 1.0",
        "write 1",
    ),
    "example as list": (
        ONNX,
        "{batch: 1, samples: 512}",
        "[1, 512]",
        "5:12",
        "model.example has to be a mapping, not a list of 2",
        EXAMPLE,
    ),
    # values
    "value as text": (
        ONNX,
        "sr: 16000",
        "sr: 16k",
        "6:16",
        "model.values.sr has to be a number, not the text 16k",
        VALUES,
    ),
    "value of no input": (
        TORCH,
        "  example:",
        "  values: {maks: 1}\n  example:",
        "8:18",
        "model.values.maks: there is no input maks",
        "the names are ids, mask",
    ),
    # outputs and files
    "output twice": (
        TORCH,
        "  example:",
        "  outputs: [a, a]\n  example:",
        "8:16",
        "model.outputs.1: a stands twice",
        "name each once",
    ),
    "output's name": (
        TORCH,
        "  example:",
        "  outputs: [1st]\n  example:",
        "8:13",
        "model.outputs.0 cannot be 1st",
        IDENTIFIER,
    ),
    "outputs as text": (
        TORCH,
        "  example:",
        "  outputs: a\n  example:",
        "8:12",
        "model.outputs has to be a list, not the text a",
        "write [a]",
    ),
    "files as text": (
        TORCH,
        "  example:",
        "  files: weights\n  example:",
        "8:10",
        "model.files has to be a list, not the text weights",
        "write [weights]",
    ),
    "empty path among files": (
        TORCH,
        "  example:",
        '  files: [a, ""]\n  example:',
        "8:14",
        "model.files.1: the path is empty",
        "name a file or a folder",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(case: str, refuse: Refuse) -> None:
    text, old, new, place, message, hint = WRONG[case]
    error = refuse(text, old, new)
    assert (error.message, error.where, error.hint) == (message, f"recipe.yaml:{place}", hint)


def test_faults_of_the_parts_are_reported_together(refuse: Refuse) -> None:
    error = refuse(TORCH, "{tokens: 7, rows: 2}", "{tokens: 0}\n  outputs: [1st]\n  colour: red")
    first, *others = error.message.splitlines()
    assert first == "model.outputs.0 cannot be 1st"
    assert others == [
        f"  also recipe.yaml:8:21: model.example.tokens has to be at least 1, not the number 0 ({EXAMPLE})",
        "  also recipe.yaml:10:3: model has no key colour (its keys are source, family, companion, onnx, torch, "
        "components, inputs, outputs, files, example, values, allow, allow_not_finite)",
    ]


@pytest.mark.parametrize("text", [ONNX, TORCH])
def test_a_null_is_absent(text: str, write: Write) -> None:
    (with_nulls,) = load(write("a.yaml", f"{text}  source:\n  components: ~\nshapes: null\nsampling:\n"))
    (plain,) = load(write("b.yaml", text))
    assert with_nulls.recipe == plain.recipe
