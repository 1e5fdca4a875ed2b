"""Arrays in .npz files: numpy's own files are read exactly, everything else is refused with a message."""

from __future__ import annotations

import io
import os
import stat
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wanc.runtime import arrays
from wanc.runtime.arrays import read_arrays, write_arrays
from wanc.runtime.errors import UserError
from wanc.runtime.interface import DTYPES, Input, InputError, Interface

from ..cost import limited

Array = np.ndarray[Any, Any]


def takes(**inputs: tuple[str, tuple[int | str, ...]]) -> Interface:
    return Interface(
        tuple(Input(name, shape, "request", "request", dtype) for name, (dtype, shape) in inputs.items()), ()
    )


X = takes(x=("float32", ("rows", 3)))


def npy(array: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def headed(dtype: str, shape: str) -> bytes:
    """A header that numpy would not write, and no values."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def archive(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def refusal(path: Path, interface: Interface = X) -> str:
    """The message and the hint, after the file's path; the exit code has to be 65."""
    with pytest.raises(InputError) as caught:
        read_arrays(path, interface)
    assert caught.value.exit_code == 65
    assert caught.value.where == str(path)
    return caught.value.message + (f"; {caught.value.hint}" if caught.value.hint else "")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_numpy_saves_is_read(tmp_path: Path, save: Callable[..., None], dtype: str) -> None:
    expected = {
        "x": (np.arange(60) % 2).reshape(3, 4, 5).astype(dtype),
        "turned": np.asfortranarray((np.arange(12) % 5).reshape(3, 4).astype(dtype)),
        "scalar": np.array(1, dtype),
        "empty": np.zeros((0, 4), dtype),
    }
    save(tmp_path / "in.npz", **expected)
    actual = read_arrays(tmp_path / "in.npz", takes(**{name: (dtype, a.shape) for name, a in expected.items()}))
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array)
        assert actual[name].dtype == array.dtype


NAMES = ["x", "file", "a/b", "serving:0", "é世", "-", "a.npy", "..", "x y", "/abs", "%41"]


