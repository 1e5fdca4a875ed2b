"""Rows gathered from a table on disk, against the whole table in memory."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from scripts.true_scale.disk import PAGE, cached_bytes, put_out
from wanc.runtime.embeddings import EmbeddingTable
from wanc.runtime.errors import EXIT_NO_INPUT, BundleError


@pytest.mark.parametrize(("dtype", "item_bytes"), [(torch.float32, 4), (torch.float16, 2), (torch.bfloat16, 2)])
def test_rows_equal_a_lookup_in_torch(tmp_path: Path, dtype: torch.dtype, item_bytes: int) -> None:
    path = tmp_path / "embeddings.safetensors"
    table = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    safetensors.torch.save_file({"other": torch.zeros(3), "shared.weight": table}, path)
    ids = np.array([49, 0, 7, 7, 1], np.int64)

    embeddings = EmbeddingTable.open(path, tensor="shared.weight")
    rows = embeddings.gather(ids)

    assert (embeddings.vocabulary, embeddings.width) == (50, 8)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, torch.nn.functional.embedding(torch.from_numpy(ids), table).float().numpy())
    assert embeddings.bytes_read == 5 * 8 * item_bytes
    embeddings.gather(ids[:2])
    assert embeddings.bytes_read == 7 * 8 * item_bytes
    assert embeddings.gather(ids[:0]).shape == (0, 8)


def test_of_a_large_table_little_more_than_the_rows_is_read(tmp_path: Path) -> None:
    """From disk: the system would read many pages ahead of each, and half of all of the table."""
    path, count = tmp_path / "embeddings.safetensors", 64
    safetensors.torch.save_file({"w": torch.zeros(2**14, 512)}, path)
    put_out([path])
    if cached_bytes(path):
        pytest.skip("this file system keeps files in memory")
    rows = EmbeddingTable.open(path, tensor="w").gather(np.random.default_rng(0).choice(2**14, count, replace=False))
    assert rows.nbytes <= cached_bytes(path) <= count * (rows[0].nbytes + 2 * PAGE) + 2**19


def test_rows_may_be_changed_without_changing_the_table(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2, 2)}, path)
    embeddings = EmbeddingTable.open(path, tensor="w")
    embeddings.gather(np.array([0]))[:] = 9
    assert embeddings.gather(np.array([0])).tolist() == [[1, 1]]


def test_the_table_is_never_loaded(tmp_path: Path) -> None:
    """A table of umT5-xxl's size, all holes, so that it takes no disk."""
    path = tmp_path / "embeddings.safetensors"
    vocabulary, width = 256_384, 4096
    size = vocabulary * width * 2
    header = json.dumps({"w": {"dtype": "BF16", "shape": [vocabulary, width], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    before = resident_bytes()
    embeddings = EmbeddingTable.open(path, tensor="w")
    rows = embeddings.gather(np.arange(0, vocabulary, vocabulary // 511))
    assert rows.shape == (512, width)
    # The rows are 4 MiB stored, 8 as float32, and 8 more while they are widened. Reading ahead would show as 30 more.
    assert resident_bytes() - before < 32 * 2**20
    assert embeddings.bytes_read == 512 * width * 2


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("ids", [[-1], [0, 50], [2**40]])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path, ids: list[int]) -> None:
    path = tmp_path / "embeddings.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(50, 4)}, path)
    with pytest.raises(BundleError, match="for a table of 50 rows") as caught:
        EmbeddingTable.open(path, tensor="w").gather(np.array(ids))
    assert caught.value.hint is not None


def test_a_tensor_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.safetensors"
    safetensors.torch.save_file({"vector": torch.zeros(4), "ids": torch.zeros(2, 2, dtype=torch.int64)}, path)
    with pytest.raises(BundleError, match="no tensor w"):
        EmbeddingTable.open(path, tensor="w")
    with pytest.raises(BundleError, match=r"vector is F32 \[4\], not an embedding table"):
        EmbeddingTable.open(path, tensor="vector")
    with pytest.raises(BundleError, match="ids is I64"):
        EmbeddingTable.open(path, tensor="ids")


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        EmbeddingTable.open(tmp_path / "absent.safetensors", tensor="w")
    assert caught.value.exit_code == EXIT_NO_INPUT
