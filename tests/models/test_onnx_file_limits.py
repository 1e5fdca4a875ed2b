"""Every limit on ONNX files, at its value and one beyond it: nothing large is made for it, sizes are only declared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from wanc.errors import CheckpointError
from wanc.models import onnx_limits as limits
from wanc.models.onnx_file import open_onnx
from wanc.models.onnx_wire import check_wire

from .onnx_builder import IDENTITY, external, model, opened, refusal, with_weights

OVERSIZED = "hint: keep the weights beside it: onnx.save(model, path, save_as_external_data=True)"
OPSETS_HINT = "hint: convert it: onnx.version_converter.convert_version"

Check = Callable[[onnx.ModelProto, Path], None]


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of the wire format."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def wire_message(data: bytes) -> str | None:
    """What is said of these bytes as a model, before they are parsed."""
    try:
        check_wire(data, onnx.ModelProto.DESCRIPTOR, where="m.onnx")
    except CheckpointError as error:
        return error.message
    return None


def grown(folder: Path, size: int) -> Path:
    """A sound model of exactly so many bytes: a text that nobody reads is mostly a hole in the file."""
    head = model().SerializeToString()
    filler = size - len(head) - 5
    path = folder / "m.onnx"
    path.write_bytes(head + varint(6 << 3 | 2) + varint(filler))  # doc_string
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def test_the_size_of_the_file(tmp_path: Path) -> None:
    open_onnx(grown(tmp_path, limits.MAX_PROTO_BYTES))
    path = grown(tmp_path, limits.MAX_PROTO_BYTES + 1)
    with pytest.raises(CheckpointError) as caught:
        open_onnx(path)
    assert caught.value.message == "larger than the 67108864 bytes allowed"
    assert f"hint: {caught.value.hint}" == OVERSIZED


def test_the_number_of_messages() -> None:
    """Two bytes of file for a node of 150 bytes in memory."""
    nodes = field(1, b"") * (limits.MAX_MESSAGES - 1)
    assert wire_message(field(7, nodes)) is None
    assert wire_message(field(7, nodes + field(1, b""))) == "more than the 1000000 messages allowed"


def test_the_number_of_values() -> None:
    numbers = varint(1 << 3) + b"\x0a"
    assert wire_message(numbers * limits.MAX_FIELDS) is None
    assert wire_message(numbers * (limits.MAX_FIELDS + 1)) == "more than the 2000000 values allowed"


def test_the_number_of_packed_numbers() -> None:
    """One byte of file for a number of eight bytes in memory."""

    def tensor(count: int) -> bytes:
        return field(7, field(5, field(7, bytes(count))))  # graph, initializer, int64_data

    assert wire_message(tensor(limits.MAX_PACKED_NUMBERS)) is None
    message = "more than the 8388608 bytes of packed numbers allowed"
    assert wire_message(tensor(limits.MAX_PACKED_NUMBERS + 1)) == message


def test_the_number_of_nodes(tmp_path: Path) -> None:
    proto = model()
    proto.graph.node.extend([onnx.NodeProto(op_type="Neg")] * (limits.MAX_NODES - 1))
    opened(proto, tmp_path)
    proto.graph.node.add(op_type="Neg")
    assert refusal(proto, tmp_path) == "error: m.onnx: more than the 200000 nodes allowed"


def multiplying(levels: int, last: int, calls: int = 2) -> onnx.ModelProto:
    """Functions that each call the next one several times; the innermost has `last` nodes."""
    proto = model("g (float[3] x) => (float[3] y) { y = acme.F0 (x) }")
    for level in range(levels):
        nodes = [helper.make_node(f"F{level + 1}", ["a"], [f"b{index}"], domain="acme") for index in range(calls)]
        nodes.append(helper.make_node("Neg", ["a"], ["c"]))
        proto.functions.append(helper.make_function("acme", f"F{level}", ["a"], ["b0"], nodes, []))
    nodes = [helper.make_node("Neg", ["a"], [f"b{index}"]) for index in range(last)]
    proto.functions.append(helper.make_function("acme", f"F{levels}", ["a"], ["b0"], nodes, []))
    return proto


def test_the_number_of_nodes_once_functions_are_called(tmp_path: Path) -> None:
    # 2^10 times the innermost function, and a node in each of the 2^10 - 1 calls above it.
    opened(multiplying(10, 194), tmp_path)
    assert refusal(multiplying(10, 195), tmp_path) == (
        "error: m.onnx: 200703 nodes when its functions are called, more than the 200000 allowed"
    )


def nested(depth: int) -> onnx.ModelProto:
    """`depth` Ifs, one in the other."""
    body, result = "r = Identity (x)", "r"
    for level in range(depth):
        branches = ", ".join(
            f"{branch} = b{level} () => (float[3] {result}) {{ {text} }}"
            for branch, text in (("then_branch", body), ("else_branch", f"{result} = Neg (x)"))
        )
        body, result = f"r{level} = If (c) <{branches}>", f"r{level}"
    return model(f"g (bool c, float[3] x) => (float[3] {result}) {{ {body} }}")


DEEP = "error: m.onnx: subgraphs or functions nested deeper than the 16 allowed"


def test_the_depth_of_subgraphs(tmp_path: Path) -> None:
    opened(nested(limits.MAX_DEPTH), tmp_path)
    assert refusal(nested(limits.MAX_DEPTH + 1), tmp_path) == DEEP


@pytest.mark.parametrize("deeper", [1, 84, 1000])
def test_the_depth_of_calls(tmp_path: Path, deeper: int) -> None:
    def chain(length: int) -> onnx.ModelProto:
        proto = model("g (float[3] x) => (float[3] y) { y = acme.F1 (x) }")
        for level in range(1, length + 1):
            call = helper.make_node(f"F{level + 1}", ["a"], ["b"], domain="acme")
            node = helper.make_node("Neg", ["a"], ["b"]) if level == length else call
            proto.functions.append(helper.make_function("acme", f"F{level}", ["a"], ["b"], [node], []))
        return proto

    opened(chain(limits.MAX_DEPTH), tmp_path)
    assert refusal(chain(limits.MAX_DEPTH + deeper), tmp_path) == DEEP


def test_a_subgraph_ten_thousand_deep(tmp_path: Path) -> None:
    """Deeper than any parser follows: the wire format is walked without recursion."""
    graph = b""
    for _ in range(10_000):
        graph = field(1, field(5, field(6, graph)))  # a node, its attribute, the attribute's graph
    path = tmp_path / "m.onnx"
    path.write_bytes(field(7, graph))
    with pytest.raises(CheckpointError) as caught:
        open_onnx(path)
    assert caught.value.message == "not an ONNX file"


def test_the_rank(tmp_path: Path) -> None:
    def shaped(rank: int) -> onnx.ModelProto:
        sizes = ", ".join("1" * rank)
        return model(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Identity (x) }}")

    opened(shaped(limits.MAX_RANK), tmp_path)
    assert refusal(shaped(9), tmp_path) == "error: m.onnx: 'x' has 9 dimensions, more than the 8 allowed"
    opened(with_weights(TensorProto(name="w", data_type=3, dims=[1] * 8, raw_data=b"1")), tmp_path)
    assert refusal(with_weights(TensorProto(name="w", data_type=3, dims=[1] * 9, raw_data=b"1")), tmp_path) == (
        "error: m.onnx: tensor 'w' has 9 dimensions, more than the 8 allowed"
    )


def test_the_size_of_a_dimension(tmp_path: Path) -> None:
    def shaped(size: int) -> onnx.ModelProto:
        return model(f"g (int8[{size}] x) => (int8[{size}] y) {{ y = Identity (x) }}")

    opened(shaped(limits.MAX_DIMENSION), tmp_path)
    assert refusal(shaped(limits.MAX_DIMENSION + 1), tmp_path) == (
        "error: m.onnx: 'x' has a dimension of 2147483648, more than the 2147483647 allowed"
    )
    opened(with_weights(TensorProto(name="w", data_type=1, dims=[0, limits.MAX_DIMENSION], raw_data=b"")), tmp_path)
    tensor = TensorProto(name="w", data_type=1, dims=[0, limits.MAX_DIMENSION + 1], raw_data=b"")
    assert refusal(with_weights(tensor), tmp_path) == (
        "error: m.onnx: tensor 'w' has a dimension of 2147483648, not 0 to 2147483647"
    )


def test_the_bytes_of_a_tensor(tmp_path: Path) -> None:
    """16 GiB of weights are a hole in a file; the product of sizes is never cut to 64 bits."""
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(limits.MAX_TENSOR_BYTES + 4)
    place = {"location": "w.bin"}
    opened(with_weights(external("w", [2**16, 2**16], place)), tmp_path)
    assert refusal(with_weights(external("w", [2**16, 2**16 + 1], place)), tmp_path) == (
        "error: m.onnx: tensor 'w' has 17180131328 bytes, more than the 17179869184 allowed"
    )
    wrapping = refusal(with_weights(external("w", [2**31 - 1] * 8, place)), tmp_path)
    assert wrapping.startswith("error: m.onnx: tensor 'w' has 1809251387")


def test_a_tensor_of_256_gib_in_a_file_of_4_bytes(tmp_path: Path) -> None:
    """Within one dimension's limit or not, what ONNX's own checker lets pass (onnx 1.23) is refused."""
    (tmp_path / "w.bin").write_bytes(bytes(4))
    assert refusal(with_weights(external("w", [2**30], {"location": "w.bin"})), tmp_path) == (
        "error: m.onnx: tensor 'w' ends at byte 4294967296 of 'w.bin', which has 4\nhint: is the download complete?"
    )
    assert "has 274877906944 bytes, more than" in refusal(
        with_weights(external("w", [2**16, 2**20], {"location": "w.bin"})), tmp_path
    )


def test_the_bytes_of_what_a_shape_declares(tmp_path: Path) -> None:
    def shaped(columns: int) -> onnx.ModelProto:
        return model(f"g (float[65536, {columns}] x) => (float[1] y) {{ y = ReduceSum <keepdims = 0> (x) }}")

    opened(shaped(65536), tmp_path)
    assert refusal(shaped(65537), tmp_path) == (
        "error: m.onnx: 'x' has 17180131328 bytes, more than the 17179869184 allowed"
    )


@pytest.mark.parametrize(
    ("fine", "beyond", "size"),
    [
        ("ConstantOfShape (s)", [65536, 65537], 17180131328),
        ("ConstantOfShape <value = int8[1] {1}> (s)", [131072, 131073], 17180000256),
        ("Expand (x, s)", [131072, 131073], 17180000256),
        ("Tile (x, s)", [131072, 131073], 17180000256),
    ],
)
def test_what_a_few_constants_would_fill(tmp_path: Path, fine: str, beyond: list[int], size: int) -> None:
    """An engine folds constants when it opens a graph: a terabyte would be taken before anything is run."""

    def filled(shape: list[int], *, node: bool) -> onnx.ModelProto:
        values = ", ".join(map(str, shape))
        constant = f"s = Constant <value_ints = [{values}]> ()" if node else ""
        initializer = "" if node else f"<int64[2] s = {{{values}}}>"
        return model(f"g (int8[1] x) => (int8[n, m] y) {initializer} {{ {constant} y = {fine} }}")

    for node in (True, False):
        opened(filled([beyond[0], beyond[0]], node=node), tmp_path)
        assert f"would take {size} bytes, more than the 17179869184 allowed" in refusal(
            filled(beyond, node=node), tmp_path
        )


def test_a_terabyte_out_of_nothing(tmp_path: Path) -> None:
    text = "g (int8[1] x) => (float[n, m] y) <int64[2] s = {1048576, 262144}> { y = ConstantOfShape (s) }"
    assert refusal(model(text), tmp_path) == (
        "error: m.onnx: node 0 (ConstantOfShape) would take 1099511627776 bytes, more than the 17179869184 allowed"
    )
    hidden = (
        "g (bool c, int8[1] x) => (float[n, m] y) { s = Constant <value_ints = [1048576, 262144]> ()"
        " y = If (c) <then_branch = t () => (float[n, m] a) { a = ConstantOfShape (s) },"
        " else_branch = e () => (float[n, m] b) { b = ConstantOfShape (s) }> }"
    )
    assert "node 0 (ConstantOfShape) would take 1099511627776 bytes" in refusal(model(hidden), tmp_path)
    noise = "g (int8[1] x) => (float[n, m] y) { y = RandomNormal <shape = [1048576, 262144]> () }"
    assert "node 0 (RandomNormal) would take 274877906944 bytes" in refusal(model(noise), tmp_path)


def test_the_number_of_tensors(tmp_path: Path) -> None:
    def many(count: int) -> onnx.ModelProto:
        return with_weights(*(TensorProto(name=f"w{i}", data_type=3, dims=[0]) for i in range(count)))

    opened(many(limits.MAX_TENSORS), tmp_path)
    assert refusal(many(limits.MAX_TENSORS + 1), tmp_path) == "error: m.onnx: more than the 100000 tensors allowed"


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
def test_the_versions_of_operators(tmp_path: Path, domain: str) -> None:
    oldest, newest = limits.OPSETS["" if domain == "ai.onnx" else domain]

    def versioned(version: int) -> onnx.ModelProto:
        core = "" if domain in ("", "ai.onnx") else '"" : 21, '
        return model(IDENTITY, header=f'<ir_version: 8, opset_import: [{core}"{domain}" : {version}]>')

    opened(versioned(oldest), tmp_path)
    opened(versioned(newest), tmp_path)
    shown, hint = ("ONNX", f"\n{OPSETS_HINT}") if domain in ("", "ai.onnx") else (domain, "")
    for version in (oldest - 1, newest + 1):
        assert refusal(versioned(version), tmp_path) == (
            f"error: m.onnx: version {version} of the operators of {shown}; wanc takes {oldest} to {newest}{hint}"
        )


def test_the_versions_of_the_format(tmp_path: Path) -> None:
    for version in (3, onnx.IR_VERSION):
        opened(model(header=f'<ir_version: {version}, opset_import: ["" : 21]>'), tmp_path)
    for version in (2, onnx.IR_VERSION + 1):
        proto = model()
        proto.ir_version = version
        assert refusal(proto, tmp_path) == (
            f"error: m.onnx: version {version} of the ONNX format; wanc takes 3 to {onnx.IR_VERSION}"
        )


def test_the_length_of_a_name(tmp_path: Path) -> None:
    proto = model()
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "é" * 64
    assert opened(proto, tmp_path).inputs[0].name == "é" * 64
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "é" * 64 + "e"
    assert "is not a name of at most 128 bytes" in refusal(proto, tmp_path)
