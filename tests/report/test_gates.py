"""What is demanded of a bundle: how it is written, and what comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.errors import RecipeError
from wanc.recipe.gates import GATES, Demand, gate_fault
from wanc.recipe.load import load
from wanc.report.document import (
    BlockError,
    Estimate,
    Facts,
    Floor,
    GateResult,
    Quality,
    Ratio,
    ReportedBundle,
    Speed,
    Times,
)
from wanc.report.gates import DEFAULTS, Judge, distance
from wanc.report.metrics.video import METRICS
from wanc.report.verdict import SEVERITY, verdict

FACTS = Facts(
    id="sha256:0",
    version="0.1.0",
    engine="onnxruntime",
    compute="fp32",
    scheme="int8",
    segments=1,
    size_bytes=1000,
    int8_linear_share={"denoiser_high": 0.99, "denoiser_low": 0.99, "vae_decoder": 0.0},
    schemes={},
)


def quality(**values: float) -> Quality:
    blocks = [BlockError(step=0, expert="denoiser_high", block=0, error=values.pop("block", 1e-3))]
    return Quality(
        steps=[],
        blocks=blocks,
        drift=[],
        videos=[],
        summary={name: Estimate(mean=value, low=value, high=value, count=1) for name, value in values.items()},
        invariants=[],
        worst_layers=[],
        worst_frames=[],
    )


def times(seconds: float) -> Times:
    return Times(seconds=[seconds], median=seconds, low=seconds, high=seconds)


def entry(name: str = "new", ratio: tuple[float, float, float] | None = None, **values: float) -> ReportedBundle:
    seconds = values.pop("seconds", 1.0)
    phases = {"total": times(seconds), "step denoiser_high": times(seconds), "step denoiser_low": times(seconds / 2)}
    pairs = [Ratio(phase="step", ratio=ratio[0], low=ratio[1], high=ratio[2], pairs=200)] if ratio else []
    speed = Speed(phases=phases, videos_per_hour=1, peak_rss_bytes=100)
    return ReportedBundle(name=name, recipe="r", facts=FACTS, quality=quality(**values), speed=speed, ratios=pairs)


def floor(**values: float) -> Floor:
    return Floor(unit="fp32", draws=2, velocity_error=1e-6, drift=[], summary=quality(**values).summary)


def judged(
    name: str, demand: str, new: ReportedBundle, baseline: ReportedBundle | None = None, floors: tuple[Floor, ...] = ()
) -> GateResult:
    (result,) = Judge(new, baseline, floors).judge({name: demand})
    return result


# Demands


@given(st.sampled_from([">=", "<="]), st.floats(0, 1e6), st.sampled_from(["", " baseline", " floors", " floor"]))
def test_a_demand_is_read_as_it_is_written(sign: str, number: float, of: str) -> None:
    demand = Demand.parse(f"{sign} {number!r}{of}")
    assert (demand.is_least, demand.number) == (sign == ">=", number)
    assert demand.of == {"": "value", " baseline": "baseline"}.get(of, "floors")


@given(st.text(max_size=20))
def test_anything_else_is_refused(text: str) -> None:
    try:
        demand = Demand.parse(text)
    except ValueError as error:
        assert str(error) == f"{text!r} is no demand"
    else:
        assert demand.text == text.strip() and text.strip()[:2] in (">=", "<=")


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ("{psnr: '>= 30'}", "'psnr' is no gate"),
        ("{psnr_db: '30'}", "'30' is no demand"),
        ("{psnr_db: '= 30'}", "'= 30' is no demand"),
        ("{step_seconds: '<= 2 floors'}", "cannot be judged"),
        ("{psnr_db: '>= 1 baseline'}", "cannot be judged"),
        ("{block_error: '<= 0.01'}", "cannot be judged"),
        ("{step_speedup: '>= 1 baseline'}", "cannot be judged"),
    ],
)
def test_a_recipe_s_gates_make_sense(gates: str, message: str, evaluated: object) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load(evaluated, [f"evaluate.gates={gates}"])  # pyright: ignore[reportArgumentType]
    assert caught.value.hint


def test_what_is_demanded_where_nobody_says_otherwise_makes_sense() -> None:
    for name, text in DEFAULTS.items():
        assert gate_fault(name, Demand.parse(text)) is None
    assert METRICS.keys() <= GATES.keys()


# Outcomes


def test_an_absolute_demand() -> None:
    assert judged("psnr_db", ">= 30", entry(psnr_db=30.0)).outcome == "pass"
    failed = judged("psnr_db", ">= 30", entry(psnr_db=29.9))
    assert (failed.outcome, failed.value, failed.bound) == ("regression", 29.9, 30.0)
    assert failed.reason == "29.9 is not >= 30"


@pytest.mark.parametrize(("decibels", "outcome"), [(40.0, "pass"), (38.1, "pass"), (37.9, "regression")])
def test_multiples_of_the_baseline_are_of_the_distance(decibels: float, outcome: str) -> None:
    """1.25 times the error is 1.94 dB less."""
    found = judged("psnr_db", "<= 1.25 baseline", entry(psnr_db=decibels), entry("old", psnr_db=40.0))
    assert found.outcome == outcome


def test_what_is_no_larger_than_the_floor_is_no_distance() -> None:
    """One rounding error more or less: twice the baseline's, and nothing."""
    new, old = entry(velocity_error=2e-6), entry("old", velocity_error=1e-6)
    assert judged("velocity_error", "<= 1.05 baseline", new, old, (floor(velocity_error=2e-6),)).outcome == "pass"
    coarse = entry(velocity_error=2e-3), entry("old", velocity_error=1e-3)
    assert judged("velocity_error", "<= 1.05 baseline", *coarse, (floor(velocity_error=2e-6),)).outcome == "regression"