def test_what_is_written_is_read_by_numpy_under_the_same_names(tmp_path: Path) -> None:
    expected = {name: np.full((2, index), index, np.float16) for index, name in enumerate(NAMES)}
    write_arrays(tmp_path / "out.npz", expected)
    with np.load(tmp_path / "out.npz") as file:
        assert sorted(file.files) == sorted(NAMES)
        for name, array in expected.items():
            np.testing.assert_array_equal(file[name], array)
    interface = takes(**{name: ("float16", array.shape) for name, array in expected.items()})
    assert list(read_arrays(tmp_path / "out.npz", interface)) == NAMES


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    outputs = {"y": np.arange(5), "z": np.array(True)}
    write_arrays(tmp_path / "a.npz", outputs)
    os.utime(tmp_path / "a.npz", (0, 0))
    write_arrays(tmp_path / "b.npz", outputs)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_the_file_can_be_read_by_everybody(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_arrays(tmp_path / "out.npz", {"y": np.zeros(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.npz").stat().st_mode) == 0o644


def test_a_file_that_is_there_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "out.npz"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="Object arrays"):
        write_arrays(path, {"y": np.zeros(1000), "z": np.array([{}], object)})
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.npz"]
    write_arrays(path, {"y": np.zeros(1)})
    assert zipfile.is_zipfile(path)


@pytest.mark.parametrize(
    ("where", "cause"),
    [("absent/out.npz", "No such file or directory"), ("file/out.npz", "Not a directory"), ("taken", "Is a directory")],
)
def test_where_nothing_can_be_written(tmp_path: Path, where: str, cause: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError) as caught:
        write_arrays(tmp_path / where, {"y": np.zeros(1)})
    assert (caught.value.message, caught.value.exit_code) == ("the outputs cannot be written", 74)
    assert isinstance(caught.value.__cause__, OSError) and caught.value.__cause__.strerror == cause
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError) as caught:
        write_arrays(tmp_path / "out.npz", {"y": np.zeros(1)})
    assert caught.value.exit_code == 74
    assert os.listdir(tmp_path) == []


SIZES = takes(a=("float32", (1, "rows", "2*cols")), b=("int64", ("rows",)), c=("bool", ("3*cols", 4)))
FIT = {"a": ("float32", (1, 5, 4)), "b": ("int64", (5,)), "c": ("bool", (6, 4))}


def test_sizes_that_fit() -> None:
    SIZES.check(FIT)
    SIZES.check({"a": ("float32", (1, 0, 0)), "b": ("int64", (0,)), "c": ("bool", (0, 4))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"a": ("float64", (1, 5, 4))},
            "the input 'a' is float64 [1, 5, 4], and float32 [1, rows, 2*cols] was expected",
        ),
        ({"a": ("float32", (5, 4))}, "the input 'a' is float32 [5, 4], and float32 [1, rows, 2*cols] was expected"),
        (
            {"a": ("float32", (2, 5, 4))},
            "the input 'a' is float32 [2, 5, 4], and float32 [1, rows, 2*cols] was expected",
        ),
        (
            {"a": ("float32", (1, 5, 3))},
            "the input 'a' is float32 [1, 5, 3], and float32 [1, rows, 2*cols] was expected",
        ),
        (
            {"b": ("int64", (6,))},
            "the input 'b' is int64 [6], and int64 [rows] was expected: rows is 6 here and 5 in 'a'",
        ),
        (
            {"c": ("bool", (9, 4))},
            "the input 'c' is bool [9, 4], and bool [3*cols, 4] was expected: cols is 3 here and 2 in 'a'",
        ),
        ({"b": None}, "the input 'b' is missing; it is int64 [rows]"),
        ({"d": ("bool", ())}, "this bundle has no input 'd'; it takes: a, b, c"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_sizes_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given = {name: entry for name, entry in {**FIT, **change}.items() if entry is not None}
    np.savez(tmp_path / "in.npz", **{name: np.zeros(shape, dtype) for name, (dtype, shape) in given.items()})
    assert refusal(tmp_path / "in.npz", SIZES) == message


def test_the_same_name_within_one_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.zeros((2, 3), np.float32))
    assert refusal(tmp_path / "in.npz", takes(x=("float32", ("n", "n")))) == (
        "the input 'x' is float32 [2, 3], and float32 [n, n] was expected: n is 3 here and 2 in 'x'"
    )


FINE = npy(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x": FINE}, "the member 'x' is not an array: its name does not end in .npy"),
        ({"x.npy": FINE, "notes.txt": b"hi"}, "the member 'notes.txt' is not an array: its name does not end in .npy"),
        ({"x.npy": npy(np.array([{}], object))}, "the array 'x' has the dtype '|O', which no graph takes"),
        ({"x.npy": npy(np.zeros((2, 3), ">f4"))}, "the array 'x' has the dtype '>f4', which no graph takes"),
        ({"x.npy": npy(np.zeros(2, complex))}, "the array 'x' has the dtype '<c16', which no graph takes"),
        ({"x.npy": npy(np.zeros(2, "M8[s]"))}, "the array 'x' is not one of plain numbers"),
        ({"x.npy": npy(np.zeros(2, [("a", "f4")]))}, "the array 'x' is not one of plain numbers"),
        ({"x.npy": b"hello"}, "the array 'x' is not in numpy's format 1.0"),
        ({"x.npy": b""}, "the array 'x' is not in numpy's format 1.0"),
        ({"x.npy": FINE.replace(b"\x01\x00", b"\x02\x00", 1)}, "the array 'x' is not in numpy's format 1.0"),
        ({"x.npy": FINE[:40]}, "the array 'x' is not one of plain numbers"),
        ({"x.npy": FINE[:-1]}, "the array 'x' has 151 bytes; float32 [2, 3] takes 152"),
        ({"x.npy": FINE + b"0"}, "the array 'x' has 153 bytes; float32 [2, 3] takes 152"),
        (
            {"x.npy": headed("'<f4'", "(9999999999999, 3)")},
            "the array 'x' has 128 bytes; float32 [9999999999999, 3] takes 120000000000116",
        ),
        ({"x.npy": headed("'<f4'", "(-1, 3)")}, "the array 'x' is not one of plain numbers"),
        ({"x.npy": headed("'<f4'", f"({'9' * 19},)")}, "the array 'x' is not one of plain numbers"),
        ({"x.npy": headed("'<f4'", "(" * 900)}, "the array 'x' is not one of plain numbers"),
        ({"x.npy": headed("'<f4'", "(" * 2000)}, "the array 'x' is not in numpy's format 1.0"),
        ({"x.npy": headed("'f3'", "(2,)")}, "the array 'x' has the dtype 'f3', which no graph takes"),
        ({"x.npy": headed("'<U4'", "(2,)")}, "the array 'x' has the dtype '<U4', which no graph takes"),
        ({"x.npy": headed("__import__('os').abort()", "(2,)")}, "the array 'x' is not one of plain numbers"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_members_that_are_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    assert refusal(archive(tmp_path / "in.npz", members)) == message


def test_no_pickle_is_ever_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    path = archive(tmp_path / "in.npz", {"x.npy": npy(np.array([Trap()], object))})
    refusal(path)
    assert not (tmp_path / "sprung").exists()


def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("x.npy", FINE)
        file.writestr("x.npy", FINE)
    assert refusal(tmp_path / "in.npz") == "holds two arrays called 'x'"


def test_truth_values_are_0_or_1(tmp_path: Path) -> None:
    data = npy(np.zeros(3, bool))
    path = archive(tmp_path / "in.npz", {"x.npy": data[:-1] + b"\x02"})
    assert refusal(path, takes(x=("bool", (3,)))) == ("an array of truth values holds other values than 0 and 1")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, compression: int) -> None:
    path = archive(tmp_path / "in.npz", {"x.npy": FINE}, compression)
    assert refusal(path) == "the array 'x' is compressed in another way than numpy does"


def test_the_number_of_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_MEMBERS", 2)
    small = npy(np.zeros((), np.int8))
    interface = takes(a=("int8", ()), b=("int8", ()))
    read_arrays(archive(tmp_path / "two.npz", {"a.npy": small, "b.npy": small}), interface)
    three = archive(tmp_path / "three.npz", {f"{name}.npy": small for name in "abc"})
    assert refusal(three, interface) == "3 arrays, more than the 2 allowed"


def test_the_bytes_of_all_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "in.npz", {"x.npy": FINE, "y.npy": FINE})
    interface = takes(x=("float32", (2, 3)), y=("float32", (2, 3)))
    monkeypatch.setattr(arrays, "MAX_TOTAL_BYTES", 304)
    read_arrays(path, interface)
    monkeypatch.setattr(arrays, "MAX_TOTAL_BYTES", 303)
    assert refusal(path, interface) == "304 bytes of arrays, more than the 303 allowed"


def bomb(path: Path, *, claimed: int) -> Path:
    """An array that claims so many bytes, out of a few compressed ones: the directory's sizes are changed by hand."""
    header = npy(np.zeros((0, 3), np.float32))
    rows = (claimed - len(header)) // 12
    head = header.replace(b"(0, 3)", f"({rows}, 3)".encode()).replace(b" " * (len(str(rows)) - 1) + b"\n", b"\n")
    archive(path, {"x.npy": head}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    size = struct.pack("<I", len(head))
    place = data.index(size, data.index(b"PK\x01\x02") + 24)
    data[place : place + 4] = struct.pack("<I", rows * 12 + len(header))
    path.write_bytes(bytes(data))
    return path


def test_a_size_that_compression_cannot_explain(tmp_path: Path) -> None:
    path = bomb(tmp_path / "in.npz", claimed=2**31)
    with zipfile.ZipFile(path) as file:
        claimed, compressed = file.infolist()[0].file_size, file.infolist()[0].compress_size
    assert refusal(path) == f"the array 'x' claims {claimed} bytes out of {compressed}"


def test_a_member_that_ends_early(tmp_path: Path) -> None:
    path = bomb(tmp_path / "in.npz", claimed=2**16)
    assert refusal(path) == "not a readable .npz file"


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    path = archive(tmp_path / "in.npz", {"x.npy": npy(np.ones((2, 3), np.float32))})
    data = path.read_bytes()
    path.write_bytes(data.replace(np.ones(1, np.float32).tobytes(), np.full(1, 2, np.float32).tobytes(), 1))
    assert refusal(path) == "not a readable .npz file"


def test_an_encrypted_archive(tmp_path: Path) -> None:
    path = archive(tmp_path / "in.npz", {"x.npy": FINE})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(bytes(data))
    assert refusal(path) == "not a readable .npz file"


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda path: None, 66, "no such file"),
        (Path.mkdir, 66, "is not a file"),
        (os.mkfifo, 66, "is not a file"),
        (Path.touch, 65, "not a readable .npz file"),
        (lambda path: path.write_bytes(npy(np.zeros(3))), 65, "not a readable .npz file"),
    ],
    ids=["absent", "folder", "fifo", "empty", "npy"],
)
def test_what_is_no_archive(tmp_path: Path, make: Callable[[Path], Any], code: int, message: str) -> None:
    path = tmp_path / "in.npz"
    make(path)
    with pytest.raises(InputError) as caught:
        read_arrays(path, X)
    assert (str(caught.value), caught.value.exit_code) == (f"{path}: {message}", code)


def whole() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.arange(6, dtype=np.float32).reshape(2, 3))
    return stream.getvalue()


WHOLE = whole()


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_any_change_is_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]], cut: bool) -> None:
    data = bytearray(WHOLE)
    for position, value in changes:
        data[position] = value
    path = tmp_path / "in.npz"
    path.write_bytes(bytes(data[: changes[0][0]] if cut else data))
    tracemalloc.start()
    with limited():
        try:
            (array,) = read_arrays(path, X).values()
            assert (array.dtype, array.shape) == (np.float32, (2, 3))
        except InputError as error:
            assert error.exit_code == 65
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peak < 20 * 2**20
