"""What reports have said before: one SQLite file beside the store, a row for each report.

Times are compared over builds only where they are of one machine and the same versions: a row knows its cohort, and a
trend of times leaves out those of others.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from wanc.errors import EXIT_DATA, EXIT_IO, UserError
from wanc.report.document import ReportDocument, ReportedBundle, TrendPoint
from wanc.report.verdict import verdict

FILE = "reports.sqlite"
LOCKED_SECONDS = 30.0
MOST_POINTS = 50
QUALITY = ("velocity_error", "psnr_db", "vmaf")
PHASES = ("step", "total")
_TABLE = """
CREATE TABLE IF NOT EXISTS reports (
    number INTEGER PRIMARY KEY, recipe TEXT NOT NULL, bundle TEXT NOT NULL, name TEXT NOT NULL, time TEXT NOT NULL,
    outcome TEXT NOT NULL, cohort TEXT NOT NULL, measured TEXT NOT NULL, timed TEXT NOT NULL
)"""


class ReportHistory:
    """The reports that were made of the bundles of one store."""

    def __init__(self, store: Path) -> None:
        self._path = store.parent / FILE

    def add(self, report: ReportDocument) -> None:
        """A row for each bundle that was judged. Raises UserError where the file cannot be written, or is none."""
        judged = [entry for entry in report.bundles if entry.name != report.baseline and entry.quality is not None]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [
            (
                entry.recipe,
                entry.facts.id,
                entry.name,
                now,
                _outcome(report, entry),
                report.machine.model_dump_json(),
                json.dumps(_measured(entry)),
                json.dumps(_timed(entry)),
            )
            for entry in judged
        ]
        with self._opened() as database:
            columns = "recipe, bundle, name, time, outcome, cohort, measured, timed"
            database.executemany(f"INSERT INTO reports ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def trend(self, report: ReportDocument) -> list[TrendPoint]:
        """What was said before of bundles of the new one's recipe, oldest first; times only of this cohort."""
        if not self._path.exists() or not report.bundles:
            return []
        with self._opened() as database:
            found = database.execute(
                "SELECT bundle, name, time, outcome, cohort, measured, timed FROM reports WHERE recipe = ? "
                "ORDER BY number DESC LIMIT ?",
                (report.bundles[0].recipe, MOST_POINTS),
            ).fetchall()
        cohort = report.machine.model_dump_json()
        return [
            TrendPoint(
                id=bundle,
                name=name,
                time=time,
                outcome=outcome,
                values={**json.loads(measured), **(json.loads(timed) if theirs == cohort else {})},
            )
            for bundle, name, time, outcome, theirs, measured, timed in reversed(found)
        ]

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=LOCKED_SECONDS)
            try:
                with database:
                    database.execute(_TABLE)
                    yield database
            finally:
                database.close()
        except sqlite3.OperationalError as error:
            raise UserError(f"the history of reports: {error}", where=str(self._path), exit_code=EXIT_IO) from None
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            hint = "move it away: a new one begins with the next report"
            raise UserError(
                f"this is no history of reports: {error}", where=str(self._path), hint=hint, exit_code=EXIT_DATA
            ) from None


def _outcome(report: ReportDocument, entry: ReportedBundle) -> str:
    return verdict(entry.name, [gate for gate in report.gates if gate.bundle == entry.name], None).outcome


def _measured(entry: ReportedBundle) -> dict[str, float]:
    """What is the same on every machine, or nearly so."""
    summary = entry.quality.summary if entry.quality else {}
    return {
        **{name: summary[name].mean for name in QUALITY if name in summary},
        "size_bytes": float(entry.facts.size_bytes),
    }


def _timed(entry: ReportedBundle) -> dict[str, float]:
    if entry.speed is None:
        return {}
    medians = {name: entry.speed.phases[name].median for name in PHASES if name in entry.speed.phases}
    return {**medians, "peak_rss_bytes": float(entry.speed.peak_rss_bytes)}
