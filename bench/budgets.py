"""Two experts of the 1.3B shape within 100, 50 and 25 % of their weights, with and without a limit on the process.

Cases take turns; what was measured is written into bench/results/budgets.json, a table beside it. The bundle is built
if it is not there, which takes half an hour and 17 GB of disk; a round takes five minutes where nothing else runs. The
limits are those of control groups, version 1, which take root; without them their cases are left out.

examples:
  python bench/budgets.py
  python bench/budgets.py --rounds 1
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # started as a file, which puts its own folder in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.true_scale.budgets import GROUPS, SHARES, built, least_budget, measured, refused, table
from wanc.bench.contest import machine
from wanc.bench.report import WHAT
from wanc.runtime.whole_file import require_writable, write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "budgets.json"
WORK = ROOT / "artifacts" / "bench" / "budgets"


def main() -> None:
    """Measure all cases in turn, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of all cases [default: %(default)s]")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="where the bundle is, or is built")
    arguments = parser.parse_args()
    require_writable(RESULT, WHAT)
    arguments.work.mkdir(parents=True, exist_ok=True)
    bundle = built(arguments.work)
    limits = (False, True) if (GROUPS / "memory.limit_in_bytes").exists() else (False,)
    rows = []
    for _ in range(arguments.rounds):
        for share in SHARES:
            for is_limited in limits:
                rows.append(measured(bundle, share, is_limited=is_limited))
                print(rows[-1], file=sys.stderr, flush=True)
    least = least_budget(bundle)
    document = {
        "machine": machine(("openvino", "numpy")),
        "least_budget": least,
        "one_byte_less": refused(bundle, least - 1),
        "rows": rows,
    }
    write_whole(RESULT, f"{json.dumps(document, indent=1)}\n".encode(), WHAT)
    write_whole(RESULT.with_suffix(".md"), table(rows).encode(), WHAT)


if __name__ == "__main__":
    main()
