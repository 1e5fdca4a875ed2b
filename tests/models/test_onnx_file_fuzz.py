"""Whatever stands in an ONNX file: it is read or refused with a message, in under a second and little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from wanc.errors import UserError, render
from wanc.models.onnx_file import open_onnx, read_onnx

from ..cost import limited
from .onnx_builder import external, model
from .test_onnx_file_limits import field, multiplying, nested

SECONDS = 1.0
BYTES = 200 * 2**20

fuzzing = settings(
    max_examples=300,
    deadline=None,  # timed below: hypothesis' own deadline also counts the writing of files
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def rich() -> onnx.ModelProto:
    """A bit of everything: subgraphs, a function, weights inside and outside, a shape made of constants."""
    proto = model(
        "g (bool c, float[rows, 4] x, int64 n) => (float[rows, 8] y, float[2, 3] k, float[rows, 4] z)"
        "<float[4, 8] w, int64[2] s = {2, 3}> {"
        " h = MatMul (x, w) y = acme.Twice (h) k = ConstantOfShape (s)"
        " z = If (c) <then_branch = t () => (float[rows, 4] a) "
        " { b = Constant <value = float[1] {2}> () a = Mul (x, b) },"
        " else_branch = e () => (float[rows, 4] a) { a = Neg (x) }> }"
    )
    proto.graph.ClearField("value_info")
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 8), np.float32), "w"))
    proto.graph.initializer.append(external("v", [2, 2], {"location": "w.bin", "offset": "16", "length": "16"}))
    twice = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("acme", "Twice", ["a"], ["b"], twice, [helper.make_opsetid("", 21)]))
    return proto


WHOLE = rich().SerializeToString()


def attempt(path: Path) -> str | None:
    """Open and read; what is said when it is refused. Anything but a UserError ends the test."""
    message = None
    with limited():
        try:
            read_onnx(open_onnx(path).files)
        except UserError as error:
            message = render(error)
            assert message.isprintable() or "\n" in message
            assert len(message) < 2000
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "w.bin").write_bytes(bytes(32))
    return tmp_path / "m.onnx"


def test_the_whole_is_read(file: Path) -> None:
    file.write_bytes(WHOLE)
    assert attempt(file) is None


@fuzzing
@given(st.binary(max_size=300))
def test_any_bytes(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    attempt(file)


@fuzzing
@given(
    st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.sampled_from(["set", "insert", "delete"]), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_changed_bytes(file: Path, changes: list[tuple[int, str, int]]) -> None:
    data = bytearray(WHOLE)
    for position, kind, value in changes:
        position %= len(data)
        match kind:
            case "set":
                data[position] = value
            case "insert":
                data.insert(position, value)
            case _:
                del data[position]
    file.write_bytes(bytes(data))
    attempt(file)


def test_every_truncation(file: Path) -> None:
    for length in range(len(WHOLE)):
        file.write_bytes(WHOLE[:length])
        attempt(file)


NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 7, 17, 2**31 - 1, 2**31, 2**63 - 1])
TEXTS = st.sampled_from(
    ["", "x", "y", "w", "h", "a", "acme", "Twice", "If", "..", "/etc/passwd", "\x00", "2*rows", "é"]
)


def mutate(message: Any, choose: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Change one field somewhere below a message: another value, a repeated or a missing element."""
    while True:
        fields = [field for field, _ in message.ListFields()]
        if not fields:
            return
        chosen = choose(st.sampled_from(fields))
        value = getattr(message, chosen.name)
        if chosen.is_repeated:
            index = choose(st.integers(0, len(value) - 1))
            action = choose(st.sampled_from(["go", "go", "delete", "repeat"]))
            if action == "delete":
                del value[index]
                return
            if action == "repeat":
                value.append(value[index])
                return
            if chosen.type != chosen.TYPE_MESSAGE:
                value[index] = replacement(chosen, choose)
                return
            message = value[index]
        elif chosen.type == chosen.TYPE_MESSAGE:
            if choose(st.integers(0, 9)) == 0:
                message.ClearField(chosen.name)
                return
            message = value
        else:
            setattr(message, chosen.name, replacement(chosen, choose))
            return


