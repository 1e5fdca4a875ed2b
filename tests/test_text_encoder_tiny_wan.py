"""What quantising the text encoder costs: text states of prompts that calibration has not seen, by both engines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="a checkpoint is exported with diffusers, an extra")

from scripts import text_encoder_tiny_wan
from scripts.text_encoder_tiny_wan import NAME, PROMPTS, built, measure
from scripts.tiny_wan.evaluation import cases

from .conftest import ROOT

SOME = 48
AGAIN_DB = 1.0
"""Of means: another processor rounds otherwise now and then."""


@pytest.mark.long
def test_the_report_comes_out_again(tiny_bundle: Path, tmp_path: Path) -> None:
    """What is computed goes through the store of `tiny_bundle`."""
    kept = json.loads((ROOT / "docs" / "results" / f"{NAME}.json").read_bytes())["db"]
    found = measure(built(tiny_bundle.parents[1] / "store"), [case.prompt for case in cases(PROMPTS)][:SOME], tmp_path)
    assert found.keys() == kept.keys()
    for name, db in found.items():
        assert float(np.mean(db)) == pytest.approx(float(np.mean(kept[name][:SOME])), abs=AGAIN_DB)


def test_the_report_has_a_row_for_every_variant() -> None:
    page = text_encoder_tiny_wan.report({"int8": [35.0, 37.0], "int8-weight": [46.0, 48.0]})
    assert "text states of 2 held-out prompts" in page
    assert "| int8 | 36.0 | 35.1 | 35.0 |" in page
    assert "| int8-weight | 47.0 | 46.1 | 46.0 |" in page