def test_multiples_of_the_floor() -> None:
    known = (floor(vmaf=99.0),)
    assert judged("vmaf", "<= 3 floors", entry(vmaf=97.1), None, known).outcome == "pass"
    assert judged("vmaf", "<= 3 floors", entry(vmaf=96.9), None, known).outcome == "regression"
    uncertain = judged("vmaf", "<= 3 floors", entry(vmaf=97.0))
    assert uncertain.outcome == "needs-calibration" and "evaluate.draws" in uncertain.reason


def test_the_worst_block_decides() -> None:
    known = (floor(velocity_error=0.0),)
    assert judged("block_error", "<= 1.05 baseline", entry(block=1.0e-3), entry("old"), known).outcome == "pass"
    assert judged("block_error", "<= 1.05 baseline", entry(block=1.1e-3), entry("old"), known).outcome == "regression"


@pytest.mark.parametrize(
    ("ratio", "outcome"),
    [((1.0, 0.99, 1.01), "pass"), ((1.05, 1.04, 1.06), "regression"), ((1.05, 0.98, 1.12), "pass")],
)
def test_a_step_is_slower_only_where_that_is_sure(ratio: tuple[float, float, float], outcome: str) -> None:
    assert judged("step_seconds", "<= 1.03 baseline", entry(ratio=ratio), entry("old")).outcome == outcome


def test_a_step_is_faster_by_the_ratio() -> None:
    assert judged("step_speedup", ">= 1.25", entry(ratio=(0.8, 0.79, 0.81)), entry("old")).outcome == "pass"
    assert judged("step_speedup", ">= 1.25", entry(ratio=(0.9, 0.89, 0.91)), entry("old")).outcome == "regression"


def test_times_and_sizes() -> None:
    new, old = entry(seconds=1.2), entry("old", seconds=1.0)
    assert judged("total_seconds", "<= 1.1 baseline", new, old).outcome == "regression"
    assert judged("total_seconds", "<= 1.3 baseline", new, old).outcome == "pass"
    assert judged("size_bytes", "<= 900", new).outcome == "regression"
    lighter = new.model_copy(
        update={"facts": FACTS.model_copy(update={"int8_linear_share": {"denoiser_high": 0.99, "denoiser_low": 0.96}})}
    )
    assert judged("int8_linear_share", ">= 1 baseline", new, old).outcome == "pass"
    assert judged("int8_linear_share", ">= 1 baseline", lighter, old).outcome == "regression"


def test_without_a_baseline_nothing_is_compared_with_it() -> None:
    assert Judge(entry(psnr_db=40.0), None, ()).judge({"psnr_db": "<= 1 baseline", "step_speedup": ">= 1"}) == []


def test_what_was_not_measured_is_no_regression() -> None:
    broken = ReportedBundle(name="new", recipe="r", facts=FACTS, failure="error: the engine fails")
    found = judged("psnr_db", ">= 30", broken)
    assert (found.outcome, found.reason) == ("infrastructure-error", "error: the engine fails")
    against = judged("psnr_db", "<= 1 baseline", entry(psnr_db=40.0), broken)
    assert against.outcome == "not-comparable"


