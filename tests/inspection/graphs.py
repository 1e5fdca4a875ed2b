"""Small graphs, programs and stores to look into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.parser

from wanc.artifacts.canonical import digest_of, key_of
from wanc.artifacts.records import ActionRecord
from wanc.artifacts.store import Store
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.models.graph import Input, Output
from wanc.models.weights import Weight
from wanc.runtime.strict_json import JsonObject

BRANCHING = """
<ir_version: 10, opset_import: ["" : 21, "com.example" : 1], producer_name: "tests">
branching (float[batch, 4, ?] x, bool flag, int64[2] weight_index) => (float[batch, "2*rows", 3] y, float z)
<float[4, 3] matrix = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[2] weight_index = {0, 1}, float16[3] half = {1,2,3}>
{
  product = MatMul(x, matrix)
  twice = com.example.Twice(product)
  y = If (flag) <
    then_branch = then_graph () => (float[batch, 4, 3] a) {
      one = Constant <value = float[1] {1.0}> ()
      a = Add(twice, one)
    },
    else_branch = else_graph () => (float[batch, 4, 3] b) { b = Add(twice, product) }
  >
  z = ReduceSum(y)
}
"""

ADDING = """
<ir_version: 10, opset_import: ["" : 21]>
adding (float[rows, 4] x) => (float[rows, 4] y) <float[4] bias = {1,2,3,4}> { y = Add(x, bias) }
"""


def write_graph(path: Path, text: str = ADDING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def write_external(path: Path, location: str) -> Path:
    """`ADDING` with its bias in another file, which is not written."""
    model = onnx.parser.parse_model(ADDING)
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


PROGRAM = Program(
    task="graph",
    model=None,
    components={
        "model": ProgramComponent(
            graphs={
                "main": ProgramGraph(
                    "model/main.onnx",
                    inputs=(Input("x", ("rows", 4), "request", "request"),),
                    outputs=(Output("y", ("rows", 4)),),
                    example={"rows": 3},
                    values={"x": 0.5},
                )
            },
            weights={
                "bias": Weight("weights.bin", 0, 8, "BFLOAT16", (4,)),
                "matrix": Weight("weights.bin", 8, 64, "FLOAT", (4, 4)),
            },
        )
    },
    embedding=None,
)


def write_program(folder: Path, program: Program = PROGRAM) -> Path:
    """The program with its graphs beside it; the path of its `program.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in program.components.values():
        for graph in part.graphs.values():
            write_graph(folder / graph.file)
    program.write(folder)
    return folder / "program.json"


def store_action(
    store: Store, stage: str, files: Mapping[str, bytes], inputs: Mapping[str, str], **parameters: int
) -> ActionRecord:
    """An action with a key document such as stages have."""
    document: JsonObject = {
        "schema": 1,
        "stage": stage,
        "code": f"sha256:{'c' * 64}",
        "parameters": dict(parameters),
        "inputs": dict(inputs),
        "tools": {"onnx": "1.23.2"},
        "platform": "Linux-x86_64",
    }
    with store.workdir() as workdir:
        (workdir / "out").mkdir()
        for name, data in files.items():
            (workdir / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (workdir / "out" / name).write_bytes(data)
        meta: JsonObject = {"seconds": 1.5, "peak_rss_bytes": 2**30}
        return store.commit(key_of(document), stage=stage, document=document, tree=workdir / "out", meta=meta)


def tree_digest(record: ActionRecord) -> str:
    """How a stage that takes the record's files as its input names them."""
    return digest_of({name: blob.digest for name, blob in record.files.items()})


def field(number: int, content: bytes, behind: int = 0) -> bytes:
    """A protobuf field of bytes, of which `behind` more follow."""
    return bytes([number << 3 | 2]) + varint(len(content) + behind) + content


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
