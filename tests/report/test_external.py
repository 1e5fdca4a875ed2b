"""Scores from outside: what is read of VBench's file, what is refused, and the gates about them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, UserError
from wanc.recipe.gates import Demand, gate_fault, gate_hint
from wanc.recipe.gates_file import read_gates
from wanc.recipe.load import load
from wanc.report.document import GateResult, ReportedBundle
from wanc.report.external import read_scores
from wanc.report.gates import Judge
from wanc.runtime.strict_json import MAX_BYTES

from ..conftest import Wanc
from .example import OTHER, entry

VIDEOS = [{"video_path": "videos/a-0.mp4", "video_results": 0.91}, {"video_path": "b-0.mp4", "video_results": True}]
SCORES = {"subject_consistency": [0.95, VIDEOS], "imaging_quality": [0.6, VIDEOS], "dynamic_degree": [0.5432, VIDEOS]}


def written(folder: Path, values: object) -> Path:
    path = folder / "wan_eval_results.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), "utf-8")
    return path


def test_the_means_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, SCORES)
    found = read_scores(path)
    assert found.dimensions == {name: mean for name, (mean, _) in SCORES.items()}
    assert found.mean_percent == pytest.approx(69.7733333, rel=1e-8)
    assert (found.source, found.sha256) == (path.name, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "it has 0 dimensions"),
        ({f"d{number}": [0.5, VIDEOS] for number in range(65)}, "it has 65 dimensions"),
        ([SCORES], "must be an object, not a list"),
        ('{"color": [NaN, []]}', "NaN is not JSON"),
        ('{"color": [1e999, []]}', "number 1e999 is not finite"),
        ('{"color": [0.5, []], "color": [0.6, []]}', "duplicate key 'color'"),
        ("", "not JSON"),
        (" " * (MAX_BYTES + 1), "bytes of JSON, more than"),
        ({"color": [1.01, VIDEOS]}, "'color' has a mean of 1.01, which is not between 0 and 1"),
        ({"color": [-0.01, VIDEOS]}, "'color' has a mean of -0.01"),
        ({"color": [True, VIDEOS]}, "'color' has a mean that is no number"),
        ({"color": ["0.5", VIDEOS]}, "'color' has a mean that is no number"),
        ({"color": [None, VIDEOS]}, "'color' has a mean that is no number"),
        ({"color": 0.5}, "'color' has to be a list of its mean and of its videos"),
        ({"color": [0.5]}, "'color' has to be a list of its mean and of its videos"),
        ({"color": [0.5, []]}, "'color' has no videos"),
        ({"color": [0.5, {}]}, "'color' has no videos"),
        ({"color": [0.5, [{"video_path": "a"}]]}, "'color' has a video without video_path and video_results"),
        ({"color": [0.5, [1]]}, "'color' has a video without video_path and video_results"),
        ({"mean": [0.5, VIDEOS]}, "'mean' is no dimension's name"),
        ({"<b>": [0.5, VIDEOS]}, "'<b>' is no dimension's name"),
    ],
)
def test_what_is_no_file_of_scores(values: object, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, values)
    with pytest.raises(UserError) as caught:
        read_scores(path)
    assert reason in caught.value.message and caught.value.exit_code == EXIT_DATA
    assert (caught.value.where or "").startswith(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_scores(tmp_path / "nowhere.json")
    assert caught.value.exit_code == EXIT_NO_INPUT


# Gates


def judged(name: str, demand: str, tmp_path: Path, scores: dict[str, Any] | None = SCORES) -> GateResult:
    found: ReportedBundle = entry(OTHER, 1.0, 1e-3, 1.0)
    if scores is not None:
        found = found.model_copy(update={"external": read_scores(written(tmp_path, scores))})
    return next(result for result in Judge(found, None, ()).judge({name: demand}) if result.name == name)


@pytest.mark.parametrize(
    ("name", "demand", "outcome"),
    [
        ("external.mean", ">= 69.7733", "pass"),
        ("external.mean", ">= 69.7752", "regression"),
        ("external.imaging_quality", ">= 0.6", "pass"),
        ("external.imaging_quality", ">= 0.601", "regression"),
        ("external.dynamic_degree", "<= 0.6", "pass"),
    ],
)
def test_gates_on_scores(name: str, demand: str, outcome: str, tmp_path: Path) -> None:
    assert judged(name, demand, tmp_path).outcome == outcome


def test_a_mean_that_is_just_below_is_told_to_all_its_digits(tmp_path: Path) -> None:
    found = judged("external.mean", ">= 69.7752", tmp_path)
    assert (found.reason, found.unit, found.kind) == ("69.7733 is not >= 69.7752", "percent", "quality")


def test_without_scores_nothing_is_known(tmp_path: Path) -> None:
    found = judged("external.mean", ">= 69.7752", tmp_path, None)
    assert found.outcome == "needs-calibration" and "--scores FILE" in found.reason
    found = judged("external.imaging_qualty", ">= 0.5", tmp_path)
    assert found.outcome == "needs-calibration" and found.value is None
    assert found.reason == "wan_eval_results.json has no imaging_qualty; did you mean external.imaging_quality?"


@pytest.mark.parametrize(
    ("name", "demand", "reason"),
    [
        ("external.mean", ">= 1 baseline", "has no baseline"),
        ("external.color", "<= 3 floors", "has no floors"),
        ("external.color", ">= 69", "between 0 and 1"),
        ("external.mean", ">= 101", "between 0 and 100 percent"),
    ],
)
def test_demands_that_make_no_sense(name: str, demand: str, reason: str) -> None:
    assert reason in (gate_fault(name, Demand.parse(demand)) or "")


def test_names_of_gates(tmp_path: Path) -> None:
    assert gate_hint("external.color") is None
    assert gate_hint("extern.mean") == "did you mean external.mean?"
    path = tmp_path / "gates.yaml"
    path.write_text('external.mean: ">= 69.7752"\nexternal.color: ">= 0.8"\n')
    assert read_gates(path) == {"external.mean": ">= 69.7752", "external.color": ">= 0.8"}


def test_scores_are_read_before_anything_is_made(
    wanc: Wanc, tiny_bundle: Path, evaluated: Path, tmp_path: Path
) -> None:
    path = written(tmp_path, {"color": [2, VIDEOS]})
    done = wanc("report", tiny_bundle, "--recipe", evaluated, "--scores", path, "-o", tmp_path / "out")
    assert (done.code, done.out) == (EXIT_DATA, "") and "'color' has a mean of 2" in done.err
    assert not (tmp_path / "out").exists()


def test_a_recipe_may_demand_scores(evaluated: Path) -> None:
    (loaded,) = load(evaluated, ["evaluate.gates={external.mean: '>= 69.7752'}"])
    assert loaded.recipe.evaluate and loaded.recipe.evaluate.gates == {"external.mean": ">= 69.7752"}


@pytest.mark.slow
def test_gates_of_a_file_in_a_whole_report(
    wanc: Wanc, tiny_bundle: Path, evaluated: Path, record: object, tmp_path: Path
) -> None:
    """They stand in place of the recipe's; the mean just misses MLPerf's target."""
    del record
    gates = tmp_path / "gates.yaml"
    gates.write_text('external.mean: ">= 69.7752"\nexternal.color: ">= 0.8"\n')
    arguments = ("report", tiny_bundle, "--recipe", evaluated, "--store", tiny_bundle.parents[1] / "store", "--quick")
    scored = ("--gates", gates, "--scores", written(tmp_path, SCORES), "--set", 'evaluate.gates={psnr_db: ">= 99"}')
    done = wanc(*arguments, *scored, "-o", tmp_path / "out", "--json")
    assert done.code == 1, done.err
    document = json.loads(done.out)
    (new,) = document["bundles"]
    assert new["external"]["mean_percent"] == pytest.approx(69.7733, rel=1e-6) and new["facts"]["build_seconds"] > 0
    outcomes = {gate["name"]: gate["outcome"] for gate in document["gates"] if gate["kind"] == "quality"}
    assert outcomes == {"external.mean": "regression", "external.color": "needs-calibration"}