def replacement(chosen: Any, choose: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    if chosen.type == chosen.TYPE_STRING:
        return choose(TEXTS)
    if chosen.type == chosen.TYPE_BYTES:
        return choose(st.binary(max_size=16))
    if chosen.type == chosen.TYPE_ENUM:
        return choose(st.sampled_from([value.number for value in chosen.enum_type.values]))
    if chosen.type == chosen.TYPE_INT32:
        return choose(st.integers(-1, 40))
    if chosen.type in (chosen.TYPE_FLOAT, chosen.TYPE_DOUBLE):
        return choose(st.floats(width=32))
    return choose(NUMBERS) % (2**63 if chosen.type == chosen.TYPE_UINT64 else 2**64) - (
        2**63 if chosen.type == chosen.TYPE_INT64 else 0
    )


@settings(fuzzing, max_examples=600)
@given(st.data())
def test_changed_fields(file: Path, data: st.DataObject) -> None:
    """Sound protobufs of unsound models: what a parser lets pass, and byte changes seldom hit."""
    proto = rich()
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(proto, data.draw)
    file.write_bytes(proto.SerializeToString())
    attempt(file)


BOMBS: dict[str, Callable[[], bytes]] = {
    "30 million nodes": lambda: field(7, field(1, b"") * 30_000_000),
    "16 million attributes": lambda: field(7, field(1, field(5, b"") * 16_000_000)),
    "numbers of one byte": lambda: field(7, field(5, field(7, bytes(8 * 2**20)))),
    "numbers, one by one": lambda: field(7, field(5, b"\x38\x00" * 20_000_000)),
    "names of nothing": lambda: field(7, field(1, b"\x0a\x00" * 20_000_000)),
    "functions that multiply by 8, 10 times": lambda: multiplying(10, 1, calls=8).SerializeToString(),
    "Ifs, 30 deep": lambda: nested(30).SerializeToString(),
    "a terabyte of zeros": lambda: model(
        "g (int8[1] x) => (float[n] y) <int64[1] s = {1099511627776}> { y = ConstantOfShape (s) }"
    ).SerializeToString(),
    "a shape of huge numbers": lambda: model(
        f"g (int8[1] x) => (float[n] y) {{ y = RandomNormal <shape = [{', '.join([str(2**62)] * 20000)}]> () }}"
    ).SerializeToString(),
    "a tensor of 2^36 in 4 bytes": lambda: _with(external("w", [2**18, 2**18], {"location": "w.bin"})),
    "65 MiB": lambda: field(6, bytes(65 * 2**20)),
}


def _with(tensor: TensorProto) -> bytes:
    proto = model()
    proto.graph.initializer.append(tensor)
    return proto.SerializeToString()


MEASURE = """
import sys, time
from pathlib import Path
from wanc.errors import UserError
from wanc.models.onnx_file import open_onnx, read_onnx
import onnx_ir
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
path = Path(sys.argv[1])
before, seconds = peak(), []
for _ in range(2):
    started = time.process_time()
    try:
        open_onnx(path)
        outcome = "read"
    except UserError as error:
        outcome = error.message
    seconds.append(time.process_time() - started)
print(outcome)
print(min(seconds), peak() - before)
"""


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bombs_cost_next_to_nothing(tmp_path: Path, bomb: Callable[[], bytes]) -> None:
    """Processor time and memory of a process of its own, beyond what its imports take."""
    (tmp_path / "w.bin").write_bytes(bytes(4))
    path = tmp_path / "m.onnx"
    path.write_bytes(bomb())
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True, timeout=60)
    outcome, figures = done.stdout.splitlines()
    seconds, grown = map(float, figures.split())
    assert outcome != "read"
    # The better of two: a processor that is shared counts what others do to its caches.
    assert seconds < SECONDS
    assert grown < BYTES
