"""The strict reader: agreement with the safetensors library on sound files, refusal of all others."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.runtime.errors import EXIT_DATA, EXIT_NO_INPUT, BundleError
from wanc.runtime.safetensors import HEADER_LIMIT, TENSOR_LIMIT, SafetensorsFile, TensorInfo, read_header, write

SOUND = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
    "empty": {"dtype": "I64", "shape": [0, 5], "data_offsets": [22, 22]},
}
SOUND_DATA = bytes(range(22))


def build(header: object, data: bytes = SOUND_DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_all(path: Path) -> dict[str, np.ndarray]:
    return dict(SafetensorsFile(path).items())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.safetensors"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file for all examples of a property."""
    return tmp_path_factory.mktemp("safetensors") / "weights.safetensors"


# --- Sound files ---


def test_offsets_are_absolute_and_in_file_order(path: Path) -> None:
    content = build(dict(reversed(SOUND.items())))
    path.write_bytes(content)
    start = len(content) - len(SOUND_DATA)
    header = read_header(path)
    assert header == {
        "a": TensorInfo("F32", (2, 2), start, 16),
        "b": TensorInfo("BF16", (3,), start + 16, 6),
        "empty": TensorInfo("I64", (0, 5), start + 22, 0),
    }
    assert list(header) == ["a", "b", "empty"]
    info = header["a"]
    assert content[info.offset : info.offset + info.length] == SOUND_DATA[:16]


def test_values_equal_the_safetensors_library(path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    dtypes = [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    ]
    tensors = {f"layer.{dtype}": (torch.randn(3, 5, generator=generator) * 50).to(dtype) for dtype in dtypes}
    tensors |= {"flag": torch.tensor([True, False]), "scalar": torch.tensor(2.5), "nothing": torch.zeros(0, 3)}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    ours = read_all(path)
    assert set(ours) == set(tensors)
    for name, tensor in tensors.items():
        assert ours[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(ours[name], tensor.numpy())


def test_bfloat16_is_widened_exactly(path: Path) -> None:
    every_pattern = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    safetensors.torch.save_file({"w": torch.from_numpy(every_pattern).view(torch.bfloat16)}, path)
    file = SafetensorsFile(path)
    np.testing.assert_array_equal(file.bits("w"), every_pattern)
    expected = every_pattern.view(ml_dtypes.bfloat16).astype(np.float32)
    assert file["w"].dtype == np.float32
    np.testing.assert_array_equal(file["w"], expected)


def test_arrays_are_views_of_the_file_and_read_only(path: Path) -> None:
    write(path, {"w": np.zeros(4, np.float32)})
    view = SafetensorsFile(path)["w"]
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write(struct.pack("<f", 7.0))
    assert view.tolist() == [0, 0, 0, 7]
    assert not view.flags.writeable


def test_an_unaligned_tensor_is_readable(path: Path) -> None:
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "f": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]},
    }
    path.write_bytes(build(header, b"\x01" + struct.pack("<f", 1.5)))
    assert SafetensorsFile(path)["f"].tolist() == [1.5]


def test_metadata_padding_and_a_file_without_tensors(path: Path) -> None:
    path.write_bytes(build(b'{"__metadata__":{"k":"v"}}      ', b""))
    assert read_header(path) == {}
    assert read_all(path) == {}


# --- The writer ---


def test_what_is_written_is_read_by_us_and_by_the_library(path: Path) -> None:
    generator = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {
        "z/latents": generator.standard_normal((2, 3), dtype=np.float32),
        "token_ids": np.array([1, -(2**62)], np.int64),
        "scalar": np.float32(3).reshape(()),
        "none": np.zeros((0, 4), np.float32),
        "transposed": generator.standard_normal((3, 4), dtype=np.float32).T,
    }
    write(path, tensors)
    for read in (read_all(path), safetensors.numpy.load_file(path)):
        assert set(read) == set(tensors)
        for name, array in tensors.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)
    assert all(info.offset % 8 == 0 for info in read_header(path).values() if info.dtype == "I64")


