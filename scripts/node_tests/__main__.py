"""Puts all of ONNX's own tests of its operators through wanc, on both engines, and records how they went.

Each case's model is read, exported, fused, lowered and executed by the stages of a build, and compared with what plain
onnxruntime gives for the untouched model. docs/results/node-tests.json is to be committed. Exits with 1 where a case
comes out wrong, or with a traceback, or is refused for a fault of wanc's own.

examples:
  python -m scripts.node_tests
  python -m scripts.node_tests --engine onnxruntime
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from .cases import all_cases
from .harness import run_cases
from .outcome import OWN_FAULTS, TRACEBACK, WRONG
from .record import summary
from .roads import ENGINES

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "results" / "node-tests.json"


def main() -> None:
    """Run the cases on the engines that are asked for, and write their part of the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="only this one")
    arguments = parser.parse_args()
    engines: dict[str, Any] = json.loads(RECORD.read_bytes())["engines"] if RECORD.exists() else {}
    cases = all_cases()
    for engine in arguments.engine or ENGINES:
        part = engines[engine] = summary(run_cases(cases, engine))
        print(f"{engine}: {', '.join(f'{part[key]} {key}' for key in part if key != 'cases')}")
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    record = {"commit": _commit(), **versions, "total": len(cases), "engines": engines}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    raise SystemExit(any(faults(part) for part in engines.values()))


def faults(part: Mapping[str, Any]) -> list[str]:
    """The cases of an engine's part of the record that show a fault of wanc's."""
    own = [cases for reason, cases in part["cases"].get("refused", {}).items() if reason in OWN_FAULTS]
    bad = [cases for category in (WRONG, TRACEBACK) for cases in part["cases"].get(category, {}).values()]
    return [case for cases in (*own, *bad) for case in cases]


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
