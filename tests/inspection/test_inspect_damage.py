"""What cannot be described is refused with a whole message, at once, and whatever the bytes are without a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wanc.artifacts.store import Store
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, UserError, render
from wanc.inspection.find import inspect
from wanc.inspection.small_file import MAX_VALUES
from wanc.inspection.text import tables
from wanc.runtime.strict_json import MAX_BYTES
from wanc.terminal import as_text

from ..artifacts.builder import encode, write_bundle
from ..conftest import Wanc
from ..cost import limited
from .graphs import BRANCHING, PROGRAM, field, store_action, varint, write_graph, write_program

WANTED = (
    "hint: give the folder of a bundle or a checkpoint, a program.json, an .onnx or .safetensors file, or a key in "
    "the store\n"
)
OPSET = field(8, b"\x10\x15")  # version 21


def edited(**changes: object) -> bytes:
    """The program with some of its fields replaced."""
    return encode({**PROGRAM.as_json(), **changes})


def program_of(graph: object, **weight: object) -> bytes:
    weights = {"bias": {"file": "w", "offset": 0, "length": 4, "dtype": "FLOAT", "shape": [1], **weight}}
    return edited(components={"model": {"graphs": {"main": graph}, "weights": weights}})


def tensor(**fields: bytes) -> bytes:
    """An ONNX model of one initializer with these fields of TensorProto: dims, data_type."""
    numbers = {"dims": b"\x08", "data_type": b"\x10"}
    content = b"".join(numbers[name] + value for name, value in fields.items())
    return OPSET + field(7, field(5, content))


GRAPH = PROGRAM.as_json()["components"]["model"]["graphs"]["main"]
FAULTS: dict[str, tuple[str, bytes, str]] = {
    "an empty file": ("f.onnx", b"", "is not an ONNX model: it has no graph or no operator set"),
    "text": ("f.onnx", b"hello, world", "is not an ONNX model: no field starts before byte 3"),
    "a graph without an operator set": (
        "f.onnx",
        field(7, b""),
        "is not an ONNX model: it has no graph or no operator set",
    ),
    "a group": ("f.onnx", b"\x0b", "is not an ONNX model: no field starts before byte 1"),
    "an endless number": ("f.onnx", b"\xff" * 30, "is not an ONNX model: no number ends before byte 10"),
    "a field behind the end": (
        "f.onnx", b"\x3a\x05ab", "is not an ONNX model: the field at byte 2 ends behind its message"
    ),
    "an unknown dtype": (
        "f.onnx",
        tensor(dims=b"\x01", data_type=b"\x63"),
        "is a damaged ONNX model\ncaused by: a tensor has the dtype 99",
    ),
    "a negative dimension": (
        "f.onnx",
        tensor(dims=b"\xff" * 9 + b"\x01", data_type=b"\x01"),
        "is a damaged ONNX model\ncaused by: a tensor has the shape [-1]",
    ),
    "a rank of 9": (
        "f.onnx",
        OPSET + field(7, field(5, b"\x08\x01" * 9 + b"\x10\x01")),
        "is a damaged ONNX model\ncaused by: a tensor has the shape [1, 1, 1, 1, 1, 1, 1, 1, 1]",
    ),
    "more elements than are": (
        "f.onnx",
        OPSET + field(7, field(5, (b"\x08" + varint(2**40)) * 2 + b"\x10\x01")),
        "is a damaged ONNX model\ncaused by: a tensor has the shape [1099511627776, 1099511627776]",
    ),
    "no JSON": ("program.json", b"{", "{path}:1:2: not JSON: Expecting property name enclosed in double quotes"),
    "a list": ("program.json", b"[]", "the document must be an object, not a list"),
    "a twice": ("program.json", b'{"a":1,"a":2}', "duplicate key 'a'"),
    "NaN": ("program.json", b'{"a":NaN}', "NaN is not JSON"),
    "too much JSON": ("program.json", b" " * (MAX_BYTES + 1), f"larger than the {MAX_BYTES} bytes allowed"),
    "too many values": (
        "program.json",
        b'{"a":[' + b"0," * MAX_VALUES + b"0]}",
        f"more than the {MAX_VALUES} values allowed",
    ),
    "no program": ("program.json", b'{"schema":"wanc.program/1.1"}', "is no program: task: Field required"),
    "another schema of programs": (
        "program.json",
        edited(schema="wanc.program/2.0"),
        "is no program: schema: Input should be 'wanc.program/1.1'",
    ),
    "a program with a wrong graph": (
        "program.json",
        program_of({**GRAPH, "inputs": 3}),
        "is no program: components.model.graphs.main.inputs: Input should be a valid array",
    ),
    "a program with a graph elsewhere": (
        "program.json",
        program_of({**GRAPH, "file": "../main.onnx"}),
        "path '../main.onnx' may only hold components of A-Z a-z 0-9 . _ - that start with a letter, digit or _ "
        "and hold no '..'",
    ),
    "a program with a weight that cannot be": (
        "program.json",
        program_of(GRAPH, shape=[-1]),
        "is a damaged program\ncaused by: a tensor has the shape [-1]",
    ),
    "other JSON": ("some.json", b"{}", "is JSON, but neither a program nor a manifest nor an action"),
    "a short safetensors file": (
        "a.safetensors",
        b"abc",
        "not a sound safetensors file: a header of 6513249 bytes in a file of 3",
    ),
    "an action that is not its checksum's": (
        "action",
        b'{"schema":"wanc.action/1"}',
        "files is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str, wanc: Wanc) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    finished = wanc("inspect", path)
    said = message.replace("{path}", str(path)) if "{path}" in message else f"{path}: {message}"
    hint = WANTED if name == "some.json" else ""
    assert (finished.code, finished.out, finished.err) == (EXIT_DATA, "", f"error: {said}\n{hint}")


BAD = b"\xff"
SYMBOL = field(2, field(1, b"\x08\x01" + field(2, field(1, field(2, BAD)))))  # type.tensor_type.shape.dim.dim_param
UNREADABLE = {
    "producer": field(2, BAD) + OPSET + field(7, b""),
    "operator set": field(8, field(1, BAD)) + field(7, b""),
    "function": OPSET + field(7, b"") + b"\xca\x01" + varint(3) + field(1, BAD),
    "operator": OPSET + field(7, field(1, field(4, BAD))),
    "domain": OPSET + field(7, field(1, field(7, BAD))),
    "input": OPSET + field(7, field(11, field(1, BAD))),
    "dimension": OPSET + field(7, field(12, SYMBOL)),
    "location": OPSET
    + field(7, field(5, b"\x10\x01" + field(13, field(1, b"location") + field(2, BAD)) + b"\x70\x01")),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_name_in_a_graph_that_is_no_text_is_refused(tmp_path: Path, content: bytes, wanc: Wanc) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    finished = wanc("inspect", path, "--json")
    said = f"error: {path}: is a damaged ONNX model\ncaused by: the name b'\\xff' is not UTF-8\n"
    assert (finished.code, finished.out, finished.err) == (EXIT_DATA, "", said)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "a FIFO": (make_fifo, "is not a regular file"),
    "a socket": (make_socket, "cannot be read\ncaused by: No such device or address"),
    "a dangling link": (make_dangling_link, "cannot be read\ncaused by: No such file or directory"),
    "a link to itself": (make_link_to_itself, "cannot be read\ncaused by: Too many levels of symbolic links"),
}


@pytest.mark.parametrize("name", ["file.onnx", "file.safetensors", "program.json"])
@pytest.mark.parametrize(("make", "message"), SPECIAL.values(), ids=SPECIAL)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, name: str, make: Callable[[Path], None], message: str, wanc: Wanc
) -> None:
    make(tmp_path / name)
    finished = wanc("inspect", tmp_path / name)
    assert (finished.code, finished.err) == (EXIT_NO_INPUT, f"error: {tmp_path / name}: {message}\n")


def test_what_is_not_there_is_refused(tmp_path: Path, wanc: Wanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("absent", "ABCDEF", "abc", "a" * 5000, "x/" * 3000):
        finished = wanc("inspect", name)
        said = f"error: {name}: there is no such file or folder\n{WANTED}"
        assert (finished.code, finished.out, finished.err) == (EXIT_NO_INPUT, "", said)


def test_a_folder_of_anything_else_is_refused(tmp_path: Path, wanc: Wanc) -> None:
    finished = wanc("inspect", tmp_path)
    said = f"error: {tmp_path}: is not the folder of a bundle, a program or a checkpoint\n"
    assert (finished.code, finished.out, finished.err) == (EXIT_DATA, "", said + WANTED)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, wanc: Wanc) -> None:
    (tmp_path / "model_index.json").write_text("{")
    finished = wanc("inspect", tmp_path)
    assert (finished.code, finished.out) == (EXIT_DATA, "")
    assert finished.err.startswith(f"error: {tmp_path}/model_index.json")


def test_a_store_s_folder_points_to_its_list(tmp_path: Path, wanc: Wanc) -> None:
    Store.open(tmp_path / "artifacts/store")
    for folder in ("artifacts", "artifacts/store"):
        finished = wanc("inspect", tmp_path / folder)
        assert finished.code == EXIT_DATA
        assert finished.err.endswith("hint: `wanc store ls` lists a store; give one of its keys\n")


def test_a_bundle_without_its_marker_is_refused(tmp_path: Path, wanc: Wanc) -> None:
    root = write_bundle(tmp_path / "bundle")
    (root / "WANC").unlink()
    finished = wanc("inspect", root)
    said = f"error: {root}/WANC: is missing\nhint: is this the directory of a bundle?\n"
    assert (finished.code, finished.out, finished.err) == (EXIT_NO_INPUT, "", said)


@pytest.mark.parametrize(
    ("engines", "message"),
    [
        ({}, "topology.engines must be a list, not an object"),
        ([3], "topology.engines[0] must be an object, not a number"),
        ([{"component": "model"}], "topology.engines[0].graph is missing"),
    ],
    ids=["no list", "no object", "no graph"],
)
def test_a_bundle_with_odd_engines_is_refused(tmp_path: Path, wanc: Wanc, engines: object, message: str) -> None:
    root = write_bundle(tmp_path / "bundle", {"WANC": b"wanc-bundle 1\n", "run.py": b""}, topology={"engines": engines})
    finished = wanc("inspect", root)
    assert (finished.code, finished.out, finished.err) == (EXIT_DATA, "", f"error: {root}/manifest.json: {message}\n")


# Any bytes


fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EDITS = st.lists(
    st.tuples(
        st.integers(0, 2**16),
        st.integers(0, 12),
        st.binary(max_size=12) | st.sampled_from([b"\xff\xff\xff\x7f", b"\0" * 9]),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def damaged(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for position, length, replacement in edits:
        start = position % (len(content) + 1)
        content = content[:start] + replacement + content[start + length :]
    return content


def describe_or_refuse(target: str, output: Path) -> None:
    """Either a description that is strict JSON and can be shown, or a fault of the user's; within a second of CPU."""
    with limited():
        try:
            document = inspect(target, output)
            json.dumps(document, allow_nan=False)
            assert as_text(tables(document))
        except UserError as error:
            assert error.exit_code in (EXIT_DATA, EXIT_NO_INPUT)
            assert render(error)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write_graph(folder / "sound.onnx", BRANCHING)
    write_program(folder / "program")
    write_bundle(
        folder / "bundle",
        {"WANC": b"wanc-bundle 1\n", "run.py": b"", "program.json": PROGRAM_BYTES, "recipe.lock.json": b"{}"},
        topology={"engines": [{"component": "model", "graph": "main", "engine": "e", "target": "t", "file": "f"}]},
        runtime={"shapes": [{"name": "64p"}], "sampling": {"steps": 3}, "model": {"boundary": 0.5}},
    )  # fmt: skip
    store_action(Store.open(folder / "artifacts/store"), "export", {"a": b"1"}, {"source": "sha256:0"})
    inspect(str(folder / "sound.onnx"), folder)  # what is imported once is no part of what a file costs
    return folder


