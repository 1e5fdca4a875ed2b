"""The matrix of tiny-wan in the repository: eight ways to build it, one of them trained, and the page about all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.conftest import ROOT, Wanc
from wanc.report.document import read

from .browser import SCHEMES, WIDTHS, Scheme, browser, needs_chromium, opened

RECIPE = ROOT / "recipes" / "tiny-wan-matrix.yaml"
VARIANTS = ("fp32", "bf16", "int8", "int8-dynamic", "int8-weight", "int4-weight", "int4-qat", "two-segments")


@needs_chromium
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_matrix_ends_with_a_report_that_opens_everywhere(wanc: Wanc, tmp_path: Path) -> None:
    done = wanc("build", RECIPE, "-o", tmp_path, "--json")
    assert done.code == 0, done.err
    built = json.loads(done.out)
    assert [Path(entry["bundle"]).name for entry in built] == [f"tiny-wan-matrix-{name}" for name in VARIANTS]
    folder = tmp_path / "reports" / "tiny-wan-matrix"
    report = read(folder / "report.json")
    assert {entry.name.removeprefix("tiny-wan-matrix-") for entry in report.bundles} == {*VARIANTS}
    assert report.verdict.outcome == "pass"
    found = {entry.name.removeprefix("tiny-wan-matrix-"): entry for entry in report.bundles}
    assert found["two-segments"].facts.segments == 2
    trained, rounded = (found[name].quality for name in ("int4-qat", "int4-weight"))
    assert trained is not None and rounded is not None
    assert trained.summary["velocity_error"].mean < rounded.summary["velocity_error"].mean
    with browser() as started:
        for width in WIDTHS:
            for scheme in SCHEMES:
                _look_at(started, folder / "index.html", width, scheme)


def _look_at(started: Browser, path: Path, width: int, scheme: Scheme) -> None:
    with opened(started, path, width=width, scheme=scheme) as watched:
        watched.require_no_sideways_scrolling()
        watched.wait_until("[...document.querySelectorAll('video')].every(one => one.readyState >= 2)")
        watched.require_clean()
