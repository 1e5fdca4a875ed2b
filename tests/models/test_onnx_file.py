"""Foreign ONNX files: what is read of them, and how each fault is told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from wanc.errors import CheckpointError, render
from wanc.models.graph import Input, Output
from wanc.models.onnx_file import open_onnx, read_onnx

from .onnx_builder import external, model, opened, refusal, saved, with_weights


def shapes(text: str, folder: Path) -> list[tuple[int | str, ...]]:
    file = opened(model(text), folder)
    return [entry.shape for entry in (*file.inputs, *file.outputs)]


def test_the_interface_is_what_the_file_declares(tmp_path: Path) -> None:
    proto = model(
        "g (float16[batch, 3] a, int64 n, bool[even] mask) => (float16[batch, 3] b, bool[even] m, int64 k)"
        "{ b = Relu (a) m = Not (mask) k = Neg (n) }"
    )
    for value in (proto.graph.input[2], proto.graph.output[1]):
        value.type.tensor_type.shape.dim[0].dim_param = "2*rows"  # which the text form has no way to write
    file = opened(proto, tmp_path)
    assert file.inputs == (
        Input("a", ("batch", 3), "request", "request", "float16"),
        Input("n", (), "request", "request", "int64"),
        Input("mask", ("2*rows",), "request", "request", "bool"),
    )
    assert file.outputs == (
        Output("b", ("batch", 3), dtype="float16"),
        Output("m", ("2*rows",), dtype="bool"),
        Output("k", (), dtype="int64"),
    )
    assert file.files == {"model.onnx": tmp_path / "m.onnx"}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float", "float32"), ("double", "float64"), ("float16", "float16"), ("bool", "bool")]
    + [(name, name) for bits in (8, 16, 32, 64) for name in (f"int{bits}", f"uint{bits}")],
)
def test_every_dtype_that_numpy_has(tmp_path: Path, name: str, dtype: str) -> None:
    file = opened(model(f"g ({name}[1] x) => ({name}[1] y) {{ y = Identity (x) }}"), tmp_path)
    assert [entry.dtype for entry in (*file.inputs, *file.outputs)] == [dtype, dtype]


def test_sizes_without_a_name_are_called_after_tensor_and_axis(tmp_path: Path) -> None:
    assert shapes("g (float[?, 3, ?] x) => (float[?, 3] y) { y = ReduceSum <keepdims = 0> (x) }", tmp_path) == [
        ("x_0", 3, "x_2"),
        ("y_0", 3),
    ]


def dimensions(*texts: str | int | None) -> onnx.ModelProto:
    """The identity on a tensor with these sizes: None leaves one out, as does what exporters write for it."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(texts))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(texts))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("placeholder", [None, "?", "-1", "None", "", "*"])
def test_placeholders_do_not_tie_sizes_together(tmp_path: Path, placeholder: str | None) -> None:
    (entry,) = opened(dimensions(placeholder, placeholder), tmp_path).inputs
    assert entry.shape == ("x_0", "x_1")


def test_a_negative_size_is_an_unknown_one(tmp_path: Path) -> None:
    (entry,) = opened(dimensions(-1, 4), tmp_path).inputs
    assert entry.shape == ("x_0", 4)


def test_names_become_plain_and_stay_distinct(tmp_path: Path) -> None:
    file = opened(dimensions("a.b", "a_b", "a b", "a.b", "floor(n/2) + 1", "3d", "2*n", "ünï"), tmp_path)
    expected = ("a_b_2", "a_b", "a_b_3", "a_b_2", "floor_n_2_1", "_3d", "2*n", "n_2")
    assert file.inputs[0].shape == expected
    assert file.outputs[0].shape == expected


def test_an_input_with_a_default_is_no_input(tmp_path: Path) -> None:
    file = opened(model("g (float[1] x, float[1] w = {2}) => (float[1] y) { y = Mul (x, w) }"), tmp_path)
    assert [entry.name for entry in file.inputs] == ["x"]


