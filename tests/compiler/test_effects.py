"""What quantising one Linear does to the result, measured piece by piece, and what is kept for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wanc.compiler.graphs.quantizers import StoredDecision
from wanc.compiler.host.chain import Chain
from wanc.compiler.program.quant_table import FLOAT
from wanc.compiler.quantize.component import Keep
from wanc.compiler.quantize.decisions import Settings, decide
from wanc.compiler.quantize.effects import measure_effects
from wanc.compiler.quantize.linear_groups import choose
from wanc.compiler.quantize.quantized_graphs import QuantizedGraphs
from wanc.compiler.weights.finite import FiniteCheck

from .transformer import KEEP, NAME, FloatDenoiser, make, quantised, sample, samples

WIDE = 2**30


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> FloatDenoiser:
    return make(tmp_path_factory.mktemp("denoiser"))


Decisions = tuple[dict[str, StoredDecision], dict[str, Path]]
"""Of every Linear alone, and where their codes lie."""


def decided(denoiser: FloatDenoiser, folder: Path, alpha: str) -> Decisions:
    model, (chained, scratch, out) = denoiser.whole(), (folder / name for name in ("chain", "scratch", "out"))
    for path in (chained, scratch, out):
        path.mkdir()
    choice = choose(model, NAME, KEEP)
    taps = [group.name for group in choice.groups]
    chain = Chain(model, denoiser.weights, chained, FiniteCheck(NAME), taps=taps)
    with QuantizedGraphs(denoiser.files, choice, "int8", out) as graphs:
        settings = Settings("int8", "mse", alpha)
        decide(chain, choice.groups, samples(), settings, graphs.weight_of, scratch, graphs.add)
        return graphs.alone(), {**denoiser.weights, **graphs.codes()}


@pytest.fixture(scope="module")
def decisions(denoiser: FloatDenoiser, tmp_path_factory: pytest.TempPathFactory) -> Decisions:
    return decided(denoiser, tmp_path_factory.mktemp("decisions"), "search")


def effects(
    denoiser: FloatDenoiser,
    decisions: Decisions,
    folder: Path,
    *,
    most_weight_bytes: int = WIDE,
    names: set[str] | None = None,
    weights: tuple[float, ...] = (1.0, 1.0),
) -> dict[str, float]:
    folder.mkdir()
    chosen, files = decisions
    chain = Chain(denoiser.whole(), files, folder, FiniteCheck(NAME), most_weight_bytes=most_weight_bytes)
    asked = {name: decision for name, decision in chosen.items() if names is None or name in names}
    return measure_effects(chain, asked, [sample(0), sample(1)], weights)


def test_in_one_piece_it_is_the_error_of_the_result(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    name = "blocks.1.attn1.to_q"
    alone = decided(denoiser, tmp_path, "none")
    found = effects(denoiser, alone, tmp_path / "one", names={name})
    (tmp_path / "quantised").mkdir()
    others = (*KEEP, *(other for other in alone[0] if other != name))
    component, table = quantised(denoiser, tmp_path / "quantised", alpha="none", keep=others)
    assert list(table.quantized) == [name]
    made = denoiser.followed_by(component, tmp_path / "quantised")
    errors = [
        np.square(made.velocity(sample(number), tmp_path / f"run-{number}") - denoiser.expected(sample(number))).mean()
        for number in (0, 1)
    ]
    assert found[name] == pytest.approx(float(np.mean(errors)), rel=1e-3)


def test_smoothing_stands_in_front_of_a_linear_that_is_alone(
    denoiser: FloatDenoiser, decisions: Decisions, tmp_path: Path
) -> None:
    """Without what its input is divided by, its codes would stand for other weights."""
    name = "blocks.1.attn1.to_q"
    smoothed = effects(denoiser, decisions, tmp_path / "smoothed", names={name})[name]
    spoilt = ({name: replace(decisions[0][name], divisors=None)}, decisions[1])
    assert decisions[0][name].divisors is not None
    assert effects(denoiser, spoilt, tmp_path / "spoilt")[name] > 30 * smoothed


def test_several_pieces_estimate_the_same(denoiser: FloatDenoiser, decisions: Decisions, tmp_path: Path) -> None:
    whole = effects(denoiser, decisions, tmp_path / "whole")
    cut = effects(denoiser, decisions, tmp_path / "cut", most_weight_bytes=30_000)
    assert whole.keys() == cut.keys() == decisions[0].keys()
    ratios = np.array([cut[name] / whole[name] for name in whole])
    # Errors of one place fare alike, not equally: within a factor of four each, and within a quarter on the whole.
    assert ((ratios > 0.25) & (ratios < 4)).all(), dict(zip(whole, ratios.round(2), strict=True))
    assert np.exp(np.log(ratios).mean()) == pytest.approx(1, rel=0.25)


def test_a_sample_counts_as_much_as_its_error_does(
    denoiser: FloatDenoiser, decisions: Decisions, tmp_path: Path
) -> None:
    names = {"blocks.0.ffn.down"}
    first, second, both = (
        effects(denoiser, decisions, tmp_path / str(weights), names=names, weights=weights)["blocks.0.ffn.down"]
        for weights in ((1.0, 0.0), (0.0, 1.0), (3.0, 2.0))
    )
    assert both == pytest.approx(3 * first + 2 * second, rel=1e-5)


def test_what_a_rule_keeps_is_float_and_says_why(denoiser: FloatDenoiser, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    component, table = quantised(denoiser, out, keep=Keep(KEEP, int8_share=0.6), observer="absmax")
    kept = {name: entry for name, entry in table.linears.items() if "worst" in entry.reason}
    assert kept and all(entry.scheme == FLOAT and entry.effect for entry in kept.values())
    assert sum(entry.flops_share for entry in table.quantized.values()) >= 0.6
    assert min(entry.effect / entry.flops_share for entry in kept.values() if entry.effect) > 0
    made = denoiser.followed_by(component, out)
    unseen = sample(9)
    error = made.velocity(unseen, tmp_path / "run") - denoiser.expected(unseen)
    everything = tmp_path / "everything"
    everything.mkdir()
    worse = denoiser.followed_by(quantised(denoiser, everything)[0], everything)
    assert (
        np.square(error).sum() < np.square(worse.velocity(unseen, tmp_path / "worse") - denoiser.expected(unseen)).sum()
    )
