"""What decoding takes at the true size of Wan's VAE 2.1, whole and in tiles: memory, predicted and measured, and time.

Rows are added to bench/results/vae-tiles.json as they are measured, in place of those of the same case; a table is
written beside it. The last case, 720p within 4 GiB, takes 20 minutes of two cores.

examples:
  python bench/vae_tiles.py
  python bench/vae_tiles.py --only tiles-128
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.true_scale.decoder import measured
from wanc.bench.contest import machine

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "vae-tiles.json"
WORK = ROOT / "artifacts" / "bench" / "vae"
GIB = 2**30
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{engine}-{side}": {"engine": engine, "size": (side, side)}
        for engine in ("onnxruntime", "openvino")
        for side in (128, 192)
    },
    "tiles-128": {"engine": "onnxruntime", "size": (128, 208), "tile": 128},
    "tiles-192": {"engine": "onnxruntime", "size": (192, 288), "tile": 192},
    "720p-4gib": {"engine": "onnxruntime", "size": (720, 1280), "budget": 4 * GIB},
}
COLUMNS = ("case", "engine", "picture", "tiles", "work", "disk a value", "predicted, MiB", "measured, MiB", "CPU s")


def main() -> int:
    """Measure the cases that are asked for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=CASES, help="one of the cases")
    only = parser.parse_args().only
    WORK.mkdir(parents=True, exist_ok=True)
    for name in only or CASES:
        row = measured(WORK, **CASES[name])
        known = json.loads(RESULT.read_bytes())["rows"] if RESULT.exists() else {}
        rows = {key: {**known, name: row}[key] for key in CASES if key in {**known, name: row}}
        document = {"machine": machine(["onnxruntime", "openvino"]), "rows": rows}
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
        RESULT.with_suffix(".md").write_text(table(rows))
        print(f"{name}: {row}", flush=True)
    return 0


def table(rows: dict[str, dict[str, Any]]) -> str:
    """For people."""
    lines = ["# Decoding with the VAE of Wan 2.1", "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
    for name, row in rows.items():
        height, width = row["size"]
        tiles = f"{row['tiles']} of {row['tile'][1]} × {row['tile'][0]}" if row["tile"] else "whole"
        disk = f"{row['disk_bytes'] / (5 * 3 * height * width):.2f} bytes"
        predicted, peak = (f"{row[key] / 2**20:,.0f}" for key in ("predicted_bytes", "peak_rss_bytes"))
        cells = [name, row["engine"], f"{width} × {height}", tiles, f"{row['work']:.2f}×", disk]
        lines.append(_row([*cells, predicted, peak, f"{row['cpu_seconds']:,.0f}"]))
    return "\n".join(lines) + "\n\nTwo latent frames, which are five frames of video; random weights; float32.\n"


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