def test_outputs_without_types_are_inferred(tmp_path: Path) -> None:
    proto = model("g (float[rows, 4] x) => (float[1] y) <float[4, 300] w> { y = MatMul (x, w) }")
    proto.graph.ClearField("value_info")
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((4, 300), np.float32), "w"))
    proto.graph.output[0].ClearField("type")
    assert opened(proto, tmp_path).outputs == (Output("y", ("rows", 300)),)


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    proto = with_weights(
        external("a", [2], {"location": "deep/w.bin"}),
        external("b", [1, 3], {"location": "deep/w.bin", "offset": "8", "length": "12", "checksum": "abc"}),
        external("c", [0, 3], {"location": "deep/w.bin", "offset": "8"}),
    )
    file = opened(proto, tmp_path)
    assert file.files == {"model.onnx": tmp_path / "m.onnx", "data/deep/w.bin": tmp_path / "deep" / "w.bin"}
    tensors = {name: value.const_value for name, value in read_onnx(file.files).model.graph.initializers.items()}
    places = {name: (t.location, t.offset, t.nbytes) for name, t in tensors.items() if isinstance(t, ir.ExternalTensor)}
    assert places == {"a": ("deep/w.bin", None, 8), "b": ("deep/w.bin", 8, 12), "c": ("deep/w.bin", 8, 0)}


def test_weights_of_subgraphs_may_lie_beside_the_model(tmp_path: Path) -> None:
    proto = model(
        "g (bool c, float[1] x) => (float[1] y) { y = If (c) <then_branch = t () => (float[1] a) { a = Neg (x) },"
        " else_branch = e () => (float[1] b) { b = Identity (x) }> }"
    )
    branch = proto.graph.node[0].attribute[1].g
    branch.initializer.append(external("w", [1], {"location": "w.bin"}))
    (tmp_path / "w.bin").write_bytes(bytes(4))
    assert sorted(opened(proto, tmp_path).files) == ["data/w.bin", "model.onnx"]


