"""What the runtime reads besides its manifest: any damage is refused or harmless, quickly and in little memory."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.checkpoints import tokenizer
from tests.cost import assert_read_or_refused
from wanc.runtime.embeddings import EmbeddingTable
from wanc.runtime.errors import BundleError, UserError
from wanc.runtime.noise import load_latents
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.text import Tokenizer

fuzz = settings(
    derandomize=True, deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def changes(content: bytes) -> st.SearchStrategy[bytes]:
    """`content` with up to four places replaced, cut out or added to."""
    edit = st.tuples(st.integers(0, len(content)), st.integers(0, 12), st.binary(max_size=6))

    def changed(edits: list[tuple[int, int, bytes]]) -> bytes:
        result = content
        for start, length, new in edits:
            result = result[:start] + new + result[start + length :]
        return result

    return st.lists(edit, min_size=1, max_size=4).map(changed)


# .npy files of latents


def npy(header: str, values: bytes = b"") -> bytes:
    """A file of the format 1.0 with any header."""
    padded = header.encode("latin-1") + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + values


def described(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


LATENTS = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
FOUR = b"\0" * 4


@settings(fuzz)
@given(content=changes(saved(LATENTS)) | st.binary(max_size=100) | st.text(max_size=60).map(str.encode))
@example(content=npy(described("(274877906944,)"), FOUR))  # 1 TiB
@example(content=npy(described("(99999999999999999999999,)"), FOUR))
@example(content=npy(described("(0, 4611686018427387904, 8)")))
@example(content=npy(described("(-1,)"), FOUR))
@example(content=npy(described("(True,)"), FOUR))
@example(content=npy(described("('a',)"), FOUR))
@example(content=npy(described("(100000000000,)", "'V0'")))
@example(content=npy(described("(1,)", "'O'"), FOUR))
@example(content=npy(described("(1,)", "[('a', '<f4')]"), FOUR))
@example(content=npy("{[]: 1}"))
@example(content=npy("(" * 900))
@example(content=b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1))
def test_any_latents(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "noise.npy"
    path.write_bytes(content)

    def read() -> None:
        latents = load_latents(path)
        assert latents.nbytes <= len(content)
        np.testing.assert_array_equal(latents, np.load(path, allow_pickle=False))

    assert_read_or_refused(read)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_latents_are_read_as_numpy_reads_them(order: str, dtype: str, tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", np.asarray(LATENTS, dtype=dtype, order=order))
    read = load_latents(tmp_path / "noise.npy")
    assert (read.dtype, read.shape) == (np.dtype(dtype), LATENTS.shape)
    np.testing.assert_array_equal(read, LATENTS.astype(dtype))


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "noise.npy")
    with pytest.raises(UserError, match=r"not a \.npy file of latents"):
        load_latents(tmp_path / "noise.npy")


# tokenizer.json


@pytest.fixture(scope="module")
def definition() -> bytes:
    return tokenizer(16).backend_tokenizer.to_str().encode()


def open_and_use(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)

    def read() -> None:
        ids = Tokenizer.open(folder, 16).encode("a red circle 红色 é")
        assert ids.dtype == np.int64
        assert ids.ndim == 1

    assert_read_or_refused(read)


@settings(fuzz)
@given(data=st.data())
def test_any_damage_to_a_tokenizer(data: st.DataObject, definition: bytes, tmp_path: Path) -> None:
    open_and_use(tmp_path, data.draw(changes(definition)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(fuzz)
@given(data=st.data())
def test_any_other_value_in_a_tokenizer(data: st.DataObject, definition: bytes, tmp_path: Path) -> None:
    document = json.loads(definition)
    place = document
    for _ in range(data.draw(st.integers(0, 4))):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(place[key], dict | list) and place[key]):
            break
        place = place[key]
    keys = list(place) if isinstance(place, dict) else range(len(place))
    place[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    open_and_use(tmp_path, json.dumps(document).encode())


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, '"' + "x" * 10**6], ids=["lists", "maps", "text"]
)
def test_a_deep_or_long_tokenizer(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleError, match="not a tokenizer definition"):
        Tokenizer.open(tmp_path, 16)


# embedding tables


def table(entry: object, values: bytes) -> bytes:
    header = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(header)) + header + values


SOUND = table({"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}, bytes(range(48)))
IDS = np.array([2, 0, 0, 1], np.int64)


@settings(fuzz)
@given(content=changes(SOUND) | st.binary(max_size=100))
@example(content=table({"dtype": "F32", "shape": [2**19, 2**19], "data_offsets": [0, 2**40]}, FOUR))
@example(content=table({"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 4]}, FOUR))
@example(content=table({"dtype": "BF16", "shape": [0, 4], "data_offsets": [0, 0]}, b""))
@example(content=table({"dtype": "F32", "shape": [4, 0], "data_offsets": [0, 0]}, b""))
def test_any_embedding_table(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "embedding.safetensors"
    path.write_bytes(content)

    def read() -> None:
        embeddings = EmbeddingTable.open(path, "w")
        assert embeddings.gather(IDS).shape == (4, embeddings.width)

    assert_read_or_refused(read)


# safetensors: what costs most


BOMBS: dict[str, Callable[[], bytes]] = {
    "a header longer than allowed": lambda: struct.pack("<Q", 25_000_001) + b" " * 25_000_001,
    "a header of spaces": lambda: struct.pack("<Q", 10**6) + b" " * 10**6,
    "deep lists": lambda: struct.pack("<Q", 10**5) + b"[" * 10**5,
    "a long number": lambda: struct.pack("<Q", 10**5) + b"9" * 10**5,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_little(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(BOMBS[bomb]())
    refusal = assert_read_or_refused(lambda: SafetensorsFile(path))
    assert refusal is not None
