"""A graph file: interface, operators and weights, however the weights lie, and without reading them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from wanc.inspection.find import inspect
from wanc.inspection.outline import KEPT, read_outline
from wanc.inspection.tensors import bytes_of, dtype_name

from .graphs import ADDING, BRANCHING, field, varint, write_external, write_graph


def test_a_graph_is_described(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "branching.onnx", BRANCHING)
    described = inspect(str(path), tmp_path)
    assert described == {
        "kind": "graph",
        "path": str(path),
        "size": path.stat().st_size,
        "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        "ir_version": 10,
        "producer": "tests",
        "opsets": {"ai.onnx": 21, "com.example": 1},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["batch", 4, None]},
            {"name": "flag", "dtype": "bool", "shape": []},
        ],
        "outputs": [
            {"name": "y", "dtype": "float32", "shape": ["batch", "2*rows", 3]},
            {"name": "z", "dtype": "float32", "shape": []},
        ],
        "nodes": 7,
        "operators": {"Add": 2, "Constant": 1, "If": 1, "MatMul": 1, "ReduceSum": 1, "com.example.Twice": 1},
        "subgraphs": 2,
        "functions": [],
        "weights": {
            "count": 3,
            "parameters": 17,
            "bytes": 70,
            "dtypes": {
                "float32": {"count": 1, "parameters": 12, "bytes": 48},
                "int64": {"count": 1, "parameters": 2, "bytes": 16},
                "float16": {"count": 1, "parameters": 3, "bytes": 6},
            },
        },
        "constants": {
            "count": 1,
            "parameters": 1,
            "bytes": 4,
            "dtypes": {"float32": {"count": 1, "parameters": 1, "bytes": 4}},
        },
        "external": [],
    }


def test_functions_are_named(tmp_path: Path) -> None:
    text = f"{ADDING}<domain: 'local', opset_import: ['' : 21]> Twice (x) => (y) {{ y = Add(x, x) }}".replace("'", '"')
    path = write_graph(tmp_path / "graph.onnx", text)
    assert inspect(str(path), tmp_path)["functions"] == ["local.Twice"]


@pytest.mark.parametrize(
    ("location", "found"),
    [("weights.bin", True), ("absent.bin", False), ("../weights.bin", None), ("/etc/passwd", None)],
)
def test_weights_in_other_files_are_looked_for_inside_the_folder(
    tmp_path: Path, location: str, found: bool | None
) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    path = write_external(tmp_path / "graph.onnx", location)
    described = inspect(str(path), tmp_path)
    assert described["external"] == [{"file": location, "bytes": 16, "found": found}]
    assert described["weights"]["dtypes"] == {"float32": {"count": 1, "parameters": 4, "bytes": 16}}


def test_weights_are_counted_in_every_form(tmp_path: Path) -> None:
    values = np.arange(3000, dtype=np.float32)
    raw = onnx.numpy_helper.from_array(values, "raw")
    listed = onnx.helper.make_tensor("listed", onnx.TensorProto.FLOAT, [3000], values)
    halved = onnx.helper.make_tensor("nibbles", onnx.TensorProto.INT4, [3], [1, 2, 3])
    indices = onnx.numpy_helper.from_array(np.array([7], dtype=np.int64), "indices")
    sparse = onnx.helper.make_sparse_tensor(onnx.numpy_helper.from_array(values[:1], "sparse"), indices, [100])
    graph = onnx.helper.make_graph([], "weights", [], [], [raw, listed, halved], sparse_initializer=[sparse])
    path = tmp_path / "weights.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    assert inspect(str(path), tmp_path)["weights"]["dtypes"] == {
        "float32": {"count": 3, "parameters": 6001, "bytes": 24004},
        "int64": {"count": 1, "parameters": 1, "bytes": 8},
        "int4": {"count": 1, "parameters": 3, "bytes": 2},
    }


def test_every_dtype_has_the_size_that_onnx_gives_it() -> None:
    """onnx-ir is the measure: 24 elements fill whole bytes at any width."""
    for dtype in ir.DataType:
        if dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING):
            assert bytes_of(dtype_name(dtype.name), (4, 6)) == 24 * dtype.bitwidth // 8, dtype
    assert bytes_of(dtype_name("STRING"), (4, 6)) == 0


def test_the_outline_keeps_fields_that_onnx_has_by_these_names() -> None:
    names = {
        kind: {getattr(onnx, kind).DESCRIPTOR.fields_by_number[number].name for number in fields}
        for kind, fields in KEPT.items()
    }
    assert names == {
        "ModelProto": {"ir_version", "producer_name", "producer_version", "graph", "opset_import", "functions"},
        "GraphProto": {"node", "initializer", "input", "output", "sparse_initializer"},
        "FunctionProto": {"name", "domain"},
        "NodeProto": {"op_type", "attribute", "domain"},
        "AttributeProto": {"t", "g", "graphs"},
        "SparseTensorProto": {"values", "indices"},
        "TensorProto": {"dims", "data_type", "name", "external_data", "data_location"},
    }
    for kind, fields in KEPT.items():
        for number, inner in fields.items():
            message = getattr(onnx, kind).DESCRIPTOR.fields_by_number[number].message_type
            assert inner is None or message.name == inner


def test_the_outline_is_the_model_without_what_is_not_kept(tmp_path: Path) -> None:
    path = write_graph(tmp_path / "branching.onnx", BRANCHING)
    whole, outline = onnx.load(path), read_outline(path)
    assert list(outline.graph.input) == list(whole.graph.input)
    assert [node.op_type for node in outline.graph.node] == [node.op_type for node in whole.graph.node]
    assert [list(tensor.dims) for tensor in outline.graph.initializer] == [[4, 3], [2], [3]]
    assert not any(tensor.ByteSize() > 40 for tensor in outline.graph.initializer)


MEASURED = """
import sys
from pathlib import Path
import onnx
from wanc.inspection.graph import describe_model
from wanc.runtime.memory import peak_rss_bytes
described = describe_model(Path(sys.argv[1]))
assert described["weights"]["bytes"] == 2**29, described
print(peak_rss_bytes() // 2**20)
"""


def test_weights_inside_a_file_are_not_read(tmp_path: Path) -> None:
    """Half a gigabyte of weights, as a hole in the file: the process stays at what importing onnx costs."""
    tensor = onnx.TensorProto(name="hole", data_type=onnx.TensorProto.FLOAT, dims=[2**27])
    model = onnx.parser.parse_model(ADDING)
    model.graph.ClearField("initializer")
    tail = field(5, tensor.SerializeToString() + b"\x4a" + varint(2**29), 2**29)
    head = model.graph.SerializeToString()
    size = len(head) + len(tail) + 2**29
    opset = field(8, model.opset_import[0].SerializeToString())
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(b"\x08\x0a" + opset + b"\x3a" + varint(size) + head + tail)
        file.truncate(file.tell() + 2**29)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200
