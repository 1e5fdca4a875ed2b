"""Putting cases through wanc in forks: one that kills its process, or hangs, is a finding, and the next is run."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx

from wanc.errors import UserError, render
from wanc.runtime.backends.offline import stay_offline

from .cases import Case
from .outcome import EQUAL, ONE_CODE, REFUSED, TRACEBACK, UNSUPPORTED, WRONG, Outcome, difference
from .roads import ENGINES, PlainError, Road, plain

MOST_SECONDS = 120
"""By the clock, for one case."""
MOST_BYTES = 6 * 2**30
DRAWING = ("Bernoulli", "Multinomial", "Random")
QUANTIZERS = ("DynamicQuantizeLinear",)


def run_cases(cases: Sequence[Case], engine: str) -> Iterator[Outcome]:
    """The outcome of every case, in their order, a fork at a time. To be called in a process of one thread."""
    stay_offline()
    done = 0
    while done < len(cases):
        for outcome in _run_in_fork(cases[done:], engine):
            done += 1
            yield outcome


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
    """Build a case's model for an engine in `folder`, execute it, and compare it with the untouched model.

    Where plain onnxruntime does not execute that, the arrays that the case expects take its place.
    """
    try:
        expected, unsupported = plain(case.model, case.inputs) or case.outputs, False
    except PlainError:
        expected, unsupported = case.outputs, True
    try:
        actual = Road(ENGINES[engine], folder).run(case.model, case.inputs)
    except UserError as error:
        text = render(error).replace(str(folder), "")
        return Outcome(case.name, UNSUPPORTED if unsupported else REFUSED, text)
    except Exception:
        return Outcome(case.name, TRACEBACK, traceback.format_exc().replace(str(folder), ""))
    if _draws(case.model):  # no two draws are alike
        actual, expected = ({name: array * 0 for name, array in outputs.items()} for outputs in (actual, expected))
    codes = ONE_CODE if engine != "onnxruntime" and case.operator.lower() in map(str.lower, QUANTIZERS) else 0
    fault = difference(actual, expected, case.rtol, case.atol, codes)
    return Outcome(case.name, WRONG, fault) if fault else Outcome(case.name, EQUAL)


def _draws(model: onnx.ModelProto) -> bool:
    """Whether a model draws, be it with a seed: libraries do not share how."""
    return any(node.op_type.startswith(DRAWING) for node in model.graph.node)
