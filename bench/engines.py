"""What wanc builds of Wan2.2-T2V-A14B at its true widths, measured: memory, seconds, sizes, and kernels by name.

Every weight is a random number of its own. Rows that stand at this code in bench/results/engines-a14b.json are kept, so
that this can be stopped and started; --only measures a row anew. Takes 9 GB of memory, 12 GB of disk, and an hour of
two cores where nothing stands. No GPU.

examples:
  python bench/engines.py
  python bench/engines.py --only expert-int8
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.true_scale.bounds import broken
from scripts.true_scale.rows import ROWS, TOOLS
from scripts.true_scale.table import table
from wanc.artifacts.private import abandoned, private_directory
from wanc.bench.contest import machine
from wanc.errors import UserError, render
from wanc.runtime.whole_file import write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "engines-a14b.json"
WORK = ROOT / "artifacts" / "bench" / "engines"
PREFIX = "row-"


def main() -> int:
    """Measure what is asked for, and write both files behind every row. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME", action="append", choices=ROWS, help=f"one of {', '.join(ROWS)}")
    chosen = parser.parse_args().only
    WORK.mkdir(parents=True, exist_ok=True)
    for _ in abandoned(WORK, prefix=PREFIX):
        pass  # left by a run that was killed; removed as the iteration goes on
    faults: list[str] = []
    for number, name in enumerate(chosen or ROWS, 1):
        row = ROWS[name]
        if not chosen and standing().get(name, {}).get("key") == row.key:
            print(f"{name}: stands", flush=True)
            continue
        print(f"{name} ({number} of {len(chosen or ROWS)}), load {os.getloadavg()[0]:.1f} …", flush=True)
        started = time.perf_counter()
        try:
            with private_directory(WORK, prefix=PREFIX) as work:
                figures = row.measure(WORK / "store", work)
        except UserError as error:
            print(render(error), file=sys.stderr)
            return error.exit_code
        rows = {**standing(), name: {"key": row.key, **figures}}
        report = {"machine": machine(TOOLS), "rows": {name: rows[name] for name in ROWS if name in rows}}
        write_whole(RESULT, f"{json.dumps(report, indent=1)}\n".encode(), "the results")
        write_whole(RESULT.with_suffix(".md"), table(report).encode(), "the table")
        faults += [f"{name}: {fault}" for fault in broken(rows, name, quiet=True)]
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    for fault in faults:
        print(f"does not hold: {fault}", file=sys.stderr)
    return 1 if faults else 0


def standing() -> dict[str, Any]:
    """The rows that were measured, by this run or an earlier one."""
    return json.loads(RESULT.read_bytes())["rows"] if RESULT.exists() else {}


if __name__ == "__main__":
    raise SystemExit(main())
