"""What reports have said before, over builds and machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanc.errors import UserError
from wanc.report.document import Estimate, ReportDocument
from wanc.report.history import FILE, ReportHistory

from .example import BASELINE, NEW, example


def report(number: int, *, processor: str = "one") -> ReportDocument:
    """That of a build whose quality and name tell its number."""
    made = example()
    new = made.bundles[0]
    assert new.quality is not None
    psnr = Estimate(mean=40.0 + number, low=39.0, high=60.0, count=2)
    summary = {**new.quality.summary, "psnr_db": psnr}
    entry = new.model_copy(
        update={
            "facts": new.facts.model_copy(update={"id": f"sha256:{number:064x}"}),
            "quality": new.quality.model_copy(update={"summary": summary}),
        }
    )
    machine = made.machine.model_copy(update={"processor": processor})
    return made.model_copy(update={"bundles": [entry, *made.bundles[1:]], "machine": machine})


def test_the_trend_over_ten_builds(tmp_path: Path) -> None:
    history = ReportHistory(tmp_path / "store")
    assert history.trend(report(0)) == [], "nothing is written by asking"
    assert not list(tmp_path.iterdir())
    for number in range(10):
        history.add(report(number))
    points = [point for point in history.trend(report(10)) if point.name == NEW]
    assert [point.id for point in points] == [f"sha256:{number:064x}" for number in range(10)]
    assert [point.values["psnr_db"] for point in points] == [40.0 + number for number in range(10)]
    assert all({"velocity_error", "size_bytes", "total", "peak_rss_bytes"} <= point.values.keys() for point in points)
    assert {point.name for point in history.trend(report(10))} == {NEW} | {
        entry.name for entry in report(0).bundles if entry.recipe == report(0).bundles[0].recipe
    } - {BASELINE}


def test_times_of_another_machine_are_no_trend(tmp_path: Path) -> None:
    history = ReportHistory(tmp_path / "store")
    history.add(report(1, processor="another"))
    history.add(report(2))
    first, second = (point for point in history.trend(report(3)) if point.name == NEW)
    assert "psnr_db" in first.values and "total" not in first.values
    assert "total" in second.values


def test_a_file_that_is_no_history(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(UserError, match="no history of reports") as caught:
        ReportHistory(tmp_path / "store").add(report(0))
    assert caught.value.where == str(tmp_path / FILE) and caught.value.hint


def test_a_folder_that_takes_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the history of reports") as caught:
        ReportHistory(tmp_path / "nowhere" / "store").add(report(0))
    assert caught.value.exit_code == 74