def test_hard_links_and_a_linked_model_are_ordinary_files(tmp_path: Path) -> None:
    """Package managers install both: what the user names is followed, what the file names is not a symbolic link."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "w.bin").write_bytes(bytes(4))
    os.link(tmp_path / "cache" / "w.bin", tmp_path / "w.bin")
    path = saved(with_weights(external("w", [1], {"location": "w.bin"})), tmp_path)
    path.rename(tmp_path / "cache" / "real.onnx")
    path.symlink_to(tmp_path / "cache" / "real.onnx")
    assert open_onnx(path).files["data/w.bin"] == tmp_path / "w.bin"


def test_what_disappears_between_opening_and_reading_is_told(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    files = open_onnx(path).files
    (tmp_path / "w.bin").write_bytes(bytes(4))
    saved(with_weights(external("w", [1], {"location": "w.bin"})), tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_onnx(files)
    assert str(caught.value) == f"{path}: its weights lie in 'w.bin', which was not there before"


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda path: None, 66, "no such file\ncaused by: No such file or directory"),
        (Path.mkdir, 66, "cannot be read\ncaused by: Is a directory"),
        (os.mkfifo, 66, "is not a file"),
        (Path.touch, 65, "no graph with outputs in this file\nhint: is this an ONNX model?"),
        (lambda path: path.write_bytes(b"PK\x03\x04 a zip"), 65, "not an ONNX file\nhint: is the download complete?"),
        (lambda path: path.write_bytes(b"\x3a\x7fcut"), 65, "not an ONNX file\nhint: is the download complete?"),
        (lambda path: path.write_bytes(b"\x12\x02\xff\xfe"), 65, "holds a text that is not UTF-8"),
    ],
    ids=["absent", "folder", "fifo", "empty", "zip", "cut", "latin-1"],
)
def test_what_is_no_onnx_file(tmp_path: Path, make: object, code: int, message: str) -> None:
    path = tmp_path / "m.onnx"
    make(path)  # type: ignore[operator]
    with pytest.raises(CheckpointError) as caught:
        open_onnx(path)
    assert (render(caught.value), caught.value.exit_code) == (f"error: {path}: {message}", code)


DOMAINS = "hint: wanc takes operators of ONNX, ai.onnx.ml, com.microsoft, and functions in the file"
ORDER = "hint: either the name is wrong, or the nodes are in a cycle or out of order"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "g (float[3] x) => (float[3] y) { y = acme.Widen (x) }",
            f"node 0 (Widen) is of the domain 'acme', which onnxruntime does not have\n{DOMAINS}",
        ),
        (
            "g (float[3] x) => (float[3] y) { y = Add (x, z) }",
            f"node 0 (Add) uses 'z', which nothing before it computes\n{ORDER}",
        ),
        (
            "g (float[3] x) => (float[3] y) { y = Add (x, b) b = Neg (y) }",
            f"node 0 (Add) uses 'b', which nothing before it computes\n{ORDER}",
        ),
        ("g (float[3] x) => (float[3] z) { y = Neg (x) }", "output 'z' is computed by no node"),
        ("g (float[3] x) => (float[3] y) { y = Neg (x) y = Abs (x) }", "node 1 (Abs): 'y' is defined twice"),
        ("g (float[3] x) => (float[3] x) { x = Neg (x) }", "node 0 (Neg): 'x' is defined twice"),
        ("g (float[3] x, float[3] x) => (float[3] y) { y = Neg (x) }", "input 'x': 'x' is defined twice"),
        ("g (float[3] x) => (float[3] y, float[3] y) { y = Neg (x) }", "two outputs have the same name"),
        (
            "g (float[3] x) => (float[3] y, float[3] x) { y = Neg (x) }",
            "output 'x' is an input itself\nhint: give it out through an Identity node, under a name of its own",
        ),
        (
            "g (bool c, float[3] x) => (float[3] y) { p = Neg (x) y = If (c) <then_branch = t () => (float[3] a)"
            " { p = Abs (x) a = Abs (p) }, else_branch = e () => (float[3] b) { b = Abs (p) }> }",
            "node 0 (Abs) computes 'p', which the graph around it already has",
        ),
        (
            "g (bool c, float[3] x) => (float[3] y) { y = If (c) <then_branch = t () => (float[3] a) { a = Abs (x) },"
            " else_branch = e () => (float[3] b) { b = Abs (a) }> }",
            f"node 0 (Abs) uses 'a', which nothing before it computes\n{ORDER}",
        ),
        (
            "g (bfloat16[3] x) => (bfloat16[3] y) { y = Identity (x) }",
            "input 'x' is of bfloat16, which an .npz file cannot hold\nhint: let the graph take float32, and Cast that",
        ),
        (
            "g (float[3] x) => (float8e4m3fn[3] y) { y = Cast <to = 17> (x) }",
            "output 'y' is of float8e4m3fn, which an .npz file cannot hold\n"
            "hint: let the graph give float32, by a Cast",
        ),
        (
            "g (string[3] x) => (string[3] y) { y = Identity (x) }",
            "input 'x' is of string, which an .npz file cannot hold\n"
            "hint: begin behind what reads it: onnx.utils.extract_model cuts a graph",
        ),
        (
            "g (seq(float[3]) x) => (float[3] y) { y = ConcatFromSequence <axis = 0> (x) }",
            "input 'x' is a sequence, not a tensor\n"
            "hint: let the graph take its tensors, and make it inside, by SequenceConstruct",
        ),
        (
            "g (float[3] x) => (seq(float[3]) y) { y = SequenceConstruct (x) }",
            "output 'y' is a sequence, not a tensor\nhint: let the graph take its tensors out of it, by SequenceAt",
        ),
        (
            "g (optional(float[3]) x) => (float[3] y) { y = OptionalGetElement (x) }",
            "input 'x' is an optional, not a tensor\n"
            "hint: let the graph take what it holds, and make it inside, by Optional",
        ),
        (
            "g (int64[2, 3] l, float[2, 3] p) => (seq(map(int64, float)) y)"
            " { y = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2]> (p) }",
            "output 'y' is a sequence, not a tensor\n"
            "hint: end before what makes it: onnx.utils.extract_model cuts a graph",
        ),
        ("g (float[] x) => (float[3] y) { y = Identity (x) }", "input 'x' does not say how many dimensions it has"),
    ],
    ids=lambda value: value[:48],
)
def test_graphs_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    proto = model(text)
    if "float[] x" in text:
        proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert refusal(proto, tmp_path) == f"error: m.onnx: {message}"


def test_a_rank_that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    proto = model("g (float[3] x, int64[n] s) => (float[3] y) { y = com.microsoft.ExpandDims (x, s) }")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert refusal(proto, tmp_path) == "error: m.onnx: output 'y' does not say how many dimensions it has"


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "a\\b", "x" * 129])
def test_names_that_no_archive_holds(tmp_path: Path, name: str) -> None:
    proto = model()
    proto.graph.input[0].name = proto.graph.node[0].input[0] = name
    message = refusal(proto, tmp_path)
    assert message.startswith("error: m.onnx: input '")
    assert message.endswith("is not a name of at most 128 bytes that can be printed")


def test_names_of_other_frameworks_are_kept(tmp_path: Path) -> None:
    proto = model()
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "serving/x:0 é"
    assert opened(proto, tmp_path).inputs[0].name == "serving/x:0 é"


def test_functions_in_the_file_are_operators(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = acme.Twice (x) }")
    twice = helper.make_function(
        "acme", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 21)]
    )
    proto.functions.append(twice)
    assert opened(proto, tmp_path).inputs[0].name == "x"
    proto.functions[0].node[0].input[1] = "c"
    assert refusal(proto, tmp_path) == (
        f"error: m.onnx: node 0 (Add) uses 'c', which nothing before it computes\n{ORDER}"
    )


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    proto = model("g (float[3] x) => (float[3] y) { y = acme.Loop (x) }")
    for name, other in (("Loop", "Back"), ("Back", "Loop")):
        node = helper.make_node(other, ["a"], ["b"], domain="acme")
        proto.functions.append(helper.make_function("acme", name, ["a"], ["b"], [node], []))
    assert refusal(proto, tmp_path) == "error: m.onnx: function 'Loop' calls itself"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.opset_import.pop(0), "does not say which version of ONNX's operators it uses"),
        (lambda m: m.opset_import.add(domain="ai.onnx", version=20), "two versions of the operator set ''"),
        (
            lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("a", 1)] * 2),
            "node 0 (Identity) has two attributes 'a'",
        ),
        (lambda m: m.graph.ClearField("output"), "no graph with outputs in this file\nhint: is this an ONNX model?"),
        (
            lambda m: m.graph.sparse_initializer.add().values.CopyFrom(numpy_helper.from_array(np.ones(1), "s")),
            "tensor 's' is sparse\nhint: wanc takes dense tensors; convert it",
        ),
        (
            lambda m: (
                m.graph.node[0].attribute.add(name="t", type=4).t.CopyFrom(external("k", [1], {"location": "k.bin"}))
            ),
            "tensor 'k' lies in another file, which only initializers may\n"
            "hint: save the model with onnx.save(…, convert_attribute=False)",
        ),
        # A graph hidden in an attribute that says that it is a number.
        (
            lambda m: m.graph.node[0].attribute.add(name="n", type=2, i=1).g.node.add(op_type="Neg", input=["?"]),
            f"node 0 (Neg) uses '?', which nothing before it computes\n{ORDER}",
        ),
    ],
)
def test_models_that_contradict_themselves(tmp_path: Path, change: object, message: str) -> None:
    proto = model()
    change(proto)  # type: ignore[operator]
    assert refusal(proto, tmp_path) == f"error: m.onnx: {message}"


LINKS = "which cannot be opened without following links"
COMPLETE = "hint: is the download complete?"
PLACE = "hint: put the file itself beside the model"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "/etc/passwd"}, "lies in '/etc/passwd', which is not relative to the model's folder"),
        ({"location": "C:/w.bin"}, "lies in 'C:/w.bin', which is not relative to the model's folder"),
        ({"location": "../w.bin"}, "lies in '../w.bin', which leads out of the model's folder"),
        ({"location": "a/../../w.bin"}, "lies in 'a/../../w.bin', which leads out of the model's folder"),
        ({"location": "./"}, "lies in './', which is not the name of a file"),
        ({"location": "."}, "lies in '.', which is not the name of a file"),
        ({"location": "./../w.bin"}, "lies in './../w.bin', which leads out of the model's folder"),
        ({"location": "a//w.bin"}, "lies in 'a//w.bin', which is not the name of a file"),
        ({"location": "a\\w.bin"}, "lies in 'a\\\\w.bin', which is not the name of a file"),
        ({"location": "w\x00.bin"}, "lies in 'w\\x00.bin', which is not the name of a file"),
        ({"location": ""}, "lies in '', which is not the name of a file"),
        ({"location": "w.bin", "offset": "-4"}, "lies at offset '-4', length '8'"),
        ({"location": "w.bin", "offset": "0x4"}, "lies at offset '0x4', length '8'"),
        ({"location": "w.bin", "length": "9" * 19}, f"lies at offset '0', length '{'9' * 19}'"),
        ({"location": "w.bin", "length": "12"}, "has 12 bytes; its shape and type ask for 8"),
        ({"location": "w.bin", "offset": "12"}, f"ends at byte 20 of 'w.bin', which has 16\n{COMPLETE}"),
    ],
    ids=str,
)
def test_weights_that_lie_where_they_may_not(tmp_path: Path, entries: dict[str, str], message: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    assert refusal(with_weights(external("w", [2], entries)), tmp_path) == f"error: m.onnx: tensor 'w' {message}"


@pytest.mark.parametrize("entries", [{}, {"offset": "0"}, {"location": "w.bin", "basepath": "/"}])
def test_a_place_that_is_not_clear(tmp_path: Path, entries: dict[str, str]) -> None:
    assert refusal(with_weights(external("w", [2], entries)), tmp_path) == (
        "error: m.onnx: tensor 'w' does not say clearly where it lies\n"
        "hint: it needs one location, and at most one offset and one length"
    )


def test_a_place_that_is_given_twice(tmp_path: Path) -> None:
    tensor = external("w", [2], {"location": "w.bin"})
    tensor.external_data.add(key="location", value="/etc/passwd")
    assert "does not say clearly where it lies" in refusal(with_weights(tensor), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, f"which is missing\ncaused by: No such file or directory\n{COMPLETE}"),
        (lambda path: path.symlink_to("real.bin"), f"{LINKS}\ncaused by: Too many levels of symbolic links\n{PLACE}"),
        (Path.mkdir, "which is not a file"),
        (os.mkfifo, "which is not a file"),
    ],
    ids=["absent", "link", "folder", "fifo"],
)
def test_weights_that_are_no_file(tmp_path: Path, make: object, message: str) -> None:
    (tmp_path / "real.bin").write_bytes(bytes(16))
    make(tmp_path / "w.bin")  # type: ignore[operator]
    proto = with_weights(external("w", [2], {"location": "w.bin"}))
    assert refusal(proto, tmp_path) == f"error: m.onnx: its weights lie in 'w.bin', {message}"


def test_a_folder_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "w.bin").write_bytes(bytes(8))
    (tmp_path / "link").symlink_to("real")
    message = refusal(with_weights(external("w", [2], {"location": "link/w.bin"})), tmp_path)
    assert message.startswith(f"error: m.onnx: its weights lie in 'link/w.bin', {LINKS}\n")


def test_a_file_may_be_named_from_the_models_folder_on(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w.bin").write_bytes(bytes(8))
    tensors = [external(name, [2], {"location": place}) for name, place in (("u", "./a/w.bin"), ("v", "a/./w.bin"))]
    assert set(opened(with_weights(*tensors), tmp_path).files) == {"model.onnx", "data/a/w.bin"}


@pytest.mark.parametrize(
    ("shape", "data_type", "offset", "fine"),
    [
        ([4], 1, 15, False),
        ([4], 1, 16, True),
        ([4], 1, 0, True),
        ([2, 2], 1, 0, False),
        ([4], 6, 0, False),
        ([2], 1, 0, False),
        ([2], 1, 8, False),
    ],
    ids=["by a byte", "apart", "one weight twice", "in another shape", "in another type", "its begin", "its end"],
)
def test_weights_that_overlap(tmp_path: Path, shape: list[int], data_type: int, offset: int, fine: bool) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    first = external("a", [4], {"location": "w.bin", "offset": "0"})
    proto = with_weights(first, external("b", shape, {"location": "./w.bin", "offset": str(offset)}, data_type))
    if fine:
        opened(proto, tmp_path)
        return
    first_line, hint = refusal(proto, tmp_path).splitlines()
    assert sorted(first_line.split("'")[1::2]) == ["a", "b", "w.bin"] and "overlap in" in first_line
    assert hint == "hint: write them apart: onnx.save(onnx.load(path), another_path, save_as_external_data=True)"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(7)),
            "has 7 bytes; its shape and type ask for 8",
        ),
        (
            TensorProto(name="w", data_type=1, dims=[3], float_data=[1.0]),
            "has 1 values; its shape and type ask for 3",
        ),
        (
            TensorProto(name="w", data_type=8, dims=[2], string_data=[b"a"]),
            "has 1 values; its shape and type ask for 2",
        ),
        (TensorProto(name="w", data_type=8, dims=[1], raw_data=b"a"), "holds texts as raw bytes"),
        (TensorProto(name="w", data_type=99, dims=[1]), "has the unknown type 99"),
        (TensorProto(name="w", data_type=0, dims=[1]), "has the unknown type 0"),
        (TensorProto(name="w", data_type=1, dims=[-1]), "has a dimension of -1, not 0 to 2147483647"),
        (
            TensorProto(name="w", data_type=1, dims=[1], segment=TensorProto.Segment(begin=0, end=1)),
            "is only a segment of a tensor",
        ),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_tensors_that_are_not_what_they_say(tmp_path: Path, tensor: TensorProto, message: str) -> None:
    assert refusal(with_weights(tensor), tmp_path) == f"error: m.onnx: tensor 'w' {message}"


@pytest.mark.parametrize(
    "tensor",
    [
        helper.make_tensor("w", TensorProto.INT4, [3], [1, -2, 3]),
        helper.make_tensor("w", TensorProto.COMPLEX64, [2], [1 + 2j, 3 - 4j]),
        helper.make_tensor("w", TensorProto.FLOAT8E5M2, [2], [1.0, 2.0]),
        helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("w", TensorProto.UINT64, [1], [2**63]),
        helper.make_tensor("w", TensorProto.BOOL, [0, 5], []),
        helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"]),
    ],
    ids=lambda tensor: TensorProto.DataType.Name(tensor.data_type),
)
def test_tensors_of_every_kind_pass(tmp_path: Path, tensor: TensorProto) -> None:
    file = opened(with_weights(tensor), tmp_path)
    assert list(read_onnx(file.files).model.graph.initializers) == ["w"]


def test_a_model_that_only_another_library_can_read(tmp_path: Path) -> None:
    """What onnx-ir cannot carry is told as such: its exceptions share no base class."""
    proto = model("g (float[3] x) => (float[3] y) { h = Neg (x) y = Neg (h) }")
    proto.graph.value_info.add(name="h").type.map_type.key_type = TensorProto.INT64
    path = saved(proto, tmp_path)
    files = open_onnx(path).files
    with pytest.raises(CheckpointError) as caught:
        read_onnx(files)
    assert str(caught.value) == f"{path}: onnx-ir cannot read this model"
