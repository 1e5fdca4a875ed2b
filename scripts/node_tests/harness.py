"""Putting cases through wanc in forks: a case that kills its process, or hangs, is a finding, and the next is run."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wanc.errors import UserError, render

from .cases import Case
from .outcome import EQUAL, REFUSED, TRACEBACK, UNSUPPORTED, WRONG, Outcome, difference
from .roads import ENGINES, PlainError, Road, plain

MOST_SECONDS = 60
"""By the clock, for one case."""
MOST_BYTES = 6 * 2**30


def run_cases(cases: Sequence[Case], engine: str) -> list[Outcome]:
    """The outcome of every case, in their order. To be called in a process of one thread."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        outcomes += _run_in_fork(cases[len(outcomes) :], engine)
    return outcomes


def _run_in_fork(cases: Sequence[Case], engine: str) -> list[Outcome]:
    """The outcomes of cases up to the one at which the fork ends, or of all."""
    with tempfile.TemporaryFile() as report:
        child = os.fork()
        if not child:
            try:
                for case in cases:
                    os.write(report.fileno(), json.dumps(asdict(_run_limited(case, engine))).encode() + b"\n")
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        report.seek(0)
        outcomes = [Outcome(**json.loads(line)) for line in report.read().splitlines()]
    if len(outcomes) < len(cases):
        code = os.waitstatus_to_exitcode(status)
        ending = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        outcomes.append(Outcome(cases[len(outcomes)].name, TRACEBACK, f"the process ends: {ending}"))
    return outcomes


def _run_limited(case: Case, engine: str) -> Outcome:
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(MOST_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        return run_case(case, engine, Path(folder))


def run_case(case: Case, engine: str, folder: Path) -> Outcome:
    try:
        unsupported, expected = "", plain(case.model, case.inputs) or case.outputs
    except PlainError as error:
        unsupported, expected = str(error), case.outputs
    try:
        actual = Road(ENGINES[engine], folder).run(case.model, case.inputs)
    except UserError as error:
        text = render(error).replace(str(folder), "")
        return Outcome(case.name, UNSUPPORTED if unsupported else REFUSED, text)
    except Exception:
        return Outcome(case.name, TRACEBACK, traceback.format_exc().replace(str(folder), ""))
    fault = difference(actual, expected, case.rtol, case.atol)
    return Outcome(
        case.name,
        WRONG if fault else EQUAL,
        (f"(not by plain onnxruntime: {unsupported}) " if unsupported else "") + (fault or ""),
    )