def test_writing_does_not_depend_on_the_order_of_the_tensors(path: Path, tmp_path: Path) -> None:
    tensors = {"b": np.ones(3, np.float32), "a": np.arange(2), "c": np.zeros(1, np.float32)}
    write(path, tensors)
    write(tmp_path / "other", dict(reversed(tensors.items())))
    assert path.read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize(
    ("name", "array"),
    [("w", np.zeros(1, complex)), ("w", np.zeros(1, ">f4")), ("", np.zeros(1, np.float32)), ("a b", np.arange(1))],
)
def test_the_writer_refuses_what_it_cannot_write(path: Path, name: str, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot write"):
        write(path, {name: array})
    assert not path.exists()


# --- Damaged and hostile files ---


def with_change(tensor: str = "a", **change: object) -> dict[str, Any]:
    return SOUND | {tensor: SOUND[tensor] | change}


def huge(count: int) -> bytes:
    return struct.pack("<Q", count) + b"{}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a header of 0 bytes in a file of 0"),
        (b"\x02\x00\x00", "in a file of 3"),
        (huge(2**63), "a header of 9223372036854775808 bytes in a file of 10"),
        (huge(2**64 - 1), "in a file of 10"),
        (huge(3), "a header of 3 bytes in a file of 10"),
        (huge(0), "does not start with '{'"),
        (build(b' {"a":1}', b""), "does not start with '{'"),
        (build(b"[]", b""), "does not start with '{'"),
        (build(b"{", b""), "not JSON"),
        (build(b"{}x", b""), "not JSON"),
        (build(b'{"\xff":1}', b""), "not UTF-8"),
        (build(b'{"a":' + b"[" * 10**5, b""), "nested deeper"),
        (build(b'{"a":NaN}', b""), "NaN"),
        (build(b'{"a":{},"a":{}}', b""), "duplicate key"),
        (build(b'{"a":{"dtype":"U8","dtype":"I8","shape":[],"data_offsets":[0,1]}}', b"1"), "duplicate key"),
        (build({"__metadata__": []}, b""), "__metadata__ is not a JSON object"),
        (build({"__metadata__": {"a": 1}}, b""), "other than strings"),
        (build({"a": 1}), "a is not a JSON object"),
        (build({"a": {}}), "a is not described by"),
        (build(with_change(extra=1)), "a is not described by"),
        (build({"": SOUND["a"]}), "a tensor is called ''"),
        (build({"a b": SOUND["a"]}), "a tensor is called 'a b'"),
        (build({"a\n": SOUND["a"]}), "a tensor is called"),
        (build({"é": SOUND["a"]}), "a tensor is called"),
        (build({"n" * 513: SOUND["a"]}), "a tensor is called"),
        (build(with_change(dtype="F8_E4M3")), "dtype 'F8_E4M3'; known are"),
        (build(with_change(dtype=["F32"])), "dtype"),
        (build(with_change(shape=4)), "the shape of a is not a list"),
        (build(with_change(shape=[1] * 9)), "the shape of a is not a list of at most 8"),
        (build(with_change(shape=[-2, -2])), "the shape of a holds -2"),
        (build(with_change(shape=[True, 4])), "the shape of a holds True"),
        (build(with_change(shape=[2.0, 2])), "the shape of a holds 2.0"),
        (build(with_change(shape=["2", 2])), "the shape of a holds 2"),
        (build(with_change(shape=[2**62, 4])), "beyond 2\\^53"),
        (build(with_change(shape=[2**32, 2**30])), "a has the shape"),
        (build(with_change("empty", shape=[0, 2**53, 2**53])), "empty has the shape"),
        (build(with_change(shape=[2, 3])), "a takes 24 bytes, and its data_offsets are \\[0, 16\\]"),
        (build(with_change(data_offsets=[16, 0])), "a takes 16 bytes"),
        (build(with_change(data_offsets=[0])), "a takes 16 bytes"),
        (build(with_change(data_offsets=[0, 16, 16])), "a takes 16 bytes"),
        (build(with_change(data_offsets=[-8, 8])), "data_offsets of a holds -8"),
        (build(with_change(data_offsets=[2**63, 2**63 + 16])), "beyond 2\\^53"),
        (build(with_change(data_offsets=[4, 20])), "starts at byte"),
        (build(with_change("b", data_offsets=[14, 20])), "starts at byte"),
        (build(with_change("b", data_offsets=[0, 6])), "starts at byte"),
        (build(SOUND, SOUND_DATA[:-1]), "the tensors end at byte"),
        (build(SOUND, SOUND_DATA + b"\0"), "the tensors end at byte"),
        (build({}, b"\0"), "the tensors end at byte"),
    ],
)
def test_a_file_that_breaks_the_format_is_refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        SafetensorsFile(path)
    assert caught.value.exit_code == EXIT_DATA
    assert str(caught.value.where).startswith(str(path))


def test_every_truncation_is_refused(path: Path) -> None:
    content = build(SOUND)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(BundleError):
            SafetensorsFile(path)