def agreed(demand: str, new: ReportedBundle, baseline: ReportedBundle | None = None, detector: str = "") -> GateResult:
    """With a floor by which a change in the last place moves the agreement by a tenth."""
    judge = Judge(new, baseline, (floor(prompt_agreement=0.9),), detector or None)
    (result,) = judge.judge({"prompt_agreement": demand})
    return result


def test_agreement_with_the_prompt() -> None:
    assert agreed(">= 0.9", entry(prompt_agreement=0.95)).outcome == "pass"
    failed = agreed(">= 0.9", entry(prompt_agreement=0.85))
    assert (failed.outcome, failed.kind, failed.unit) == ("regression", "quality", "share")
    old = entry("old", prompt_agreement=0.8)
    assert agreed("<= 1.5 baseline", entry(prompt_agreement=0.61), old).outcome == "pass", (
        "1.5 × 0.2, and the floor's 0.1"
    )
    assert agreed("<= 1.5 baseline", entry(prompt_agreement=0.59), old).outcome == "regression"


def test_agreement_that_nothing_measures_is_neither_a_pass_nor_a_fault() -> None:
    for demand, baseline in ((">= 0.9", None), ("<= 1.05 baseline", entry("old"))):
        found = agreed(demand, entry(), baseline)
        assert found.outcome == "needs-calibration"
        assert found.reason == "the model card names no detector that wanc knows"
        found = agreed(demand, entry(), baseline, detector="moving-shapes")
        assert found.outcome == "needs-calibration"
        assert found.reason == "no prompt names anything that moving-shapes knows"


# Verdicts


def test_the_worst_gate_is_the_verdict() -> None:
    result = judged("psnr_db", ">= 30", entry(psnr_db=29.0))
    for place, outcome in enumerate(SEVERITY):
        gates = [result.model_copy(update={"outcome": one}) for one in SEVERITY[place:]]
        found = verdict("new", gates, None)
        assert found.outcome == outcome and "new" in found.summary
    assert verdict("new", [], None).outcome == "pass"


def test_distances_grow_with_the_error() -> None:
    for name, metric in METRICS.items():
        assert distance(name, metric.identical) <= 1e-5, name
        assert distance(name, metric.identical - 10) > distance(name, metric.identical - 1), name
    assert distance("velocity_error", 0.5) == 0.5


def test_what_whole_grey_levels_bring_is_no_change() -> None:
    """The baseline is better by chance, and the floor was measured by chance to be nothing."""
    new, baseline = entry(motion_ratio=1.006, psnr_db=82.0), entry(motion_ratio=1.0, psnr_db=100.0)
    for name in ("motion_ratio", "psnr_db"):
        assert (
            judged(name, "<= 1.5 baseline", new, baseline, (floor(motion_ratio=1.0, psnr_db=100.0),)).outcome == "pass"
        )
    worse = entry(motion_ratio=1.02, psnr_db=75.0)
    for name in ("motion_ratio", "psnr_db"):
        assert judged(name, "<= 1.5 baseline", worse, baseline).outcome == "regression"


def test_a_floor_that_goes_both_ways_is_no_small_one() -> None:
    both = floor(motion_ratio=1.0)
    both.summary["motion_ratio"] = Estimate(mean=1.0, low=0.95, high=1.05, count=2)
    new, baseline = entry(motion_ratio=0.96), entry(motion_ratio=1.0)
    assert judged("motion_ratio", "<= 1.5 baseline", new, baseline, (both,)).outcome == "pass"
    assert judged("motion_ratio", "<= 1 floors", new, baseline, (both,)).outcome == "pass"
    assert judged("motion_ratio", "<= 1.5 baseline", new, baseline).outcome == "regression"


def test_one_clip_that_is_slower_does_not_make_up_for_one_that_is_faster() -> None:
    new, baseline = entry(motion_ratio=1.0), entry(motion_ratio=1.0)
    for one, ratios in ((new, (0.7, 1.3)), (baseline, (1.0, 1.0))):
        assert one.quality is not None
        one.quality.videos.extend({"motion_ratio": ratio} for ratio in ratios)
    assert judged("motion_ratio", "<= 1.5 baseline", new, baseline).outcome == "regression"