PROGRAM_BYTES = encode(PROGRAM.as_json())


@fuzz
@given(content=st.binary(max_size=100))
def test_any_bytes(content: bytes, place: Path) -> None:
    for name in ("any.onnx", "any.safetensors", "any.json", "any"):
        (place / name).write_bytes(content)
        describe_or_refuse(str(place / name), place)


@fuzz
@given(edits=EDITS)
def test_any_damage_to_a_graph(edits: list[tuple[int, int, bytes]], place: Path) -> None:
    (place / "damaged.onnx").write_bytes(damaged((place / "sound.onnx").read_bytes(), edits))
    describe_or_refuse(str(place / "damaged.onnx"), place)


@fuzz
@given(edits=EDITS)
def test_any_damage_to_a_program(edits: list[tuple[int, int, bytes]], place: Path) -> None:
    (place / "program/program.json").write_bytes(damaged(PROGRAM_BYTES, edits))
    describe_or_refuse(str(place / "program"), place)


def changed(document: object, path: list[int], value: object) -> object:
    """The document with another value somewhere inside: `path` chooses a member at each depth."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    members = list(document.items() if isinstance(document, dict) else enumerate(document))
    name, member = members[path[0] % len(members)]
    copy = document.copy()
    copy[name] = changed(member, path[1:], value)
    return copy


@fuzz
@given(path=st.lists(st.integers(0, 9), min_size=1, max_size=9), value=JSON_VALUES)
def test_any_other_value_in_a_program(path: list[int], value: object, place: Path) -> None:
    (place / "program/program.json").write_text(json.dumps(changed(PROGRAM.as_json(), path, value)))
    describe_or_refuse(str(place / "program"), place)


@fuzz
@given(path=st.lists(st.integers(0, 15), min_size=1, max_size=5), value=JSON_VALUES)
def test_any_other_value_in_a_manifest(path: list[int], value: object, place: Path) -> None:
    manifest = place / "bundle/manifest.json"
    sound = manifest.read_bytes()
    try:
        manifest.write_text(json.dumps(changed(json.loads(sound), path, value)))
        describe_or_refuse(str(place / "bundle"), place)
    finally:
        manifest.write_bytes(sound)


@fuzz
@given(path=st.lists(st.integers(0, 15), min_size=1, max_size=5), value=JSON_VALUES)
def test_any_other_value_in_a_lock(path: list[int], value: object, place: Path) -> None:
    lock = {"recipe": {"name": "a"}, "inputs": {"a": {"size": 3, "sha256": "b"}}, "tools": {"c": "1"}}
    (place / "bundle/recipe.lock.json").write_text(json.dumps(changed(lock, path, value)))
    describe_or_refuse(str(place / "bundle"), place)


@fuzz
@given(path=st.lists(st.integers(0, 15), min_size=1, max_size=6), value=JSON_VALUES)
def test_any_other_value_in_a_report_on_engines(path: list[int], value: object, place: Path) -> None:
    entry = {"kernels": {"Add": {"float": 1, "int64": 2}}, "fused": {"Attention": 1}, "bytes": 119}
    report = {"engine": "onnxruntime", "components": {"model": {"main": entry}}}
    (place / "bundle/engine_report.json").write_text(json.dumps(changed(report, path, value)))
    describe_or_refuse(str(place / "bundle"), place)


@fuzz
@given(edits=EDITS)
def test_any_damage_to_an_action(edits: list[tuple[int, int, bytes]], place: Path) -> None:
    (record,) = [path for path in (place / "artifacts/store/actions").iterdir() if "d" * 64 not in path.name]
    (record.parent / f"{'d' * 64}.json").write_bytes(damaged(record.read_bytes(), edits))
    describe_or_refuse("dddd", place / "artifacts")
    describe_or_refuse(record.stem, place / "artifacts")


@fuzz
@given(target=st.text(st.characters(exclude_characters="\0"), max_size=40))
def test_any_name(target: str, place: Path) -> None:
    with contextlib.chdir(place / "program"):
        describe_or_refuse(target, place / "artifacts")
