"""ONNX files through the export and engine stages: what the engine runs gives what the file gives, bit for bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from wanc.compiler.engines.compiled import Compiled
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import Program, weight_files
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import CheckpointError, RecipeError, UserError, render
from wanc.models.onnx_file import open_onnx
from wanc.models.weights import Weight
from wanc.runtime.dimensions import split_dimension
from wanc.runtime.session import Session

from ..models.test_onnx_file_fuzz import mutate, rich

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
Arrays = dict[str, np.ndarray[Any, Any]]


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEADER} {text}")


def random(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def initialized(text: str, **weights: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """A model whose declared initializers are these arrays."""
    proto = model(text)
    proto.graph.ClearField("value_info")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def renamed(proto: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """With another name for an initializer, which the text form may have no way to write."""
    for tensor in proto.graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    for node in proto.graph.node:
        names = [new if name == old else name for name in node.input]
        node.input[:] = names
    return proto


def stored(proto: onnx.ModelProto, folder: Path, *, external: bool) -> Path:
    """The model in a folder of its own, its larger weights inside or beside it."""
    folder.mkdir()
    path = folder / "m.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, path, save_as_external_data=external, location="w.bin", size_threshold=64)
    return path


def exported(
    path: Path, out: Path, example: Mapping[str, int] | None = None, values: Mapping[str, float] | None = None
) -> tuple[Program, Files, Files]:
    """The program of a model, its files, and the files of the source."""
    source = open_onnx(path).files
    out.mkdir()
    ExportOnnx(example or {}, values or {}).run({"source": source}, out, progress=False)
    files = {file.relative_to(out).as_posix(): file for file in out.rglob("*") if file.is_file()}
    return Program.read(files["program.json"]), files, source


def built(
    path: Path, folder: Path, example: Mapping[str, int] | None = None, allow_not_finite: Collection[str] = ()
) -> Compiled:
    """The component as it is compiled, its files in `folder`/engine."""
    program, files, source = exported(path, folder / "program", example)
    (folder / "engine").mkdir()
    finite = FiniteCheck("model", allow_not_finite)
    model = ComponentFiles("model", program.components["model"], files, weight_files(files, source))
    return compile_segment(OnnxRuntimeCompiler(), model, whole(model), CPU, folder / "engine", finite)


def runs(path: Path, folder: Path, feeds: Arrays, example: Mapping[str, int] | None = None) -> tuple[Arrays, Arrays]:
    """What the file gives and what the engine gives."""
    (file,) = built(path, folder, example).files
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in plain.get_outputs()]
    expected = dict(zip(names, plain.run(None, feeds), strict=True))
    session = Session("onnxruntime", folder / "engine" / file.file, threads=1)
    return expected, session.run(feeds)


def assert_same(path: Path, folder: Path, feeds: Arrays, example: Mapping[str, int] | None = None) -> None:
    expected, actual = runs(path, folder, feeds, example)
    assert expected.keys() == actual.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name])


X = {"x": random(2, 40, seed=9)}
BRANCHES = (
    "<then_branch = t () => (float[2, 40] p) {{ {0} }}, else_branch = e () => (float[2, 40] q) {{ {1} }}>"
).format
GRAPHS: dict[str, tuple[onnx.ModelProto, Arrays]] = {
    "a weight": (
        initialized("g (float[2, 40] x) => (float[2, 30] y) <float[40, 30] w> { y = MatMul (x, w) }", w=random(40, 30)),
        X,
    ),
    "a weight that is an output": (
        initialized(
            "g (float[2, 40] x) => (float[2, 40] y, float[40] w) <float[40] w> { y = Add (x, w) }", w=random(40)
        ),
        X,
    ),
    "a weight that is an output, and that everybody else transposes": (
        initialized(
            "g (float[2, 40] x) => (float[2, 30] y, float[30, 40] w) <float[30, 40] w>"
            "{ t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
            w=random(30, 40),
        ),
        X,
    ),
    "a transposed weight whose transpose is an output": (
        initialized(
            "g (float[2, 40] x) => (float[2, 30] y, float[40, 30] t) <float[30, 40] w>"
            "{ t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
            w=random(30, 40),
        ),
        X,
    ),
    "a transposed weight next to one of the name it would get": (
        renamed(
            initialized(
                "g (float[2, 40] x) => (float[2, 30] y) <float[30, 40] w, float[30] b>"
                "{ t = Transpose <perm = [1, 0]> (w) m = MatMul (x, t) y = Add (m, b) }",
                w=random(30, 40),
                b=random(30, seed=1),
            ),
            "b",
            "w.T10",
        ),
        X,
    ),
    "a weight that subgraphs use by name": (
        initialized(
            "g (bool c, float[2, 40] x) => (float[2, 40] y) <float[40, 40] w>"
            "{ t = Transpose <perm = [1, 0]> (w) m = MatMul (x, t) y = If (c) "
            + BRANCHES("p = MatMul (m, t)", "q = MatMul (m, w)")
            + " }",
            w=random(40, 40),
        ),
        {**X, "c": np.array(True)},
    ),
    "a weight that only subgraphs view": (
        initialized(
            "g (bool c, float[2, 40] x) => (float[2, 40] y) <float16[40, 40] w> { y = If (c) "
            + BRANCHES("v = Cast <to = 1> (w) p = MatMul (x, v)", "v = Cast <to = 1> (w) q = Add (x, x)")
            + " }",
            w=random(40, 40).astype(np.float16),
        ),
        {**X, "c": np.array(True)},
    ),
    "a folded weight whose name a subgraph uses anew": (
        initialized(
            "g (int64 n, float[2, 40] x) => (float[2, 40] y) <float16[40] w>"
            "{ v = Cast <to = 1> (w) y = Loop (n, , x) <body = b (int64 i, bool k, float[2, 40] w)"
            " => (bool k2, float[2, 40] s) { k2 = Identity (k) s = Add (w, v) }> }",
            w=random(40).astype(np.float16),
        ),
        {**X, "n": np.array(3)},
    ),
    "nothing but constants": (
        model("g (float[2, 40] x) => (float[1] y) { y = Constant <value = float[1] {2}> () }"),
        X,
    ),
    "an operator of onnxruntime": (
        model("g (float[2, 40] x) => (float[2, 40] y) { y = com.microsoft.Gelu (x) }"),
        X,
    ),
    "an input with a default": (
        model("g (float[2, 40] x, float[1] k = {3}) => (float[2, 40] y) { y = Mul (x, k) }"),
        X,
    ),
    "an empty weight": (
        initialized(
            "g (float[2, 40] x) => (float[2, 40] y) <float[2, 0] w> { y = Concat <axis = 1> (x, w) }",
            w=np.zeros((2, 0), np.float32),
        ),
        X,
    ),
    "a cast to integers": (
        initialized(
            "g (float[2, 40] x) => (float[2, 40] y) <float[40] w>"
            "{ i = Cast <to = 7> (w) f = Cast <to = 1> (i) y = Add (x, f) }",
            w=random(40) * 100,
        ),
        X,
    ),
    "a permutation of a scalar": (
        initialized(
            "g (float[2, 40] x) => (float[2, 40] y) <float w> { t = Transpose (w) y = Mul (x, t) }",
            w=np.array(2.5, np.float32),
        ),
        X,
    ),
}


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize(("proto", "feeds"), GRAPHS.values(), ids=GRAPHS)
def test_the_engine_gives_what_the_file_gives(
    tmp_path: Path, proto: onnx.ModelProto, feeds: Arrays, external: bool
) -> None:
    assert_same(stored(proto, tmp_path / "model", external=external), tmp_path, feeds)


def branching(*weights: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """An If whose branches each have a weight of their own, both called `k`."""
    proto = model(
        "g (bool c, float[2, 40] x) => (float[2, 40] y) { y = If (c) "
        + BRANCHES("p = Identity (x)", "q = Identity (x)")
        + " }"
    )
    for attribute, weight in zip(proto.graph.node[0].attribute, weights, strict=True):
        node = attribute.g.node[0]
        node.op_type = "MatMul"
        node.input.append("k")
        attribute.g.initializer.append(numpy_helper.from_array(weight, "k"))
    return proto


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize("condition", [True, False])
def test_weights_of_subgraphs_keep_their_names_and_values(tmp_path: Path, external: bool, condition: bool) -> None:
    """Two branches may each have a weight of the same name."""
    path = stored(branching(random(40, 40), random(40, 40, seed=1)), tmp_path / "model", external=external)
    assert_same(path, tmp_path, {**X, "c": np.array(condition)})


def test_each_weight_of_a_subgraph_is_written_once(tmp_path: Path) -> None:
    path = stored(branching(random(40, 40), random(40, 40, seed=1)), tmp_path / "model", external=True)
    weights = built(path, tmp_path).weights
    assert sorted(weights) == ["k", "k.2"]
    assert {weight.length for weight in weights.values()} == {40 * 40 * 4}


def tied(proto: onnx.ModelProto, folder: Path, names: Collection[str], location: str = "w.bin") -> Path:
    """The model with its weights of these names, which are equal, over one range of one file."""
    folder.mkdir()
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            (folder / "w.bin").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


SQUARE = "<float[40, 40] u, float[40, 40] v, float[40, 40] w>"
TIED = {
    "both multiplied": "{ a = MatMul (x, u) b = Add (w, v) y = MatMul (a, b) }",
    "read as rows and transposed": "{ a = MatMul (x, u) t = Transpose <perm = [1, 0]> (v) y = MatMul (a, t) }",
    "each transposed otherwise": (
        "{ a = Transpose <perm = [1, 0]> (u) b = Transpose <perm = [0, 1]> (v) c = MatMul (x, a) y = MatMul (c, b) }"
    ),
    "one is copied to an output": "{ a = MatMul (x, u) y = MatMul (a, v) z = Identity (w) }",
}


@pytest.mark.parametrize("body", TIED.values(), ids=TIED)
@pytest.mark.parametrize("location", ["w.bin", "./w.bin"])
def test_tensors_of_one_range_are_one_weight(tmp_path: Path, body: str, location: str) -> None:
    results = "float[2, 40] y, float[40, 40] z" if "z =" in body else "float[2, 40] y"
    weight = random(40, 40)
    proto = initialized(f"g (float[2, 40] x) => ({results}) {SQUARE} {body}", u=weight, v=weight, w=weight)
    path = tied(proto, tmp_path / "model", {"u", "v", "w"}, location)
    assert_same(path, tmp_path, X)
    (file,) = (tmp_path / "engine" / "engines" / "model").glob("weights.*")
    assert file.stat().st_size == weight.nbytes


@pytest.mark.parametrize("condition", [True, False])
def test_one_of_them_in_a_branch_keeps_its_name(tmp_path: Path, condition: bool) -> None:
    """A branch has a tensor of its own that is called as the other one is outside of it."""
    proto = branching(random(40, 40), random(40, 40, seed=1))
    weight = random(40, 40, seed=2)
    proto.graph.initializer.extend(numpy_helper.from_array(weight, name) for name in ("k", "v"))
    proto.graph.node[0].attribute[0].g.node[0].input[1] = "v"
    proto.graph.node.insert(0, helper.make_node("MatMul", ["x", "k"], ["x_k"]))
    proto.graph.output.extend([helper.make_tensor_value_info("x_k", TensorProto.FLOAT, [2, 40])])
    path = tied(proto, tmp_path / "model", {"k", "v"})
    assert_same(path, tmp_path, {**X, "c": np.array(condition)})


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize(
    "tensor",
    [
        helper.make_tensor("w", TensorProto.INT4, [3001], [(i % 16) - 8 for i in range(3001)]),
        helper.make_tensor("w", TensorProto.UINT4, [3000], [i % 16 for i in range(3000)]),
        helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, [2000], random(2000).tolist()),
        helper.make_tensor("w", TensorProto.BFLOAT16, [2000], random(2000).tolist()),
        helper.make_tensor("w", TensorProto.DOUBLE, [200], random(200).tolist()),
        helper.make_tensor("w", TensorProto.INT64, [200], list(range(200))),
        helper.make_tensor("w", TensorProto.BOOL, [2000], [i % 3 == 0 for i in range(2000)]),
        helper.make_tensor("w", TensorProto.COMPLEX64, [200], [1j * i for i in range(200)]),
    ],
    ids=lambda tensor: TensorProto.DataType.Name(tensor.data_type).lower(),
)
def test_weights_of_every_dtype_survive(tmp_path: Path, tensor: TensorProto, external: bool) -> None:
    proto = model("g (float[3] x) => (float[3] y, int64 size) { y = Identity (x) size = Size (w) }")
    proto.graph.initializer.append(tensor)
    component = built(stored(proto, tmp_path / "model", external=external), tmp_path)
    (weight,) = component.weights.values()
    file = tmp_path / "engine" / weight.file
    data = file.read_bytes()[weight.offset : weight.offset + weight.length]
    raw = tensor.raw_data or numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    assert data == raw
    assert weight.dtype == TensorProto.DataType.Name(tensor.data_type)
    # The engine file as onnx itself reads it.
    graph = onnx.load(tmp_path / "engine" / component.files[0].file).graph
    np.testing.assert_array_equal(numpy_helper.to_array(graph.initializer[0]), numpy_helper.to_array(tensor))


def test_texts_stay_in_the_graph(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y, int64 size) { y = Identity (x) size = Size (labels) }")
    texts = [f"label {index}".encode() for index in range(2000)]
    proto.graph.initializer.append(helper.make_tensor("labels", TensorProto.STRING, [2000], texts))
    component = built(stored(proto, tmp_path / "model", external=False), tmp_path)
    graph = onnx.load(tmp_path / "engine" / component.files[0].file).graph
    assert list(graph.initializer[0].string_data) == texts
    assert component.weights == {}


def test_the_program_says_where_each_weight_lies(tmp_path: Path) -> None:
    proto = initialized(
        "g (float[2, 40] x) => (float[2, 30] y) <float[40, 30] w, float[40, 30] v, float[3] small>"
        "{ s = Add (w, v) y = MatMul (x, s) }",
        v=random(40, 30, seed=1),
        small=random(3),
    )
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "deep").mkdir()
    (folder / "deep" / "w.bin").write_bytes(bytes(8) + random(40, 30).tobytes())
    outside = TensorProto(name="w", data_type=1, dims=[40, 30], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "deep/w.bin", "offset": "8"}.items():
        outside.external_data.add(key=key, value=value)
    proto.graph.initializer.append(outside)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    program, files, _ = exported(folder / "m.onnx", tmp_path / "program")
    assert (program.task, program.model, program.embedding) == ("graph", None, None)
    assert program.components["model"].weights == {
        "w": Weight("data/deep/w.bin", 8, 4800, "FLOAT", (40, 30)),
        "v": Weight("program/model/weights.bin", 0, 4800, "FLOAT", (40, 30)),
    }
    assert files["model/weights.bin"].read_bytes() == random(40, 30, seed=1).tobytes()
    assert list(program.components["model"].graphs) == ["main"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    proto, _ = GRAPHS["a weight that subgraphs use by name"]
    one, two = (stored(proto, tmp_path / name, external=False) for name in ("a", "b"))
    first, second = (exported(path, tmp_path / f"{path.parent.name}-program")[1] for path in (one, two))
    assert {name: path.read_bytes() for name, path in first.items()} == {
        name: path.read_bytes() for name, path in second.items()
    }


RECTANGLE = "g (float[rows, 2*pairs] x, int64 n) => (float[rows, m] y) { y = Identity (x) }"


@pytest.mark.parametrize(
    ("example", "values", "message"),
    [
        (
            {"row": 2, "pairs": 1},
            {},
            "error: model.example names 'row', which is no size of the model\n"
            "hint: did you mean rows? it has: pairs, rows",
        ),
        (
            {"rows": 2, "m": 1},
            {},
            "error: model.example names 'm', which is no size of the model\nhint: it has: pairs, rows",
        ),
        (
            {"rows": 2},
            {},
            "error: model.example gives no size for pairs\nhint: give sizes that work: {pairs: …, rows: 2}",
        ),
        (
            {"rows": 2, "pairs": 1},
            {"y": 1.0},
            "error: model.values names 'y', which is no input of the model\nhint: it has: n, x",
        ),
    ],
)
def test_names_that_the_model_does_not_have(
    tmp_path: Path, example: dict[str, int], values: dict[str, float], message: str
) -> None:
    proto = model(RECTANGLE.replace("2*pairs", "k"))
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "2*pairs"
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(RecipeError) as caught:
        exported(tmp_path / "m.onnx", tmp_path / "program", example, values)
    assert (render(caught.value), caught.value.exit_code) == (message, 2)
    assert list((tmp_path / "program").iterdir()) == []


def test_a_model_without_sizes_says_so(tmp_path: Path) -> None:
    path = stored(model("g (float[3] x) => (float[3] y) { y = Identity (x) }"), tmp_path / "model", external=False)
    with pytest.raises(RecipeError) as caught:
        exported(path, tmp_path / "program", {"rows": 1})
    assert caught.value.hint == "it has no size to name: remove it"


BAD = {
    "float": (np.float32, [np.nan, -np.inf, np.inf]),
    "float16": (np.float16, [np.nan, -np.inf, np.inf]),
    "bfloat16": (ml_dtypes.bfloat16, [np.nan, -np.inf, np.inf]),
    "double": (np.float64, [np.nan, -np.inf, np.inf]),
    "float8e5m2": (ml_dtypes.float8_e5m2, [np.nan, -np.inf, np.inf]),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, [np.nan]),
    "float8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, [np.nan]),
}


def planted(dtype: Any, bad: list[float], size: int = 2000) -> onnx.ModelProto:
    """A sound weight and one in which some values are not finite."""
    weight = random(size).astype(dtype)
    weight[:: max(1, size // len(bad))][: len(bad)] = bad
    proto = model("g (float[3] x) => (int64 size, int64 other) { size = Size (w) other = Size (good) }")
    for name, array in (("good", random(size).astype(dtype)), ("w", weight)):
        tensor = numpy_helper.from_array(array, name)
        proto.graph.initializer.append(tensor)
    return proto


@pytest.mark.parametrize("external", [False, True], ids=["inside", "beside"])
@pytest.mark.parametrize(("dtype", "bad"), BAD.values(), ids=BAD)
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, dtype: Any, bad: list[float], external: bool) -> None:
    path = stored(planted(dtype, bad), tmp_path / "model", external=external)
    with pytest.raises(CheckpointError) as caught:
        built(path, tmp_path)
    where = path.parent / "w.bin" if external else path
    count = "1 value that is" if len(bad) == 1 else "3 values that are"
    assert render(caught.value) == (
        f"error: {where}: model: tensor w holds {count} not finite\n"
        "hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [w]"
    )
    assert caught.value.exit_code == 65


def test_weights_that_nothing_uses_are_left_behind(tmp_path: Path) -> None:
    proto = initialized(
        "g (float[3] x) => (float[3] y) { y = Add (x, used) }",
        used=random(3),
        unused=np.full(2000, np.nan, np.float32),
    )
    component = built(stored(proto, tmp_path / "model", external=True), tmp_path)
    assert "unused" not in component.weights
    graph = onnx.load(tmp_path / "engine" / component.files[0].file).graph
    assert [tensor.name for tensor in graph.initializer] == ["used"]


def test_they_may_be_allowed_by_name(tmp_path: Path) -> None:
    path = stored(planted(np.float32, [np.nan, -np.inf]), tmp_path / "model", external=False)
    component = built(path, tmp_path, allow_not_finite=("w",))
    weight = component.weights["w"]
    data = (tmp_path / "engine" / weight.file).read_bytes()[weight.offset : weight.offset + weight.length]
    assert np.count_nonzero(~np.isfinite(np.frombuffer(data, np.float32))) == 2
    (tmp_path / "again").mkdir()
    with pytest.raises(CheckpointError, match="tensor w holds 2 values that are not finite"):
        built(path, tmp_path / "again", allow_not_finite=("good",))


@pytest.mark.parametrize(
    "body",
    [
        "k = Constant <value = float[2] {1, nan}> () y = Add (x, k)",
        "c = Constant <value = bool {1}> () y = If (c) <then_branch = t () => (float[2] p)"
        " { k = Constant <value = float[2] {1, nan}> () p = Add (x, k) },"
        " else_branch = e () => (float[2] q) { q = Neg (x) }>",
    ],
    ids=["constant", "constant in a subgraph"],
)
def test_constants_are_weights_too(tmp_path: Path, body: str) -> None:
    """Some exporters write every weight as a Constant node."""
    proto = model(f"g (float[2] x) => (float[2] y) {{ {body.replace('nan', '7')} }}")
    data = proto.SerializeToString().replace(np.float32(7).tobytes(), np.float32(np.nan).tobytes())
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(CheckpointError, match="model: tensor k holds 1 value that is not finite"):
        built(tmp_path / "m.onnx", tmp_path)


@pytest.mark.parametrize(("value", "fine"), [(-np.inf, True), (np.inf, True), (np.nan, False)])
def test_a_single_infinity_is_what_masks_are_filled_with(tmp_path: Path, value: float, fine: bool) -> None:
    proto = initialized(
        "g (float[2, 40] x, bool[2, 40] m) => (float[2, 40] y) <float f> { y = Where (m, x, f) }",
        f=np.array(value, np.float32),
    )
    path = stored(proto, tmp_path / "model", external=False)
    if fine:
        built(path, tmp_path)
    else:
        with pytest.raises(CheckpointError, match="tensor f holds 1 value that is not finite"):
            built(path, tmp_path)


def test_what_overflows_when_it_is_narrowed_becomes_infinite_as_in_onnx(tmp_path: Path) -> None:
    proto = initialized(
        "g (float16[40] x) => (float16[40] y) <float[40] w> { c = Cast <to = 10> (w) y = Add (x, c) }",
        w=np.linspace(0, 1e6, 40, dtype=np.float32),
    )
    assert_same(stored(proto, tmp_path / "model", external=True), tmp_path, {"x": random(40).astype(np.float16)})


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_whatever_is_changed_in_a_model_is_exported_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    proto = rich()
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(proto, data.draw)
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "w.bin").write_bytes(bytes(32))
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    try:
        shapes = [entry.shape for entry in open_onnx(folder / "m.onnx").inputs]
        example = {split_dimension(d)[1]: 2 for shape in shapes for d in shape if isinstance(d, str)}
        built(folder / "m.onnx", folder, example)
    except UserError as error:
        assert error.exit_code == 65
