"""Weights moved into an engine's file: models as text before and after, and the bytes that were written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.layout import NUMPY_DTYPES
from wanc.compiler.weights.weight_file import WeightFile, stored_bytes
from wanc.errors import CheckpointError

Arrays = Mapping[str, NDArray[Any]]
HEADER = '<ir_version: 10, opset_import: ["" : 23, "wanc" : 1]>'
DTYPES = {numpy_dtype: ir.DataType[name] for name, numpy_dtype in NUMPY_DTYPES.items()}


def store(folder: Path, weights: Arrays) -> dict[str, tuple[str, int]]:
    """Write arrays into one source file, with a gap before each; name → (file, offset)."""
    places: dict[str, tuple[str, int]] = {}
    with (folder / "source.bin").open("wb") as stream:
        for name, array in weights.items():
            stream.write(b"\xee" * 12)
            places[name] = ("source.bin", stream.tell())
            stream.write(ir.tensor(array).tobytes())  # which knows of half bytes
    return places


def parse(text: str, folder: Path, weights: Arrays) -> ir.Model:
    """A model whose inputs of these names are weights in a source file."""
    model = ir.from_proto(onnx.parser.parse_model(f"{HEADER} {text}"))
    places = store(folder, weights)
    for value in [value for value in model.graph.inputs if value.name in weights]:
        array, (file, offset) = weights[str(value.name)], places[str(value.name)]
        model.graph.inputs.remove(value)
        value.const_value = ir.ExternalTensor(
            file, offset, ir.tensor(array).nbytes, DTYPES[array.dtype], shape=ir.Shape(array.shape), name=value.name
        )
        model.graph.register_initializer(value)
    return model


def absorb(folder: Path, *models: ir.Model, turns: bool = True) -> tuple[WeightFile, bytes]:
    sources = {"source.bin": folder / "source.bin"}
    with WeightFile(folder / "weights.bin", sources, FiniteCheck("part"), turns=turns) as weights:
        for model in models:
            weights.absorb(model)
    return weights, weights.path.read_bytes()


def lines(model: ir.Model) -> list[str]:
    """The graph as text: weights, then nodes."""
    initializers = [
        f"{name}: {value.const_value.dtype.name.lower()}{list(value.const_value.shape.numpy())}"
        for name, value in sorted(model.graph.initializers.items())
        if value.const_value is not None and name == value.name == value.const_value.name
    ]
    assert len(initializers) == len(model.graph.initializers)
    nodes = [
        f"{node.outputs[0].name} = {node.op_type}({', '.join(str(value.name) for value in node.inputs if value)})"
        for node in model.graph
    ]
    return initializers + nodes


def values(model: ir.Model, name: str, data: bytes) -> NDArray[Any]:
    """A weight of the model, read from the written file."""
    value = model.graph.initializers[name]
    tensor = value.const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.location == "weights.bin"
    assert value.dtype == tensor.dtype
    assert value.shape is not None and tensor.offset is not None and tensor.length is not None
    assert tuple(value.shape) == tuple(tensor.shape)
    array = np.frombuffer(data[tensor.offset : tensor.offset + tensor.length], NUMPY_DTYPES[tensor.dtype.name])
    return array.reshape(tensor.shape.numpy())


def random(*shape: int, dtype: Any = np.float32, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize(
    ("text", "stored"), [("float", np.float32), ("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)]
)
def test_a_cast_is_carried_out(tmp_path: Path, text: str, stored: Any) -> None:
    weight = random(5, 3, dtype=stored)
    model = parse(
        f"g ({text}[5, 3] w, float[2, 5] x) => (float[2, 3] y) {{ c = Cast <to = 1> (w) y = MatMul (x, c) }}",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w: float[5, 3]", "y = MatMul(x, w)"]
    # Widening is exact.
    np.testing.assert_array_equal(values(model, "w", data), weight.astype(np.float32))


def test_narrowing_rounds_to_the_nearest(tmp_path: Path) -> None:
    weight = random(7, 9)
    model = parse(
        "g (float[7, 9] w, float16[2, 7] x) => (float16[2, 9] y) { c = Cast <to = 10> (w) y = MatMul (x, c) }",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w: float16[7, 9]", "y = MatMul(x, w)"]
    np.testing.assert_array_equal(values(model, "w", data), weight.astype(np.float16))


def test_a_weight_that_nothing_precedes_is_copied(tmp_path: Path) -> None:
    weight = random(5, 3, dtype=ml_dtypes.bfloat16)
    model = parse(
        "g (bfloat16[5, 3] w, bfloat16[2, 5] x) => (bfloat16[2, 3] y) { y = MatMul (x, w) }", tmp_path, {"w": weight}
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w: bfloat16[5, 3]", "y = MatMul(x, w)"]
    assert values(model, "w", data).tobytes() == weight.tobytes()


def test_a_transpose_is_carried_out(tmp_path: Path) -> None:
    weight = random(3, 5)
    model = parse(
        "g (float[3, 5] w, float[2, 5] x) => (float[2, 3] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w.T10: float[5, 3]", "y = MatMul(x, w.T10)"]
    np.testing.assert_array_equal(values(model, "w.T10", data), weight.T)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "c = Cast <to = 1> (w) t = Transpose <perm = [1, 0]> (c) y = MatMul (x, t)",
            ["w: float[3, 3]", "t = Transpose(w)", "y = MatMul(x, t)"],
        ),
        (
            "c = Cast <to = 1> (w) t = Transpose <perm = [1, 0]> (c) p = MatMul (t, x) y = MatMul (p, t)",
            ["w.T10: float[3, 3]", "p = MatMul(w.T10, x)", "y = MatMul(p, w.T10)"],
        ),
        (
            "c = Cast <to = 1> (w) t = Transpose <perm = [1, 0]> (c) y = Add (x, t)",
            ["w.T10: float[3, 3]", "y = Add(x, w.T10)"],
        ),
        (
            "s = Constant <value = int64[2] {3, 3}> () c = Cast <to = 1> (w) a = Transpose <perm = [1, 0]> (c)"
            "r = Reshape (a, s) t = Transpose <perm = [1, 0]> (r) y = MatMul (x, t)",
            ["w.T10.R3x3: float[3, 3]", "s = Constant()", "t = Transpose(w.T10.R3x3)", "y = MatMul(x, t)"],
        ),
    ],
)
def test_where_weights_are_not_turned_a_product_keeps_its_transpose(
    tmp_path: Path, body: str, expected: list[str]
) -> None:
    text = f"g (float16[3, 3] w, float[3, 3] x) => (float[3, 3] y) {{ {body} }}"
    model = parse(text, tmp_path, {"w": random(3, 3, dtype=np.float16)})
    absorb(tmp_path, model, turns=False)
    assert lines(model) == expected


def test_codes_are_turned_and_not_cast(tmp_path: Path) -> None:
    """Widened they would take four times the room."""
    codes = np.arange(-7, 8, dtype=np.int8).reshape(3, 5)
    model = parse(
        "g (int8[3, 5] w, int8[3, 5] v, float[2, 5] x) => (int8[5, 3] y, float[3, 5] z)"
        "{ t = Transpose <perm = [1, 0]> (w) y = Neg (t) c = Cast <to = 1> (v) z = Neg (c) }",
        tmp_path,
        {"w": codes, "v": codes},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["v: int8[3, 5]", "w.T10: int8[5, 3]", "y = Neg(w.T10)", "c = Cast(v)", "z = Neg(c)"]
    np.testing.assert_array_equal(values(model, "w.T10", data), codes.T)


def test_codes_of_four_bits_are_turned(tmp_path: Path) -> None:
    """They lie two in a byte before and after; an odd one is alone in the last."""
    codes = np.arange(-7, 8).reshape(3, 5).astype(ml_dtypes.int4)
    model = parse(
        "g (int4[3, 5] w) => (int4[5, 3] y) { t = Transpose <perm = [1, 0]> (w) y = Identity (t) }",
        tmp_path,
        {"w": codes},
    )
    weights, data = absorb(tmp_path, model)
    assert lines(model) == ["w.T10: int4[5, 3]", "y = Identity(w.T10)"]
    assert weights.entries["w.T10"].length == 8
    assert data == ir.tensor(codes.T).tobytes()


@pytest.mark.parametrize(
    ("codes", "bits", "expected"),
    [
        (np.array([[-127, 0, 127]], np.int8), 8, [[[1, 128, 255, 128], ]]),
        (np.array([[-7, 0, 7, 1, -1]]).astype(ml_dtypes.int4), 4, [[[0x81, 0x9F], [0x87, 0x88]]]),
        (np.array([[5], [-8]], np.int8), 4, [[[0x8D, 0x88]], [[0x80, 0x88]]]),
    ],
    ids=["a byte each", "two in a byte", "less than a block"],
)  # fmt: skip
def test_codes_are_packed(tmp_path: Path, codes: NDArray[Any], bits: int, expected: list[Any]) -> None:
    """In blocks of 4: counted from 0 on, and filled with what stands for 0."""
    dtype = DTYPES[codes.dtype].name.lower()
    shape = ", ".join(map(str, codes.shape))
    model = parse(
        f"g ({dtype}[{shape}] w) => (uint8[a, b, c] y)"
        f"{{ p = wanc.Pack <bits = {bits}, block_size = 4> (w) y = Identity (p) }}",
        tmp_path,
        {"w": codes},
    )
    _, data = absorb(tmp_path, model)
    name = f"w.P{bits}x4"
    packed = np.array(expected, np.uint8)
    assert lines(model) == [f"{name}: uint8{list(packed.shape)}", f"y = Identity({name})"]
    assert data == packed.tobytes()


@pytest.mark.parametrize(
    ("taken", "axis", "step", "expected"),
    [
        ([0, 0, 1, 1], 1, "N1x2x4", [[1, 1, 2, 2], [3, 3, 4, 4]]),
        ([0, 0, 0, 1], 1, "N1x3x4", [[1, 1, 1, 2], [3, 3, 3, 4]]),
        ([0, 0], 0, "N0x2x2", [[1, 2], [1, 2]]),
        ([0, 1], 0, "N0x1x2", [[1, 2], [3, 4]]),
    ],
    ids=["each as often", "the last less often", "one alone", "each once"],
)
def test_entries_are_repeated(tmp_path: Path, taken: list[int], axis: int, step: str, expected: list[Any]) -> None:
    model = gathering(tmp_path, taken, axis)
    _, data = absorb(tmp_path, model)
    assert lines(model)[0] == f"w.{step}: float{list(np.shape(expected))}"
    np.testing.assert_array_equal(values(model, f"w.{step}", data), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("taken", "axis"), [([1, 0], 0), ([0, 1, 2], 0), ([-1, 0], 0), ([1, 1], 0), ([0, 0, 1, 0], 1), ([0, 0], -1)]
)
def test_entries_in_another_order_are_left_to_the_engine(tmp_path: Path, taken: list[int], axis: int) -> None:
    model = gathering(tmp_path, taken, axis)
    absorb(tmp_path, model)
    assert lines(model)[0] == "w: float[2, 2]"
    assert "Gather" in [node.op_type for node in model.graph]


def gathering(folder: Path, taken: list[int], axis: int) -> ir.Model:
    """Several entries of a weight [2, 2]."""
    return parse(
        "g (float[2, 2] w) => (float[a, b] y)"
        f"{{ i = Constant <value_ints = {taken}> () g = Gather <axis = {axis}> (w, i) y = Neg (g) }}",
        folder,
        {"w": np.array([[1, 2], [3, 4]], np.float32)},
    )


def test_floats_are_not_cast_to_codes(tmp_path: Path) -> None:
    """What lies beyond their range is not defined."""
    model = parse("g (float[3] w) => (int8[3] y) { c = Cast <to = 3> (w) y = Neg (c) }", tmp_path, {"w": random(3)})
    absorb(tmp_path, model)
    assert lines(model) == ["w: float[3]", "c = Cast(w)", "y = Neg(c)"]


def test_a_transpose_without_permutation_reverses(tmp_path: Path) -> None:
    weight = random(2, 3, 4)
    model = parse(
        "g (float[2, 3, 4] w, float[4, 3, 2] x) => (float[4, 3, 2] y) { t = Transpose (w) y = Add (x, t) }",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w.T210: float[4, 3, 2]", "y = Add(x, w.T210)"]
    np.testing.assert_array_equal(values(model, "w.T210", data), weight.T)


def test_a_cast_and_then_a_transpose(tmp_path: Path) -> None:
    weight = random(2, 3, 4, dtype=np.float16)
    model = parse(
        "g (float16[2, 3, 4] w, float[3, 4, 2] x) => (float[3, 4, 2] y)"
        "{ c = Cast <to = 1> (w) t = Transpose <perm = [1, 2, 0]> (c) y = Add (x, t) }",
        tmp_path,
        {"w": weight},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w.T120: float[3, 4, 2]", "y = Add(x, w.T120)"]
    np.testing.assert_array_equal(values(model, "w.T120", data), weight.astype(np.float32).transpose(1, 2, 0))


def test_equal_nodes_of_several_consumers_become_one_weight(tmp_path: Path) -> None:
    model = parse(
        "g (float16[3, 3] w, float[3, 3] x) => (float[3, 3] y)"
        "{ a = Cast <to = 1> (w) b = Cast <to = 1> (w) p = MatMul (x, a) y = MatMul (p, b) }",
        tmp_path,
        {"w": random(3, 3, dtype=np.float16)},
    )
    absorb(tmp_path, model)
    assert lines(model) == ["w: float[3, 3]", "p = MatMul(x, w)", "y = MatMul(p, w)"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (
            "a = Transpose <perm = [1, 0]> (w) b = MatMul (x, w) y = MatMul (b, a)",
            ["a = Transpose(w)", "b = MatMul(x, w)", "y = MatMul(b, a)"],
        ),
        (
            "a = Transpose <perm = [1, 0]> (w) b = Transpose <perm = [0, 1]> (w) c = MatMul (x, a) y = MatMul (c, b)",
            ["a = Transpose(w)", "b = Transpose(w)", "c = MatMul(x, a)", "y = MatMul(c, b)"],
        ),
        (
            "a = Transpose <perm = [1, 0]> (w) b = Cast <to = 1> (w) c = MatMul (x, a) y = MatMul (c, b)",
            ["a = Transpose(w)", "b = Cast(w)", "c = MatMul(x, a)", "y = MatMul(c, b)"],
        ),
    ],
)
def test_consumers_that_disagree_are_left_alone(tmp_path: Path, body: str, left: list[str]) -> None:
    weight = random(3, 3)
    model = parse(f"g (float[3, 3] w, float[3, 3] x) => (float[3, 3] y) {{ {body} }}", tmp_path, {"w": weight})
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w: float[3, 3]", *left]
    np.testing.assert_array_equal(values(model, "w", data), weight)


def test_consumers_that_agree_on_the_cast_alone(tmp_path: Path) -> None:
    model = parse(
        "g (float16[3, 3] w, float[3, 3] x) => (float[3, 3] y)"
        "{ c = Cast <to = 1> (w) t = Transpose <perm = [1, 0]> (c) p = MatMul (x, c) y = MatMul (p, t) }",
        tmp_path,
        {"w": random(3, 3, dtype=np.float16)},
    )
    absorb(tmp_path, model)
    assert lines(model) == ["w: float[3, 3]", "t = Transpose(w)", "p = MatMul(x, w)", "y = MatMul(p, t)"]


def test_a_node_whose_result_leaves_the_graph_is_left_alone(tmp_path: Path) -> None:
    model = parse(
        "g (float16[3, 3] w, float[3, 3] x) => (float[3, 3] y, float[3, 3] c)"
        "{ c = Cast <to = 1> (w) y = MatMul (x, c) }",
        tmp_path,
        {"w": random(3, 3, dtype=np.float16)},
    )
    absorb(tmp_path, model)
    assert lines(model) == ["w: float16[3, 3]", "c = Cast(w)", "y = MatMul(x, c)"]
    assert [value.name for value in model.graph.outputs] == ["y", "c"]


def test_constants_inside_the_graph_stay_there(tmp_path: Path) -> None:
    model = parse(
        "g (float[3] w, float[3] x) => (float[3] y) <float[3] k = {1, 2, 3}> { p = Add (x, k) y = Add (p, w) }",
        tmp_path,
        {"w": random(3)},
    )
    weights, _ = absorb(tmp_path, model)
    assert list(weights.entries) == ["w"]
    constant = model.graph.initializers["k"].const_value
    assert not isinstance(constant, ir.ExternalTensor)


def test_graphs_share_what_they_both_use(tmp_path: Path) -> None:
    arrays = {"w": random(40, 30, dtype=np.float16), "v": random(30, seed=1)}
    text = (
        "g (float16[40, 30] w, float[30] v, float[2, 40] x) => (float[2, 30] y)"
        "{ c = Cast <to = 1> (w) p = MatMul (x, c) y = Add (p, v) }"
    )
    other = "h (float[30] v, float[30] x) => (float[30] y) { y = Mul (x, v) }"
    first, second, third = (parse(model, tmp_path, arrays) for model in (text, text, other))
    weights, data = absorb(tmp_path, first, second, third)
    assert sorted(weights.entries) == ["v", "w"]
    assert lines(first) == lines(second)
    assert len(data) < 40 * 30 * 4 + 30 * 4 + 4096
    for model in (first, second):
        np.testing.assert_array_equal(values(model, "w", data), arrays["w"].astype(np.float32))
    np.testing.assert_array_equal(values(third, "v", data), arrays["v"])


def test_graphs_that_want_different_forms_get_one_each(tmp_path: Path) -> None:
    arrays = {"w": random(3, 3, dtype=np.float16)}
    widened = "g (float16[3, 3] w, float[3, 3] x) => (float[3, 3] y) { c = Cast <to = 1> (w) y = MatMul (x, c) }"
    turned = (
        "g (float16[3, 3] w, float[3, 3] x) => (float[3, 3] y)"
        "{ c = Cast <to = 1> (w) t = Transpose <perm = [1, 0]> (c) y = MatMul (x, t) }"
    )
    as_stored = "g (float16[3, 3] w, float16[3, 3] x) => (float16[3, 3] y) { y = MatMul (x, w) }"
    one, two, three = (parse(text, tmp_path, arrays) for text in (widened, turned, as_stored))
    weights, data = absorb(tmp_path, one, two, three)
    assert lines(one) == ["w: float[3, 3]", "y = MatMul(x, w)"]
    assert lines(two) == ["w.T10: float[3, 3]", "y = MatMul(x, w.T10)"]
    assert lines(three) == ["w.float16: float16[3, 3]", "y = MatMul(x, w.float16)"]
    np.testing.assert_array_equal(values(one, "w", data), arrays["w"].astype(np.float32))
    np.testing.assert_array_equal(values(two, "w.T10", data), arrays["w"].astype(np.float32).T)
    np.testing.assert_array_equal(values(three, "w.float16", data), arrays["w"])
    assert list(weights.entries) == ["w", "w.T10", "w.float16"]


def test_large_tensors_begin_on_pages_and_small_ones_on_cache_lines(tmp_path: Path) -> None:
    arrays = {
        "a": random(1, seed=1),
        "b": random(32, 32, seed=2),
        "c": random(3, seed=3),
        "d": random(2000, seed=4),
        "e": random(1023, seed=5),
    }
    inputs = ", ".join(f"float[{', '.join(map(str, array.shape))}] {name}" for name, array in arrays.items())
    nodes = " ".join(f"o{name} = Neg ({name})" for name in arrays)
    outputs = ", ".join(f"float[N] o{name}" for name in arrays)
    model = parse(f"g ({inputs}) => ({outputs}) {{ {nodes} }}", tmp_path, arrays)
    weights, data = absorb(tmp_path, model)
    end = 0
    for name, entry in weights.entries.items():
        assert entry.offset % (4096 if entry.length >= 4096 else 64) == 0
        assert not any(data[end : entry.offset]), "padding is zeros"
        end = entry.offset + entry.length
        np.testing.assert_array_equal(values(model, name, data), arrays[name])
    assert [name for name, entry in weights.entries.items() if entry.length >= 4096] == ["b", "d"]
    assert end == len(data)


def test_reading_copies_nothing(tmp_path: Path) -> None:
    weight = random(3, 4, dtype=ml_dtypes.bfloat16)
    model = parse("g (bfloat16[3, 4] w) => (bfloat16[3, 4] y) { y = Neg (w) }", tmp_path, {"w": weight})
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    mapped = stored_bytes(tensor, {"source.bin": tmp_path / "source.bin"})
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert mapped.tobytes() == weight.tobytes()


def test_a_scalar_is_a_weight_too(tmp_path: Path) -> None:
    model = parse(
        "g (float16 w, float[3] x) => (float[3] y) { c = Cast <to = 1> (w) y = Mul (x, c) }",
        tmp_path,
        {"w": np.array(1.5, np.float16)},
    )
    _, data = absorb(tmp_path, model)
    assert lines(model) == ["w: float[]", "y = Mul(x, w)"]
    assert values(model, "w", data) == np.float32(1.5)


@pytest.mark.parametrize("node", ["Transpose <perm = [0, 0]> (w)", "Transpose <perm = [0]> (w)", "Cast <to = 99> (w)"])
def test_views_that_make_no_sense_are_left_to_the_engine(tmp_path: Path, node: str) -> None:
    model = parse(
        f"g (float[3, 3] w, float[3, 3] x) => (float[3, 3] y) {{ v = {node} y = MatMul (x, v) }}",
        tmp_path,
        {"w": random(3, 3)},
    )
    absorb(tmp_path, model)
    assert lines(model) == ["w: float[3, 3]", f"v = {node.split()[0]}(w)", "y = MatMul(x, v)"]


def test_a_view_in_a_subgraph_is_left_there(tmp_path: Path) -> None:
    model = parse(
        "g (bool c, float16[3] w, float[3] x) => (float[3] y) { y = If (c) <then_branch = t () => (float[3] p)"
        " { v = Cast <to = 1> (w) p = Add (x, v) }, else_branch = e () => (float[3] q) { q = Neg (x) }> }",
        tmp_path,
        {"w": random(3, dtype=np.float16)},
    )
    absorb(tmp_path, model)
    assert lines(model) == ["w: float16[3]", "y = If(c)"]
    (branch, _) = model.graph.subgraphs()
    assert [node.op_type for node in branch] == ["Cast", "Add"]


@pytest.mark.parametrize(
    ("name", "values", "is_refused"),
    [
        ("blocks.0.attn1.to_q.weight", np.zeros((3, 4), np.float32), True),
        ("norm_out.gamma", np.zeros(2**19, np.float16), True),
        ("both.weight", np.array([0.0, -0.0, 0.0], np.float32), True),
        ("both.half", np.array([-0.0, 0.0], np.float16), True),
        ("both.brain", np.array([-0.0, 0.0], ml_dtypes.bfloat16), True),
        ("both.but.one", np.array([-0.0, 0.0, -1e-45], np.float32), False),
        ("blocks.0.attn1.to_q.weight", np.eye(1, 2**20, 2**20 - 1, dtype=np.float32), False),
        ("blocks.0.attn1.to_q.bias", np.zeros(4, np.float32), False),
        ("empty.weight", np.zeros(0, np.float32), False),
        ("allowed.weight", np.zeros(4, np.float32), False),
    ],
)
def test_weights_of_nothing_but_zeros(name: str, values: np.ndarray, is_refused: bool) -> None:
    check = FiniteCheck("part", zeros=("allowed.weight",))
    data = np.frombuffer(values.tobytes(), np.uint8)
    with pytest.raises(CheckpointError, match="is nothing but zeros") if is_refused else nullcontext():
        check.add(name, data, ir.DataType.from_numpy(values.dtype).name, where="model.safetensors")
    check.add(name, data, "FLOAT", where=None)  # of no file of the checkpoint: a constant of the graph
    FiniteCheck("part").add(name, data, "FLOAT", where="model.onnx")  # another model's may be anything
