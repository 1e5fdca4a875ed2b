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

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.true_scale.decoder import CASES, measured, table
from wanc.bench.contest import machine

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "vae-tiles.json"
WORK = ROOT / "artifacts" / "bench" / "vae"


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


if __name__ == "__main__":
    sys.exit(main())
