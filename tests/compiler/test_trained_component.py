"""Decisions of training in a component's graphs: where it changes nothing, nothing changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wanc.calibration.decision import Decision, read_decisions, write_decisions
from wanc.calibration.weights import sqnr_db
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.program.quant_table import QuantTable
from wanc.compiler.quantize.component import Keep
from wanc.compiler.quantize.trained_component import write_trained

from . import transformer
from .fusing import files_of
from .transformer import KEEP, FloatDenoiser, make, sample

Quantised = tuple[ProgramComponent, QuantTable, Path]


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


@pytest.fixture(scope="module", params=["int8", "int4-weight"])
def quantised(
    request: pytest.FixtureRequest, denoiser: FloatDenoiser, tmp_path_factory: pytest.TempPathFactory
) -> Quantised:
    """One Linear stays in float by what it does, so that it is not among the decisions."""
    out = tmp_path_factory.mktemp("quantised") / "out"
    out.mkdir()
    component, table = transformer.quantised(
        denoiser,
        out,
        request.param,
        keep=Keep(KEEP, max_drop_db=3.0),
        observer="absmax",
        decisions=out / "decisions.safetensors",
    )
    table.write(out)
    return component, table, out


def trained(
    denoiser: FloatDenoiser, quantised: Quantised, decisions: dict[str, Decision], out: Path
) -> tuple[ProgramComponent, QuantTable]:
    out.mkdir()
    return write_trained(denoiser.files, files_of(quantised[2]), decisions, KEEP, out)


def test_decisions_come_back_as_they_were_written(quantised: Quantised, tmp_path: Path) -> None:
    path = quantised[2] / "decisions.safetensors"
    decisions = read_decisions(path)
    assert decisions.keys() == quantised[1].quantized.keys()
    write_decisions(tmp_path / "again.safetensors", decisions)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_untrained_decisions_give_the_same_component(
    denoiser: FloatDenoiser, quantised: Quantised, tmp_path: Path
) -> None:
    component, table, out = quantised
    decisions = read_decisions(out / "decisions.safetensors")
    again, again_table = trained(denoiser, quantised, decisions, tmp_path / "out")
    assert again.graphs == component.graphs
    feeds = sample(9)
    one = denoiser.followed_by(component, out).velocity(feeds, tmp_path / "one")
    two = denoiser.followed_by(again, tmp_path / "out").velocity(feeds, tmp_path / "two")
    # Divisors are stored as float32, and so was what the weights were divided by.
    assert sqnr_db(two, one) > 100
    assert (again_table.method, again_table.samples) == ("qat", table.samples)
    for name, entry in table.linears.items():
        found = again_table.linears[name]
        assert replace(found, sqnr_db=entry.sqnr_db) == entry
        assert entry.sqnr_db is None or found.sqnr_db == pytest.approx(entry.sqnr_db, abs=0.01)


def test_other_codes_are_built_and_measured(denoiser: FloatDenoiser, quantised: Quantised, tmp_path: Path) -> None:
    component, _, out = quantised
    decisions = read_decisions(out / "decisions.safetensors")
    name = next(iter(decisions))
    codes = decisions[name].codes
    decisions[name] = replace(decisions[name], codes=replace(codes, values=np.zeros_like(codes.values)))
    again, again_table = trained(denoiser, quantised, decisions, tmp_path / "out")
    assert again_table.linears[name].sqnr_db == pytest.approx(0, abs=1e-6)
    feeds = sample(9)
    one = denoiser.followed_by(component, out).velocity(feeds, tmp_path / "one")
    two = denoiser.followed_by(again, tmp_path / "out").velocity(feeds, tmp_path / "two")
    assert sqnr_db(two, one) < 40
