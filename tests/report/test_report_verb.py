"""`wanc report`: what it refuses before it works, and what it says at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wanc.report.make import ReportRequest, make_report
from wanc.report.reference import ReferenceRecord
from wanc.report.unfinished import Unfinished

from ..conftest import Wanc


@pytest.mark.parametrize(("path", "reason"), [("nowhere", "there is no such bundle"), ("file", "is no bundle")])
@pytest.mark.parametrize("place", ["new", "other", "baseline"])
def test_what_is_no_bundle(
    place: str, path: str, reason: str, wanc: Wanc, tiny_bundle: Path, evaluated: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("wanc: 1\n")
    wrong = tmp_path / path
    bundles = {"new": [wrong], "other": [tiny_bundle, wrong], "baseline": [tiny_bundle, "--baseline", wrong]}[place]
    done = wanc("report", *bundles, "--recipe", evaluated, "-o", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {wrong}: {reason}\nhint: ")
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_anything_to_report_on(wanc: Wanc, tiny_bundle: Path, tmp_path: Path) -> None:
    """The bundle's own, which the store beside it knows."""
    done = wanc("report", tiny_bundle, "-o", tmp_path / "out")
    assert done.code == 2 and "tiny-wan.yaml: the recipe does not say what its report is about" in done.err
    assert "hint: add a line such as `evaluate: {prompts: prompts.txt}`" in done.err


def test_the_recipe_of_a_bundle_from_elsewhere_has_to_be_said(wanc: Wanc, tiny_bundle: Path, tmp_path: Path) -> None:
    done = wanc("report", tiny_bundle, "--store", tmp_path / "store", "-o", tmp_path / "out")
    assert done.code == 2 and "hint: say it: --recipe RECIPE" in done.err


@pytest.mark.slow
def test_a_quick_report(wanc: Wanc, tiny_bundle: Path, evaluated: Path, record: object, tmp_path: Path) -> None:
    """No times; the reference that the store has already."""
    del record
    arguments = ("report", tiny_bundle, "--recipe", evaluated, "--store", tiny_bundle.parents[1] / "store", "--quick")
    done = wanc(*arguments, "-o", tmp_path / "out", "--json", "--set", 'evaluate.gates={psnr_db: ">= 60"}')
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["verdict"]["outcome"] == "pass" and document["bundles"][0]["speed"] is None
    assert document["reference"]["detector"] == "moving-shapes", "as the model's card says"
    assert json.loads((tmp_path / "out/report.json").read_text("utf-8")) == document
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "index.html", "report.json", "report.md", "report.junit.xml", "test-result.intoto.json", "media",
    }  # fmt: skip


def test_gates_about_a_baseline_that_was_not_named(wanc: Wanc, tiny_bundle: Path, tmp_path: Path) -> None:
    done = wanc("report", tiny_bundle, "--against", "baseline", "-o", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert done.err == ("error: no baseline was given that gates could be about\nhint: name it: --baseline BUNDLE\n")


@pytest.mark.slow
def test_against_the_reference_alone(tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished) -> None:
    """The baseline is shown, and only what is exact is demanded."""
    bundles = ([tiny_bundle], [], tiny_bundle)
    request = ReportRequest(
        "tiny-wan", *bundles, record, "tiny-wan", {}, 0, against="reference", unfinished=measured, threads=1
    )
    report = make_report(request, progress=False).report
    assert len(report.bundles) == 2 and report.baseline == report.bundles[1].name
    assert {gate.kind for gate in report.gates} == {"exact"} and report.verdict.outcome == "pass"
