"""What a report comes to where there is no result: said so, and never a pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.report.document import EXIT_CODES, ReportDocument, read
from wanc.report.make import ReportRequest, make_report
from wanc.report.reference import ReferenceRecord
from wanc.report.subject import Subject
from wanc.report.unfinished import Unfinished

from ..conftest import Wanc

GATES = {"psnr_db": ">= 30"}


def reported(
    new: Path,
    record: ReferenceRecord,
    baseline: Path | None = None,
    unfinished: Unfinished | None = None,
    gates: Mapping[str, str] = GATES,
) -> ReportDocument:
    request = ReportRequest(
        "tiny-wan", [new], [], baseline, record, "tiny-wan", gates, 0, unfinished=unfinished, threads=1
    )
    return make_report(request, progress=False).report


@pytest.fixture(scope="module")
def other_steps(tiny_recipe: Path, tiny_bundle: Path) -> Path:
    (loaded,) = load(tiny_recipe, ["name=other-steps", "sampling.steps=10"])
    return build(loaded, tiny_bundle.parents[1], progress=False).bundle


def test_a_bundle_that_samples_otherwise_is_not_comparable(other_steps: Path, record: ReferenceRecord) -> None:
    report = reported(other_steps, record)
    assert report.verdict.outcome == "not-comparable"
    assert "it samples in 10 steps from" in report.verdict.summary
    assert report.bundles[0].quality is None and report.bundles[0].failure


def test_a_bundle_that_was_tampered_with_is_not_run(tiny_bundle: Path, record: ReferenceRecord, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    (copy / "run.py").chmod(0o644)
    (copy / "run.py").write_bytes(b"# no\n")
    report = reported(copy, record)
    assert report.verdict.outcome == "infrastructure-error"
    (gate,) = report.gates
    assert gate.outcome == "infrastructure-error" and EXIT_CODES[gate.outcome] == 70


@pytest.mark.slow
def test_a_baseline_that_is_missing_is_told(
    tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished, tmp_path: Path
) -> None:
    report = reported(tiny_bundle, record, tmp_path / "nowhere", measured)
    assert report.bundles[1].failure and str(tmp_path / "nowhere") in report.bundles[1].failure
    assert {gate.outcome for gate in report.gates} == {"pass"}, "what is absolute holds by itself"


@pytest.mark.slow
def test_a_demand_that_is_not_met(tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished) -> None:
    report = reported(tiny_bundle, record, unfinished=measured, gates={"psnr_db": ">= 99.9"})
    assert report.verdict.outcome == "regression" and "psnr_db" in report.verdict.summary
    assert not any("bisect" in note for note in report.notes), "there is nothing to compare it with"


def test_what_an_open_bundle_says_of_itself(tiny_bundle: Path) -> None:
    subject = Subject.open(tiny_bundle, "new")
    assert (subject.recipe, subject.facts.engine, subject.facts.scheme) == ("tiny-wan", "onnxruntime", "none")
    assert (
        subject.facts.size_bytes
        == sum(path.stat().st_size for path in tiny_bundle.rglob("*") if path.is_file())
        - (tiny_bundle / "manifest.json").stat().st_size
    )
    assert {name: len(ends) for name, ends in subject.block_ends.items()} == {
        "denoiser_high": 4,
        "denoiser_low": 4,
    }
    assert len(subject.timesteps) == 20


@pytest.mark.slow
def test_the_report_of_a_build(wanc: Wanc, evaluated: Path, tmp_path: Path) -> None:
    """Two variants, one of which does what it should not: the build ends with their report, and its verdict."""
    recipe = tmp_path / "matrix.yaml"
    recipe.write_text(
        f"extends: {evaluated}\nname: two\nmatrix:\n  fp32: {{}}\n  int8:\n    quantize: {{scheme: int8, "
        f"calibrate: {{prompts: {evaluated.parent / 'evaluate.txt'}, clips: 2}}}}\n"
    )
    done = wanc("build", recipe, "-o", tmp_path / "out", "--json", "--set", 'evaluate.gates={psnr_db: ">= 60"}')
    assert done.code == 1, done.err
    pages = {entry["report"] for entry in json.loads(done.out)}
    assert pages == {str(tmp_path / "out/reports/matrix/index.html")}
    report = read(tmp_path / "out/reports/matrix/report.json")
    assert report.baseline == "two-fp32" and [entry.name for entry in report.bundles] == ["two-int8", "two-fp32"]
    assert report.verdict.outcome == "regression" and report.bundles[0].facts.scheme == "int8"
    speed = report.bundles[0].speed
    assert speed is not None and len(speed.phases["step"].seconds) == 20 and speed.memory
    text = (tmp_path / "out/reports/matrix/index.html").read_text("utf-8")
    assert "two-int8 may not ship" in text and "data:video/mp4" in text
