"""Planted faults: each turns a gate red, none of another kind, and the report names where it begins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from wanc.compiler.make_reference import make_reference
from wanc.compiler.pipeline import build
from wanc.compiler.quantize import experts
from wanc.compiler.quantize.quantize import Quantize
from wanc.recipe.load import load
from wanc.report.document import ReportDocument
from wanc.report.make import ReportRequest, make_report
from wanc.report.reference import ReferenceRecord
from wanc.report.unfinished import Unfinished
from wanc.runtime.pipeline import Pipeline

from . import planted
from .unsmoothed import WithoutSmoothing

Array = np.ndarray[Any, Any]
Plant = Callable[[Path, Path], Path]
LAYER = "blocks.2.attn1.to_v"


def reported(
    new: Path, baseline: Path, record: ReferenceRecord, unfinished: Unfinished | None = None, pairs: int = 0
) -> ReportDocument:
    request = ReportRequest(
        "tiny-wan", [new], [], baseline, record, "tiny-wan", {}, pairs, unfinished=unfinished, threads=1
    )
    return make_report(request, progress=False).report


def scaled(bundle: Path, copy: Path) -> Path:
    return planted.with_weight(bundle, copy, "denoiser_low", f"{LAYER}.weight", lambda weight: weight * 1.02)


def one_place_off(bundle: Path, copy: Path) -> Path:
    """Every weight of a Linear in the last place, as other orders of summation are."""

    def edit(weight: Array) -> Array:
        up = np.random.default_rng(0).integers(0, 2, weight.shape).astype(bool)
        return np.where(up, np.nextafter(weight, np.inf), np.nextafter(weight, -np.inf))

    return planted.with_weight(bundle, copy, "denoiser_high", f"{LAYER}.weight", edit)


def other_guidance(bundle: Path, copy: Path) -> Path:
    return planted.with_runtime(bundle, copy, "sampling", "guidance", "low", value=2.0)


FAULTS: dict[str, tuple[Plant, str, tuple[str, str]]] = {
    "scaled": (scaled, "block_error", ("layer", f"denoiser_low/{LAYER}")),
    "exchanged experts": (planted.with_experts_exchanged, "velocity_error", ("expert", "denoiser_high")),
    "other guidance": (other_guidance, "velocity_error", ("guidance", "denoiser_low")),
    "dropped frame": (planted.with_a_frame_dropped, "repeated_frames", ("phase", "decode")),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_its_cause_named(
    fault: str, tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished, tmp_path: Path
) -> None:
    plant, gate, cause = FAULTS[fault]
    report = reported(plant(tiny_bundle, tmp_path / "new"), tiny_bundle, record, measured)
    failed = {result.name: result.kind for result in report.gates if result.outcome == "regression"}
    assert report.verdict.outcome == "regression" and gate in failed
    assert set(failed.values()) == {"quality"}
    assert report.notes[-1].endswith(f": wanc report bisect new --baseline {report.baseline}")
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == cause


@pytest.fixture(scope="module")
def int8(tiny_recipe: Path, tiny_bundle: Path) -> Callable[[str], Path]:
    """tiny-wan in INT8, calibrated on two clips, by what its keep patterns are."""

    def make(patterns: str) -> Path:
        prompts = ROOT / "recipes" / "prompts" / "tiny-wan-calibrate.txt"
        calibrate = f"{{prompts: {prompts}, clips: 2}}"
        quantize = f"quantize={{scheme: int8, calibrate: {calibrate}, keep: {{patterns: {patterns}}}}}"
        (loaded,) = load(tiny_recipe, [f"name=int8-{len(patterns)}", quantize])
        return build(loaded, tiny_bundle.parents[1], progress=False).bundle

    return make


@pytest.mark.slow
def test_guidance_that_is_exchanged_between_the_experts_is_named(
    evaluated: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    guided = ["name=guided", "sampling.guidance={high: 5.0, low: 2.0}", "evaluate.clips=1"]
    (loaded,) = load(evaluated, guided)
    output = tiny_bundle.parents[1]
    baseline = build(loaded, output, progress=False).bundle
    record = ReferenceRecord.read(*make_reference(loaded, output / "store", progress=False))
    new = planted.with_runtime(baseline, tmp_path / "new", "sampling", "guidance", value={"high": 2.0, "low": 5.0})
    report = reported(new, baseline, record)
    failed = {result.name: result.kind for result in report.gates if result.outcome == "regression"}
    assert "velocity_error" in failed and set(failed.values()) == {"quality"}
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == ("guidance", "denoiser_high")


UNSMOOTHED = "blocks.1.attn2.to_out.0"
ENDS = "patch_embedding, condition_embedder.*, proj_out"


@pytest.mark.slow
def test_a_layer_that_was_left_in_float_is_named(
    int8: Callable[[str], Path], record: ReferenceRecord, measured: Unfinished
) -> None:
    """It is closer to the reference, and no gate of quality has anything against it."""
    baseline, new = int8(f"[{ENDS}]"), int8(f"[{ENDS}, denoiser_low/{LAYER}]")
    report = reported(new, baseline, record, measured)
    failed = {result.name: result.kind for result in report.gates if result.outcome == "regression"}
    assert failed == {"int8_linear_share": "size"}
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == ("layer", f"denoiser_low/{LAYER}")
    assert found.detail == "int8, smoothed in the baseline, float in the new bundle"


@pytest.mark.slow
def test_a_scale_in_int8_that_is_off_is_found(
    int8: Callable[[str], Path], record: ReferenceRecord, measured: Unfinished, tmp_path: Path
) -> None:
    baseline = int8(f"[{ENDS}]")
    scales = f"{LAYER}.weight.scales"
    new = planted.with_weight(baseline, tmp_path / "new", "denoiser_low", scales, lambda scale: scale * 1.02)
    report = reported(new, baseline, record, measured)
    failed = {result.name: result.kind for result in report.gates if result.outcome == "regression"}
    assert "block_error" in failed and set(failed.values()) == {"quality"}
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == ("layer", f"denoiser_low/{LAYER}")


@pytest.mark.slow
def test_a_group_that_is_not_smoothed_is_named(
    int8: Callable[[str], Path], record: ReferenceRecord, measured: Unfinished, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = int8(f"[{ENDS}]")

    def quantize(**fields: Any) -> Quantize:
        linear = UNSMOOTHED if fields["component"] == "denoiser_low" else ""
        return WithoutSmoothing(**fields, linear=linear)

    monkeypatch.setattr(experts, "Quantize", quantize)
    new = int8(f"[{ENDS}, condition_embedder]")
    report = reported(new, baseline, record, measured)
    failed = {result.name: result.kind for result in report.gates if result.outcome == "regression"}
    assert "block_error" in failed and set(failed.values()) == {"quality"}
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == ("layer", f"denoiser_low/{UNSMOOTHED}")
    assert found.detail == "int8, smoothed in the baseline, int8 in the new bundle"


@pytest.mark.slow
def test_a_change_in_the_last_place_is_none(
    tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished, tmp_path: Path
) -> None:
    report = reported(one_place_off(tiny_bundle, tmp_path / "new"), tiny_bundle, record, measured)
    assert {result.outcome for result in report.gates} == {"pass"}
    assert report.verdict.outcome == "pass" and report.verdict.cause is None


EXPERTS = ("denoiser_high", "denoiser_low")
CHANGES = (planted.with_a_gelu_one_place_off, planted.with_another_order_of_summation)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expert"),
    [
        *zip(CHANGES, EXPERTS, strict=True),
        *(pytest.param(*case, marks=pytest.mark.long) for case in zip(CHANGES, EXPERTS[::-1], strict=True)),
    ],
)
def test_rounding_otherwise_is_no_regression_in_any_block(
    change: Callable[[Path, Path, str, int], Path],
    expert: str,
    tiny_bundle: Path,
    record: ReferenceRecord,
    measured: Unfinished,
    tmp_path: Path,
) -> None:
    """20 of 20: one GELU, or the order in which one Linear adds up, in each of five blocks of two experts."""
    new = [change(tiny_bundle, tmp_path / str(block), expert, block) for block in range(5)]
    request = ReportRequest("tiny-wan", new, [], tiny_bundle, record, "tiny-wan", {}, 0, unfinished=measured, threads=1)
    report = make_report(request, progress=False).report
    assert {entry.facts.id for entry in report.bundles[:5]}.isdisjoint({report.bundles[5].facts.id})
    assert all(entry.quality and entry.quality.steps != report.bundles[5].quality.steps for entry in report.bundles[:5])
    judged = {result.bundle for result in report.gates}
    assert judged == {str(block) for block in range(5)}
    assert {(result.name, result.outcome) for result in report.gates if result.outcome != "pass"} == set()
    assert report.verdict.outcome == "pass" and report.verdict.cause is None


@pytest.mark.slow
def test_a_bundle_is_no_worse_than_itself(tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished) -> None:
    report = reported(tiny_bundle, tiny_bundle, record, measured, pairs=20)
    assert [entry.name for entry in report.bundles] == ["tiny-wan", "tiny-wan (2)"]
    assert {result.outcome for result in report.gates if result.kind != "speed"} == {"pass"}
    (ratio,) = report.bundles[0].ratios
    assert ratio.pairs == 20 and 0.5 < ratio.ratio < 2
    assert {"open", "text", "first_step", "decode", "total", "step"} <= report.bundles[0].speed.phases.keys()


@pytest.mark.slow
@pytest.mark.long
def test_steps_that_are_slower_are_found_and_nothing_else_is(
    tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished, tmp_path: Path
) -> None:
    """By about 5 %, in 240 pairs; the videos are the same to the bit."""
    report = reported(
        planted.with_more_work(tiny_bundle, tmp_path / "new", 2), tiny_bundle, record, measured, pairs=240
    )
    failed = {result.name: result.kind for result in report.gates if result.outcome == "regression"}
    (ratio,) = report.bundles[0].ratios
    assert "step_seconds" in failed, ratio
    assert set(failed.values()) == {"speed"} and ratio.pairs == 240 and ratio.low > 1
    found = report.verdict.cause
    assert found is not None and found.kind == "phase" and "step" in found.name


Frames = Callable[[Array], Array]


def slowed(frames: Array) -> Array:
    """At six tenths of its speed, with frames blended."""
    times = 0.6 * np.arange(len(frames))
    before, share = times.astype(int), (times % 1)[:, None, None, None]
    after = np.minimum(before + 1, len(frames) - 1)
    return np.rint((1 - share) * frames[before] + share * frames[after]).astype(np.uint8)


def paler(frames: Array) -> Array:
    """With less contrast, by as much as a slow video is off."""
    off = np.mean((slowed(frames).astype(np.float64) - frames) ** 2)
    grey = 128.0 - frames
    return np.rint(frames + np.sqrt(off / np.mean(grey**2)) * grey).astype(np.uint8)


@pytest.fixture
def shown_otherwise(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Frames], None]:
    """`shown_otherwise(name, change)`: what bundles in a folder of that name decode is changed."""
    changes: dict[str, Frames] = {}
    decode = Pipeline.decode

    def changed(self: Pipeline, *arguments: Any, **options: Any) -> Any:
        chunks = decode(self, *arguments, **options)
        change = changes.get(Path(self.bundle.folder.shown("x")).parent.name)
        return chunks if change is None else iter([change(np.concatenate([chunk.copy() for chunk in chunks]))])

    monkeypatch.setattr(Pipeline, "decode", changed)
    return changes.__setitem__


@pytest.mark.slow
def test_slow_motion_is_found_where_psnr_says_nothing(
    shown_otherwise: Callable[[str, Frames], None], tiny_bundle: Path, record: ReferenceRecord, tmp_path: Path
) -> None:
    """Beside a baseline that is as far from the reference in another way."""
    new, baseline = (Path(shutil.copytree(tiny_bundle, tmp_path / name)) for name in ("slow", "pale"))
    shown_otherwise("slow", slowed)
    shown_otherwise("pale", paler)
    report = reported(new, baseline, record)
    mine, theirs = (entry.quality.summary["psnr_db"].mean for entry in report.bundles if entry.quality)
    assert abs(mine - theirs) < 0.5, "equal, but for whole grey levels"
    outcomes = {result.name: result.outcome for result in report.gates}
    assert (outcomes["psnr_db"], outcomes["motion_ratio"]) == ("pass", "regression")
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == ("phase", "decode")
