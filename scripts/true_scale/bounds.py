"""What has to hold of the table's rows, wherever they are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30
MINUTE = 60.0


@dataclass(frozen=True)
class Bounds:
    """The most that a row may take. `seconds` are those of a machine that does nothing else; `db` is the least that
    any graph may have, and `weights` are the least bytes of engines: with fewer, weights were alike and stored once.
    """

    peak: float | None = None
    activation: float | None = None
    seconds: float | None = None
    db: float | None = None
    weights: int = 0

    def broken(self, row: Mapping[str, Any], *, quiet: bool) -> list[str]:
        """What does not hold of a row; of one that was measured beside other work its processor time counts."""
        found = [
            f"{name}: {row[name] / GIB:.2f} GiB, and at most {most / GIB:.2f} GiB are allowed"
            for name, most in (("peak_rss_bytes", self.peak), ("activation_bytes", self.activation))
            if most is not None and row[name] > most
        ]
        clock = "seconds" if quiet else "cpu_seconds"
        if self.seconds is not None and row[clock] > self.seconds:
            found.append(f"{clock}: {row[clock]:.0f}, and at most {self.seconds:.0f} are allowed")
        if row.get("engine_bytes", 0) < self.weights:
            found.append(f"engine_bytes: {row['engine_bytes']}, where the weights alone have {self.weights}")
        for graph, db in (row["sqnr_db"] if self.db is not None else {}).items():
            if self.db is not None and db < self.db:
                found.append(f"{graph}: {db} dB, and at least {self.db} dB are wanted")
        return found


BLOCK, LAYER, DECODER = 351_000_000, 192_900_000, 70_000_000
"""Parameters of a denoiser's block, of a text encoder's layer, and of a decoder, which is in two graphs: a little less
than there are.
"""
BOUNDS: Mapping[str, Bounds] = {
    "step-bf16-480p": Bounds(peak=7.5 * GIB, activation=3.3 * GIB, weights=2 * 5 * BLOCK),
    "step-bf16": Bounds(peak=7.5 * GIB, activation=7.5 * GIB, weights=2 * 5 * BLOCK),
    "step-int8-480p": Bounds(peak=4.5 * GIB, activation=3.3 * GIB, weights=5 * BLOCK),
    "step-int8": Bounds(peak=4.5 * GIB, activation=7.5 * GIB, weights=5 * BLOCK),
    "text-encoder-5": Bounds(peak=9 * GIB, weights=2 * 5 * LAYER),
    "text-encoder-8": Bounds(peak=9 * GIB, weights=2 * 8 * LAYER),
    "vae-decoder": Bounds(activation=5 * GIB, weights=2 * 2 * DECODER),
    "expert-int8": Bounds(peak=4.5 * GIB, seconds=15 * MINUTE, weights=40 * BLOCK),
    "host-bf16": Bounds(peak=12 * GIB, db=25.0),
    "host-int8": Bounds(peak=12 * GIB, db=25.0),
    "host-vae": Bounds(peak=12 * GIB, db=25.0),
}
"""`within-…` rows are measured against what they allow themselves."""
SAME_ENGINE = {"step-bf16": "step-bf16-480p", "step-int8": "step-int8-480p"}
MOST_GROWTH = 1.01
"""Of an engine by a second size of video: its weights are the same."""


def broken(rows: Mapping[str, Mapping[str, Any]], name: str, *, quiet: bool) -> list[str]:
    """What does not hold of one of the rows."""
    row = rows[name]
    found = BOUNDS.get(name, Bounds(peak=row.get("allowed_bytes"))).broken(row, quiet=quiet)
    if (alone := SAME_ENGINE.get(name, "")) in rows:
        growth = row["engine_bytes"] / rows[alone]["engine_bytes"]
        if growth > MOST_GROWTH:
            found.append(f"its engines are {growth:.3f} times as large as those for one size of video")
    return found
