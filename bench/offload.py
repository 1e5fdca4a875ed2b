"""What is larger than its budget of memory, at true scale: ten blocks of A14B, and umT5-xxl, which are read from disk
as they are executed.

Rows are written to bench/results/offload.json as they are measured, and a table beside it. `blocks` takes 8 GB of
memory and as much of disk, and a quarter of an hour of two cores that do nothing else; `encoder` 24 GB of disk and
three quarters of an hour, nearly all of it for building.

examples:
  python bench/offload.py
  python bench/offload.py --only blocks --rounds 5
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.true_scale.offload import BLOCKS, ENCODER, blocks, encoder, faults, table
from wanc.artifacts.private import abandoned, private_directory
from wanc.bench.contest import machine
from wanc.runtime.whole_file import write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "offload.json"
WORK = ROOT / "artifacts" / "bench" / "offload"
PREFIX = "row-"
TOOLS = ("onnxruntime", "numpy", "torch", "diffusers")


def main() -> int:
    """Measure what is asked for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(BLOCKS, ENCODER), help="one of the two")
    parser.add_argument("--rounds", type=int, default=3, help="of the blocks (default: %(default)s)")
    given = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for name in [given.only] if given.only else [BLOCKS, ENCODER]:
        row = _blocks(given.rounds) if name == BLOCKS else _encoder()
        known = json.loads(RESULT.read_bytes())["rows"] if RESULT.exists() else {}
        rows = {**known, name: row}
        report = {"machine": machine(TOOLS), "rows": {name: rows[name] for name in (BLOCKS, ENCODER) if name in rows}}
        write_whole(RESULT, f"{json.dumps(report, indent=1)}\n".encode(), "the results")
        write_whole(RESULT.with_suffix(".md"), table(report["rows"]).encode(), "the table")
        found += [f"{name}: {fault}" for fault in faults(row, name, quiet=True)]
    print(RESULT.with_suffix(".md").read_text())
    for fault in found:
        print(f"does not hold: {fault}", file=sys.stderr)
    return 1 if found else 0


def _blocks(rounds: int) -> dict[str, Any]:
    for _ in abandoned(WORK, prefix=PREFIX):
        pass  # left by a run that was killed; removed as the iteration goes on
    with private_directory(WORK, prefix=PREFIX) as work:
        return blocks(work, rounds)


def _encoder() -> dict[str, Any]:
    """What was built stays until it is measured: a run that was stopped goes on there."""
    work = WORK / ENCODER
    work.mkdir(exist_ok=True)
    row = encoder(work)
    shutil.rmtree(work)
    return row


if __name__ == "__main__":
    raise SystemExit(main())
