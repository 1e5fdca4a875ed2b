"""What lowering for GPUs costs: the graphs that engines are built of, on states that calibration has not seen."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from wanc.compiler.engines.tensorrt_rtx.build import BINDINGS

pytest.importorskip("diffusers", reason="a checkpoint is exported with diffusers, an extra")

from scripts import lowered_tiny_wan
from scripts.lowered_tiny_wan import Measured, means, measure
from wanc.compiler.quantize.experts import EXPERTS

BF16_DB, LOST_DB = 38, 3
"""The least that bfloat16 may leave, and the most that an INT8 program may lose by being lowered."""


@pytest.mark.long
@pytest.mark.timeout(3600)  # minutes of processor time, on a machine that may do much else
@pytest.mark.skipif(importlib.util.find_spec(BINDINGS) is None, reason="TensorRT-RTX is not installed")
def test_lowering_costs_little(tiny_bundle: Path, tmp_path: Path) -> None:
    """What is computed goes through the store of `tiny_bundle`, in which bundles for GPUs are built as well."""
    measured = Measured(tiny_bundle.parents[1] / "store")
    assert [len(states) for states in measured.states.values()] == [8, 8]
    found = means(measure(measured, tmp_path))
    for expert in EXPERTS:
        assert found["bf16"][expert]["lowered"] >= BF16_DB
        int8 = found["int8"][expert]
        assert int8["lowered"] >= int8["program"] - LOST_DB
        # Coarser than INT8, and far from noise: nothing here is left out or rounded twice.
        assert int8["program"] > found["fp8"][expert]["program"] > found["fp8-attention"][expert]["lowered"] > 20


def test_the_report_has_a_row_for_every_variant_and_expert() -> None:
    figures = {
        "bf16": {"denoiser_high": {"lowered": [40.0, 42.0]}},
        "int8": {"denoiser_high": {"lowered": [35.0], "program": [36.0]}},
    }
    page = lowered_tiny_wan.report(figures)
    assert "the mean of 2 states" in page
    assert "| bf16 | denoiser_high | | 41.0 |" in page
    assert "| int8 | denoiser_high | 36.0 | 35.0 |" in page
