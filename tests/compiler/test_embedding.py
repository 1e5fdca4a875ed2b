"""The text encoder's table on its way into a bundle: the same bytes, and refused where it is damaged."""

from __future__ import annotations

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
