"""What was computed at build time: found by the inputs' values, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wanc.runtime import safetensors
from wanc.runtime.errors import BundleError
from wanc.runtime.golden import tensor_name
from wanc.runtime.interface import Input, Interface, Output
from wanc.runtime.tables import Table

INTERFACE = Interface(
    (Input("timestep", (1,), "build", "expert"), Input("scale", (1,), "build", "expert")),
    (Output("blocks.0:gate", (1, 2)), Output("shift", ())),
)
ROWS = {
    "timestep": np.array([[999], [500], [500]], np.float32),
    "scale": np.array([[1], [1], [2]], np.float32),
    "blocks.0:gate": np.arange(6, dtype=np.float32).reshape(3, 1, 2),
    "shift": np.array([0.5, 0.25, 0.125], np.float32),
}


def write(path: Path, rows: dict[str, np.ndarray]) -> Path:
    safetensors.write(path, {tensor_name("denoiser", "time", name): array for name, array in rows.items()})
    return path


def given(timestep: float, scale: float) -> dict[str, np.ndarray]:
    return {"timestep": np.array([timestep], np.float32), "scale": np.array([scale], np.float32)}


@pytest.mark.parametrize(("timestep", "scale", "row"), [(999, 1, 0), (500, 1, 1), (500, 2, 2)])
def test_a_row_is_found_by_all_inputs(tmp_path: Path, timestep: float, scale: float, row: int) -> None:
    table = Table(write(tmp_path / "t.safetensors", ROWS), "denoiser", "time", INTERFACE)
    # What else is known at that time does not matter.
    found = table.find(given(timestep, scale) | {"latents": np.zeros(3, np.float32)})
    assert found is not None and found.keys() == {"blocks.0:gate", "shift"}
    np.testing.assert_array_equal(found["blocks.0:gate"], ROWS["blocks.0:gate"][row])
    assert found["shift"].shape == () and found["shift"] == ROWS["shift"][row]


@pytest.mark.parametrize(("timestep", "scale"), [(999, 2), (500.00003, 1), (1, 999)])
def test_other_inputs_are_not_found(tmp_path: Path, timestep: float, scale: float) -> None:
    table = Table(write(tmp_path / "t.safetensors", ROWS), "denoiser", "time", INTERFACE)
    assert table.find(given(timestep, scale)) is None


@pytest.mark.parametrize(
    "change",
    [{"shift": None}, {"other": ROWS["shift"]}, {"shift": ROWS["shift"][:2]}, {"shift": np.float32(1)}],
    ids=["an output is missing", "one too many", "too few rows", "no rows"],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, change: dict) -> None:
    rows = {name: np.asarray(array) for name, array in (ROWS | change).items() if array is not None}
    with pytest.raises(BundleError, match="no table of denoiser/time"):
        Table(write(tmp_path / "t.safetensors", rows), "denoiser", "time", INTERFACE)
