"""Inputs and outputs that no .npz file holds: each is refused with a hint, and a graph changed as it says is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from scripts.node_tests.roads import ENGINES, Road, plain
from wanc.errors import CheckpointError
from wanc.runtime.backends.offline import stay_offline

stay_offline()

HEADER = '<ir_version: 12, opset_import: ["" : 25, "ai.onnx.ml" : 4]>'
FLOATS = np.array([-3.3, 0.1, 1.0, 2.7, 5.0], np.float32)
CODES = np.array([0, 1, 1, 0, 1])
NARROW = {
    "bfloat16": "float", "float8e4m3fn": "float", "float8e4m3fnuz": "float", "float8e5m2": "float",
    "float8e5m2fnuz": "float", "float8e8m0": "float", "int4": "int8", "int2": "int8",
    "uint4": "uint8", "uint2": "uint8",
}  # fmt: skip
T = onnx.TensorProto


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEADER} {text}")


def hint(model: onnx.ModelProto, folder: Path) -> str:
    folder.mkdir()
    with pytest.raises(CheckpointError) as caught:
        Road(ENGINES["onnxruntime"], folder).run(model, {})
    return str(caught.value.hint)


def assert_built(model: onnx.ModelProto, folder: Path, **inputs: Any) -> None:
    """What wanc builds of a model gives what plain onnxruntime gives."""
    expected = plain(model, inputs)
    assert expected is not None
    actual = Road(ENGINES["onnxruntime"], folder).run(model, inputs)
    assert list(actual) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, strict=True)


@pytest.mark.parametrize("narrow", NARROW)
def test_numbers_are_cast_inside_the_graph(tmp_path: Path, narrow: str) -> None:
    wide, dtypes = NARROW[narrow], (T.DataType.Value(narrow.upper()), T.DataType.Value(NARROW[narrow].upper()))
    taken = parsed(f"g ({wide}[5] x) => ({wide}[5] y) {{ y = Cast <to = {dtypes[1]}> (x) }}")
    taken.graph.input[0].type.tensor_type.elem_type = dtypes[0]
    given = parsed(f"g ({wide}[5] x) => ({wide}[5] y) {{ y = Cast <to = {dtypes[0]}> (x) }}")
    given.graph.output[0].type.tensor_type.elem_type = dtypes[0]
    shown = "float32" if wide == "float" else wide
    assert hint(taken, tmp_path / "taken") == f"let the graph take {shown}, and Cast that"
    assert hint(given, tmp_path / "given") == f"let the graph give {shown}, by a Cast"
    followed = parsed(
        f"g ({wide}[5] x) => ({wide}[5] y) {{ c = Cast <to = {dtypes[0]}> (x) y = Cast <to = {dtypes[1]}> (c) }}"
    )
    assert_built(followed, tmp_path, x=FLOATS if wide == "float" else CODES.astype(wide))


SEQUENCES = {
    "a sequence that is taken": (
        "g (seq(float[5]) x) => (float[10] y) { y = ConcatFromSequence <axis = 0> (x) }",
        "let the graph take its tensors, and make it inside, by SequenceConstruct",
        "g (float[5] x) => (float[10] y) { s = SequenceConstruct (x, x) y = ConcatFromSequence <axis = 0> (s) }",
    ),
    "a sequence that is given": (
        "g (float[5] x) => (seq(float[2]) y) <int64 two = {2}> { y = SplitToSequence (x, two) }",
        "let the graph take its tensors out of it, by SequenceAt",
        "g (float[5] x) => (float[2] y) <int64 two = {2}, int64 one = {1}>"
        " { s = SplitToSequence (x, two) y = SequenceAt (s, one) }",
    ),
    "an optional that is taken": (
        "g (optional(float[5]) x) => (float[5] y) { y = OptionalGetElement (x) }",
        "let the graph take what it holds, and make it inside, by Optional",
        "g (float[5] x) => (float[5] y) { o = Optional (x) y = OptionalGetElement (o) }",
    ),
    "an optional that is given": (
        "g (float[5] x) => (optional(float[5]) y) { y = Optional (x) }",
        "let the graph take out what it holds, by OptionalGetElement",
        "g (float[5] x) => (float[5] y) { o = Optional (x) y = OptionalGetElement (o) }",
    ),
}


@pytest.mark.parametrize(("text", "advice", "followed"), SEQUENCES.values(), ids=SEQUENCES)
def test_what_is_no_tensor_is_made_inside_the_graph(tmp_path: Path, text: str, advice: str, followed: str) -> None:
    assert hint(parsed(text), tmp_path / "refused") == advice
    assert_built(parsed(followed), tmp_path, x=FLOATS)


TEXTS = (
    'g (string[5] t) => (string[5] y) { l = ai.onnx.ml.LabelEncoder <keys_strings = ["a"], values_floats = [1.]> (t)'
    ' m = Neg (l) y = ai.onnx.ml.LabelEncoder <keys_floats = [-1.], values_strings = ["A"]> (m) }'
)


def test_texts_are_cut_off(tmp_path: Path) -> None:
    model = parsed(TEXTS)
    assert hint(model, tmp_path / "taken") == "begin behind what reads it: onnx.utils.extract_model cuts a graph"
    onnx.save(model, tmp_path / "texts.onnx")
    onnx.utils.extract_model(tmp_path / "texts.onnx", tmp_path / "behind.onnx", ["l"], ["y"])
    behind = onnx.load(tmp_path / "behind.onnx")
    assert hint(behind, tmp_path / "given") == "end before what makes it: onnx.utils.extract_model cuts a graph"
    onnx.utils.extract_model(tmp_path / "texts.onnx", tmp_path / "between.onnx", ["l"], ["m"])
    assert_built(onnx.load(tmp_path / "between.onnx"), tmp_path, l=FLOATS)


def test_opsets_older_than_any_that_onnxruntime_promises_are_converted(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 3, opset_import: ["" : 1]> g (bool[5] x) => (bool[5] y) { y = Not (x) }'
    )
    assert hint(model, tmp_path / "refused") == "convert it: onnx.version_converter.convert_version"
    assert_built(onnx.version_converter.convert_version(model, 13), tmp_path, x=CODES.astype(bool))


@pytest.mark.parametrize(
    "text",
    [
        "g (float[3, 2] x) => (float[3, 2] y) { y = ai.onnx.ml.Binarizer <threshold = 1.> (x) }",
        "g (float[3, 2] x) => (float[3, 2] y) { s = ai.onnx.ml.Scaler <offset = [1., 2.], scale = [2., 2.]> (x)"
        ' y = ai.onnx.ml.Normalizer <norm = "L1"> (s) }',
        "g (float[3, 2] x) => (float[2] c) <float[2] c = {1., 2.}> {}",
    ],
)
def test_a_file_that_uses_no_standard_operator_need_not_say_of_which_version(tmp_path: Path, text: str) -> None:
    model = parsed(text)
    model.opset_import.remove(next(entry for entry in model.opset_import if not entry.domain))
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert_built(model, tmp_path, **{value.name: x for value in model.graph.input})
