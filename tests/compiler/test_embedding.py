"""The text encoder's table on its way into a bundle: the same bytes, and refused where it is damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from wanc.compiler.weights import embedding
from wanc.compiler.weights.embedding import copy_embedding
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import CheckpointError, render
from wanc.models.weights import Weight
from wanc.runtime.safetensors import SafetensorsFile

ROWS, WIDTH = 40, 8


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the table takes several."""
    monkeypatch.setattr(embedding, "COPY_BYTES", 64)


def stored(folder: Path, table: np.ndarray) -> tuple[Weight, dict[str, Path]]:
    path = folder / "model.safetensors"
    path.write_bytes(b"header  " + table.tobytes() + b"what comes after")
    return Weight("model.safetensors", 8, table.nbytes, "BFLOAT16", table.shape), {"model.safetensors": path}


@pytest.fixture
def table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(ml_dtypes.bfloat16)


def test_the_bytes_are_the_same(tmp_path: Path, table: np.ndarray) -> None:
    weight, source = stored(tmp_path, table)
    copied = copy_embedding(weight, source, tmp_path / "out.safetensors", FiniteCheck("text_encoder"))
    assert (copied.dtype, copied.shape, copied.length) == ("BFLOAT16", (ROWS, WIDTH), table.nbytes)
    data = (tmp_path / "out.safetensors").read_bytes()
    assert data[copied.offset : copied.offset + copied.length] == table.tobytes()
    assert len(data) == copied.offset + copied.length
    assert set(SafetensorsFile(tmp_path / "out.safetensors")) == {"embedding"}


@pytest.mark.parametrize("place", [(0, 0), (ROWS // 2, 3), (ROWS - 1, WIDTH - 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(tmp_path: Path, table: np.ndarray, place: tuple[int, int], value: float) -> None:
    table[place] = value
    weight, source = stored(tmp_path, table)
    with pytest.raises(CheckpointError) as caught:
        copy_embedding(weight, source, tmp_path / "out.safetensors", FiniteCheck("text_encoder"))
    assert render(caught.value) == (
        f"error: {tmp_path}/model.safetensors: text_encoder: tensor shared.weight holds 1 value that is not finite\n"
        "hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [shared.weight]"
    )
    allowed = FiniteCheck("text_encoder", ["shared.weight"])
    copy_embedding(weight, source, tmp_path / "out.safetensors", allowed)
    assert allowed.found == {"shared.weight": 1}


def test_a_table_of_zeros_is_refused(tmp_path: Path, table: np.ndarray) -> None:
    weight, source = stored(tmp_path, np.zeros_like(table))
    with pytest.raises(CheckpointError, match=r"text_encoder: tensor shared\.weight is nothing but zeros"):
        copy_embedding(weight, source, tmp_path / "out.safetensors", FiniteCheck("text_encoder", zeros=()))
    allowed = FiniteCheck("text_encoder", zeros=("shared.weight",))
    copy_embedding(weight, source, tmp_path / "out.safetensors", allowed)


@pytest.mark.parametrize("place", [0, ROWS * WIDTH * 2 - 1])
def test_a_table_that_is_another_one_under_its_second_name(tmp_path: Path, table: np.ndarray, place: int) -> None:
    weight, source = stored(tmp_path, table)
    twin = replace(weight, file="twin.safetensors")
    data = bytearray(source[weight.file].read_bytes())
    source[twin.file] = tmp_path / twin.file
    source[twin.file].write_bytes(data)
    copy_embedding(weight, source, tmp_path / "out.safetensors", FiniteCheck("text_encoder"), twin)
    data[8 + place] ^= 1
    source[twin.file].write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        copy_embedding(weight, source, tmp_path / "out.safetensors", FiniteCheck("text_encoder"), twin)
    assert render(caught.value) == (
        f"error: {tmp_path}/twin.safetensors: text_encoder: encoder.embed_tokens.weight and shared.weight are one "
        "tensor under two names, and differ\nhint: remove the one that the text encoder was not trained with"
    )