def test_the_header_may_be_as_long_as_the_limit_and_no_longer(path: Path) -> None:
    path.write_bytes(build(b"{}".ljust(HEADER_LIMIT), b""))
    assert read_header(path) == {}
    path.write_bytes(build(b"{}".ljust(HEADER_LIMIT + 1), b""))
    with pytest.raises(BundleError, match="the limit is 25000000"):
        read_header(path)


@pytest.mark.slow
def test_the_number_of_tensors_is_limited(path: Path) -> None:
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    path.write_bytes(build({str(index): entry for index in range(TENSOR_LIMIT)}, b""))
    assert len(read_header(path)) == TENSOR_LIMIT
    path.write_bytes(build({str(index): entry for index in range(TENSOR_LIMIT + 1)}, b""))
    with pytest.raises(BundleError, match="100001 tensors"):
        read_header(path)


def test_a_name_may_be_as_long_as_the_limit_and_no_longer(path: Path) -> None:
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    path.write_bytes(build({"n" * 512: entry}, b""))
    assert list(read_header(path)) == ["n" * 512]
    path.write_bytes(build({"n" * 513: entry}, b""))
    with pytest.raises(BundleError, match="a tensor is called"):
        read_header(path)


def test_a_shape_may_have_as_many_dimensions_as_the_limit_and_no_more(path: Path) -> None:
    path.write_bytes(build({"w": {"dtype": "U8", "shape": [1] * 8, "data_offsets": [0, 1]}}, b"\0"))
    assert read_header(path)["w"].shape == (1,) * 8
    path.write_bytes(build({"w": {"dtype": "U8", "shape": [1] * 9, "data_offsets": [0, 1]}}, b"\0"))
    with pytest.raises(BundleError, match="the shape of w is not a list of at most 8 numbers"):
        read_header(path)


def test_a_missing_file_and_a_directory_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file") as caught:
        read_header(tmp_path / "absent")
    assert caught.value.exit_code == EXIT_NO_INPUT
    with pytest.raises(BundleError, match="cannot be read"):
        read_header(tmp_path)


def test_an_unknown_name_is_a_key_error(path: Path) -> None:
    path.write_bytes(build(SOUND))
    with pytest.raises(KeyError):
        SafetensorsFile(path)["c"]


def check_refused_or_sound(path: Path, content: bytes) -> None:
    """The property of all hostile inputs: a BundleError, or arrays that the safetensors library reads alike."""
    path.write_bytes(content)
    try:
        ours = read_all(path)
    except BundleError:
        return
    with safetensors.safe_open(path, framework="pt") as theirs:
        assert set(theirs.keys()) == set(ours)
        for name, array in ours.items():
            tensor = theirs.get_tensor(name)
            tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
            np.testing.assert_array_equal(array, tensor.numpy())


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 6, 16, 22, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, -1, True, 1.5, None, "2"]
)
VALUES = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, max_size=4),
    st.sampled_from(["F32", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "", "\ud800", {}, {"a": 1}]),
)
FIELDS = st.sampled_from(["dtype", "shape", "data_offsets", "other"])
CHANGES = st.lists(st.tuples(st.sampled_from([*SOUND, "../c", "__metadata__"]), FIELDS, VALUES), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(changes=CHANGES)
def test_any_change_of_the_header_is_refused_or_sound(scratch: Path, changes: list[tuple[str, str, Any]]) -> None:
    header: dict[str, dict[str, Any]] = {name: dict(entry) for name, entry in SOUND.items()}
    for name, field, value in changes:
        header.setdefault(name, {})[field] = value
    check_refused_or_sound(scratch, build(header))


@settings(max_examples=400, deadline=None)
@given(position=st.integers(0, len(build(SOUND)) - 1), patch=st.binary(min_size=1, max_size=8))
def test_any_patch_of_the_bytes_is_refused_or_sound(scratch: Path, position: int, patch: bytes) -> None:
    content = build(SOUND)
    check_refused_or_sound(scratch, (content[:position] + patch + content[position + len(patch) :])[: len(content)])


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=64))
def test_any_bytes_are_refused_or_sound(scratch: Path, content: bytes) -> None:
    check_refused_or_sound(scratch, content)


@settings(max_examples=100, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text("abcxyz019._/-", min_size=1, max_size=12),
        st.tuples(st.sampled_from([np.float32, np.int64]), st.lists(st.integers(0, 4), max_size=4)),
        max_size=6,
    )
)
def test_written_files_round_trip(scratch: Path, tensors: dict[str, tuple[type, list[int]]]) -> None:
    arrays = {
        name: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        for name, (dtype, shape) in tensors.items()
    }
    write(scratch, arrays)
    read = read_all(scratch)
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
