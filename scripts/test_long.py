"""Runs the tests that take longer than a change may wait for, part by part, and records how they went.

A part that has passed at this commit is not run again: stop it at any time, and start it again. When all have passed,
docs/results/test-long.json says so, to be committed. With --sample SEED only some tests are run, chosen by the seed, as
many as a few minutes allow.

Example: python -m scripts.test_long --sample 7
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from wanc.runtime.whole_file import write_whole

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "results" / "test-long.json"
FOLDER = ROOT / "artifacts" / "test-long"
MOST_TESTS = 8
"""In one part."""
MOST_SECONDS = 3600
"""For one part."""
SAMPLE_SECONDS = 240.0
UNKNOWN_SECONDS = 120.0
"""What a test is thought to take that the record does not know."""
HALF_AN_HOUR = (
    "tests/compiler/test_quantize_memory.py::",
    "tests/bench/test_engines.py::",
    "tests/bench/test_decoder.py::",
    "tests/bench/test_offload.py::",
    "tests/report/test_matrix.py::",
)
"""What takes so long by itself is in no sample, record or not."""
PYTEST = (sys.executable, "-m", "pytest", "-q", "-m", "long")
TOGETHER = ("--numprocesses", "2", "--dist", "load")


def main() -> None:
    """Run the parts that are left, or a sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", metavar="SEED", help="run only some tests, chosen by this text")
    arguments = parser.parse_args()
    tests = collect()
    if arguments.sample is None:
        run_parts(parts(tests))
        return
    chosen = sample(tests, known_seconds(), arguments.sample)
    print(f"{len(chosen)} of {len(tests)} long tests, chosen by {arguments.sample}", flush=True)
    raise SystemExit(subprocess.run([*PYTEST, *TOGETHER, *chosen], cwd=ROOT, check=False).returncode)


def collect() -> list[str]:
    """The ids of all long tests, in their order."""
    done = subprocess.run([*PYTEST, "--collect-only"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def parts(tests: Sequence[str]) -> dict[str, list[str]]:
    """Tests of one file, a few at a time, by the file's name and a number."""
    found: dict[str, list[str]] = {}
    for file in dict.fromkeys(test.partition("::")[0] for test in tests):
        own = [test for test in tests if test.startswith(f"{file}::")]
        for start in range(0, len(own), MOST_TESTS):
            found[f"{file} {start // MOST_TESTS + 1}"] = own[start : start + MOST_TESTS]
    return found


def sample(tests: Sequence[str], seconds: Mapping[str, float], seed: str) -> list[str]:
    """Tests chosen by a seed until the time is used up; one that takes more by itself is never chosen."""
    chosen: list[str] = []
    left = SAMPLE_SECONDS
    for test in random.Random(seed).sample(tests, len(tests)):
        needed = seconds.get(test, UNKNOWN_SECONDS)
        if needed <= left and not test.startswith(HALF_AN_HOUR):
            chosen.append(test)
            left -= needed
    return chosen


def known_seconds() -> dict[str, float]:
    """What each test took when the record was made."""
    entries = json.loads(RECORD.read_bytes())["parts"].values() if RECORD.exists() else ()
    return {test: seconds for entry in entries for test, seconds in entry["tests"].items()}


def run_parts(wanted: Mapping[str, Sequence[str]]) -> None:
    """Run the parts that have not passed at this commit, and write the record when all have."""
    commit = _commit()
    FOLDER.mkdir(parents=True, exist_ok=True)
    state = FOLDER / f"{commit}.json"
    passed: dict[str, Any] = json.loads(state.read_bytes()) if state.exists() else {}
    for name, tests in wanted.items():
        if name not in passed and (entry := _run(name, tests)) is not None:
            passed[name] = entry
            write_whole(state, json.dumps(passed).encode(), "what has passed")
    failed = [name for name in wanted if name not in passed]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")
    document = record(commit, {name: passed[name] for name in wanted})
    write_whole(RECORD, f"{json.dumps(document, indent=1)}\n".encode(), "the record")
    print(f"all have passed: {RECORD.relative_to(ROOT)}")


def record(commit: str, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is committed: which tests passed at which commit and where, and the seconds that each took."""
    return {
        "commit": commit,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "passed": sum(len(entry["tests"]) for entry in entries.values()),
        "seconds": round(sum(entry["seconds"] for entry in entries.values()), 1),
        "parts": dict(entries),
    }


def _run(name: str, tests: Sequence[str]) -> dict[str, Any] | None:
    """How a part went; None unless all of its tests passed, in time."""
    print(f"{name}: {len(tests)} tests", flush=True)
    results = FOLDER / "results.xml"
    results.unlink(missing_ok=True)
    started = time.monotonic()
    with_times = (f"--junit-xml={results}", "-o", "junit_family=xunit1")
    try:
        done = subprocess.run([*PYTEST, *TOGETHER, *with_times, *tests], cwd=ROOT, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped after {MOST_SECONDS} s")
        return None
    cases = list(ElementTree.parse(results).iter("testcase")) if results.exists() else []
    seconds = {f"{case.get('file')}::{case.get('name')}": round(float(case.get("time", 0)), 1) for case in cases}
    skipped = any(case.find("skipped") is not None for case in cases)
    if done.returncode or skipped or seconds.keys() != set(tests):
        return None
    return {"seconds": round(time.monotonic() - started, 1), "tests": seconds}


def _commit() -> str:
    """The commit that is tested: nothing may be changed beside the record."""
    changed = _git("status", "--porcelain", "--", ".", f":!{RECORD.relative_to(ROOT)}")
    if changed:
        raise SystemExit(f"commit first, so that the record can say what was tested:\n{changed}")
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
