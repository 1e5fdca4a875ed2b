"""Graphs at which ONNX's own C++ dies: they are refused in words, and nothing dies of them but a fork."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from pathlib import Path

import onnx
import onnx.printer
import onnx_ir as ir
import pytest

from wanc.errors import CheckpointError, render
from wanc.linux import private_bytes
from wanc.models.forked import DeathError, call_in_fork
from wanc.models.memory_limit import memory_limit
from wanc.models.onnx_file import MODEL, open_onnx, read_onnx

from .onnx_builder import model

HINT = (
    "hint: onnx's checker and shape inference see every graph that is built: "
    "are the node's inputs and attributes what its operator takes?"
)
ONNX = f"onnx {onnx.__version__}"
# The input has no type, and an attribute says what the output's is.
EYE_LIKE = (
    b'\x08\x08:)\n\x1d\n\x01x\x12\x01y"\x07EyeLike*\x0c\n\x05dtype\x18\x01\xa0\x01\x02Z\x03\n\x01xb\x03\n\x01y'
    b"B\x02\x10\x15"
)
# Indices of -1 coordinates: which memory is read depends on what lies before.
GATHER_ND = (
    b'\x08\x08:M\n\x13\n\x01x\n\x01i\x12\x01y"\x08GatherNDZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x02\n'
    b"\x02\x08\x02Z\x1c\n\x01i\x12\x17\n\x15\x08\x07\x12\x11\n\x02\x08\x02\n\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xff\x01b\x03\n\x01yB\x02\x10\x15"
)
# Two thousand million outputs.
SPLIT = (
    b'\x08\x08:=\n%\n\x01x\x12\x01y"\x05Split*\x16\n\x0bnum_outputs\x18\xff\xff\xff\xff\x07\xa0\x01\x02Z\x0f\n\x01x'
    b"\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02b\x03\n\x01yB\x02\x10\x15"
)


def refused(data: bytes, folder: Path) -> str:
    path = folder / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_onnx(open_onnx(path).files)
    return render(caught.value).replace(str(path), "m.onnx")


def test_a_null_pointer(tmp_path: Path) -> None:
    assert refused(EYE_LIKE, tmp_path) == f"error: m.onnx: {ONNX} crashes (SIGSEGV) over node 0 (EyeLike)\n{HINT}"


def test_memory_without_end(tmp_path: Path) -> None:
    started = time.monotonic()
    message = f"error: m.onnx: {ONNX} takes more memory than a file of this size may over node 0 (Split)\n{HINT}"
    assert refused(SPLIT, tmp_path) == message
    assert time.monotonic() - started < 5


def test_a_negative_size_is_not_counted_with(tmp_path: Path) -> None:
    """ONNX would take memory that is not its own for sizes: crash, fill the memory, or make a shape of it."""
    error = refused(GATHER_ND, tmp_path)
    assert error == "error: m.onnx: output 'y' does not say how many dimensions it has"


@pytest.mark.parametrize(
    "body",
    [
        "{ z = If (c) <then_branch = a () => (float[2, -1] p) { p = Neg (x) }, "
        "else_branch = b () => (float[2, 2] q) { q = Neg (x) }> }",
        "<float[-1, 2] u> { u = Neg (x) z = Neg (u) }",
        "{ s = SequenceConstruct (x) z = SequenceAt (s, i) }",
    ],
)
def test_no_negative_size_is_left_anywhere(body: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = model("g (bool c, float[2, 2] x, int64 i) => (float[-1, 2] z) " + body)
    sequence = proto.graph.value_info.add(name="s").type.sequence_type.elem_type.tensor_type
    sequence.elem_type = onnx.TensorProto.FLOAT
    sequence.shape.dim.add(dim_value=-7)
    path.write_bytes(proto.SerializeToString())
    read = onnx.printer.to_text(ir.to_proto(read_onnx(open_onnx(path).files).model))
    assert "-" in onnx.printer.to_text(proto) and "-" not in read


def in_the_middle() -> onnx.ModelProto:
    """A sound interface; a value inside has no type, since nobody knows the operator that computes it."""
    proto = model(
        "g (float[2, 2] x) => (float[2, 2] z) { t = com.microsoft.Nobody (x) u = Neg (x) y = EyeLike <dtype = 1> (t)"
        " z = Neg (y) }"
    )
    proto.graph.ClearField("value_info")
    proto.graph.node[2].name = "eye"
    return proto


def test_the_node_is_found_among_others(tmp_path: Path) -> None:
    """Opening the file takes no inference: what later stages ask for is tried when it is read."""
    path = tmp_path / "m.onnx"
    path.write_bytes(in_the_middle().SerializeToString())
    files = open_onnx(path).files
    with pytest.raises(CheckpointError) as caught:
        read_onnx(files)
    assert caught.value.message == f"{ONNX} crashes (SIGSEGV) over node 'eye' (EyeLike)"


def test_a_node_in_a_subgraph_is_told_by_the_one_around_it(tmp_path: Path) -> None:
    proto = model(
        "g (bool c, float[2, 2] x) => (float[2, 2] z) { t = com.microsoft.Nobody (x) "
        "z = If (c) <then_branch = a () => (float[2, 2] p) { p = EyeLike <dtype = 1> (t) }, "
        "else_branch = b () => (float[2, 2] q) { q = Neg (x) }> }"
    )
    proto.graph.ClearField("value_info")
    assert f"{ONNX} crashes (SIGSEGV) over node 1 (If)" in refused(proto.SerializeToString(), tmp_path)


def test_what_inference_only_refuses_is_judged_by_what_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model("g (float[2, 3] x) => (float[2, 2] y) { y = MatMul (x, x) }").SerializeToString())
    assert read_onnx({MODEL: path}).outputs[0].shape == (2, 2)


def test_a_size_that_is_inferred_has_the_limits_of_others(tmp_path: Path) -> None:
    text = "g (float[2, 1, 2] x, float[1, 12, 2] w, float[1, 12, 3] r) => (y) { y = LSTM <hidden_size = 3> (x, w, r) }"
    proto = model(text)
    proto.graph.node[0].attribute[0].i = 2**31
    assert refused(proto.SerializeToString(), tmp_path) == (
        "error: m.onnx: output 'y' has a dimension of 2147483648, more than the 2147483647 allowed"
    )


def test_an_attribute_without_a_type(tmp_path: Path) -> None:
    proto = model("g (float[2, 3] x) => (float[3, 2] y) { y = Transpose <perm = [1, 0]> (x) }")
    proto.graph.node[0].attribute[0].type = onnx.AttributeProto.UNDEFINED
    message = "error: m.onnx: attribute 'perm' of node 0 (Transpose) has no type that is known"
    assert refused(proto.SerializeToString(), tmp_path) == message


# Forks


def test_what_a_fork_returns() -> None:
    assert call_in_fork(lambda: b"x" * 2**20, seconds=5) == b"x" * 2**20
    assert call_in_fork(lambda: b"", seconds=5) == b""
    assert call_in_fork(lambda: bytes(1 // 0), seconds=5) is None


def kill() -> bytes:
    os.kill(os.getpid(), signal.SIGABRT)
    return b""


def compute() -> bytes:
    while True:
        pass


def exhaust() -> bytes:
    return b"".join([b"x" * 2**20] * 400)


@pytest.mark.parametrize(
    ("function", "death"),
    [
        (kill, r"crashes \(SIGABRT\)"),
        (compute, "takes more than 1 s"),
        (exhaust, "takes more memory than a file of this size may"),
    ],
)
def test_how_a_fork_dies(function: object, death: str) -> None:
    with memory_limit(200 * 2**20), pytest.raises(DeathError, match=f"^{death}$"):
        call_in_fork(function, seconds=1)  # type: ignore[arg-type]


def test_a_fork_that_the_system_kills_is_no_fault_of_the_graphs() -> None:
    with pytest.raises(MemoryError, match="killed from outside"):
        call_in_fork(lambda: bytes(os.kill(os.getpid(), signal.SIGKILL) or 0), seconds=1)


# Memory


def test_memory_is_limited_in_the_block_and_not_behind_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    gc.collect()  # what is freed in the block can be taken again
    with memory_limit(100 * 2**20):
        assert len(bytes(50 * 2**20)) == 50 * 2**20
        with pytest.raises(MemoryError):
            bytes(2**31)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytes(2**31)) == 2**31


def test_a_limit_that_holds_already_is_not_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lower = (private_bytes() or 0) + 100 * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (lower, hard))
    try:
        with memory_limit(2**40):
            assert resource.getrlimit(resource.RLIMIT_DATA) == (lower, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
