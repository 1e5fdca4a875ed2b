"""Running one stage in a process of its own: its memory goes back when it ends, and its peak is its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from wanc.artifacts.files import output_errors
from wanc.artifacts.timeout import timeout_seconds
from wanc.compiler.stages.confinement import confine, environment
from wanc.compiler.stages.stage import Files, Stage
from wanc.errors import EXIT_TEMPORARY, EXIT_UNAVAILABLE, UserError
from wanc.runtime.memory import peak_rss_bytes

TIMEOUT_VARIABLE = "WANC_STAGE_TIMEOUT"
DEFAULT_TIMEOUT_SECONDS = 24 * 3600.0
BEGIN = """
import json, sys
paths, pipe, build = map(json.loads, sys.argv[1:])
sys.path[:] = paths
from wanc.compiler.stages.worker import work
work(pipe, build)
"""


@dataclass(frozen=True)
class StageOutcome:
    """How a stage ended: the most memory it held, or the fault that it found and that fault's causes."""

    peak_rss_bytes: int
    error: BaseException | None = None
    causes: tuple[RemoteCause, ...] = ()


class RemoteCause(Exception):
    """The text of an exception that stayed in the worker process, and its hint."""

    def __init__(self, text: str, hint: str | None) -> None:
        super().__init__(text, hint)
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        return self.text


class Process(Protocol):
    """What works for a build; `subprocess.Popen` is one."""

    def kill(self) -> None: ...

    def wait(self) -> int: ...


def start(pipe: Connection) -> Process:
    """A process that works for the other end of a pipe.

    A fresh interpreter, so that nothing of this one's state can leak into the result; with an environment of its own
    from the beginning, and without running the script that has called us.
    """
    told = map(json.dumps, (sys.path, pipe.fileno(), os.getpid()))
    return subprocess.Popen(
        [sys.executable, "-P", "-c", BEGIN, *told],
        stdin=subprocess.DEVNULL,
        pass_fds=[pipe.fileno()],
        env=environment(),
    )


def run_in_worker(stage: Stage, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> int:
    """Run a stage to its end in a fresh process; returns the process's peak memory in bytes.

    Raises what the stage raised, and UserError where the process was killed from outside or ran for longer than the
    seconds in WANC_STAGE_TIMEOUT, by default a day.
    """
    timeout = timeout_seconds(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_SECONDS, allow_zero=False)
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs:
            process = start(theirs)
        try:
            ours.send((stage, inputs, out, progress))
            if not ours.poll(timeout):
                raise _too_long(stage, timeout)
            outcome: StageOutcome = ours.recv()
        except BaseException as error:
            # Where it waited for the stage, that might take an hour.
            process.kill()
            if isinstance(error, (EOFError, ConnectionError)):
                raise _killed(stage) from None
            raise
        finally:
            process.wait()
    if outcome.error is not None:
        raise outcome.error from _chain(outcome.causes)
    return outcome.peak_rss_bytes


def work(pipe: int, build: int) -> None:
    """Run the stage that comes through a pipe, and send back how it ended; `build` is the process that wants it."""
    confine(build)
    with Connection(pipe) as connection:
        try:
            outcome = _run(*connection.recv())
        except EOFError:  # the build is gone already
            return
        try:
            connection.send(outcome)
        except Exception:  # not every exception can be sent
            connection.send(replace(outcome, error=RuntimeError(repr(outcome.error))))


def _killed(stage: Stage) -> UserError:
    return UserError(
        f"the process of stage {stage.name} was killed",
        hint="most often the system is out of memory: `dmesg` tells",
        exit_code=EXIT_UNAVAILABLE,
    )


def _too_long(stage: Stage, seconds: float) -> UserError:
    return UserError(
        f"stage {stage.name} ran for more than {seconds:g} s and was stopped",
        hint=f"set {TIMEOUT_VARIABLE} to the number of seconds that it may take; finished stages are kept",
        exit_code=EXIT_TEMPORARY,
    )


def _run(stage: Stage, inputs: Mapping[str, Files], out: Path, progress: bool) -> StageOutcome:
    try:
        with output_errors(out):
            stage.run(inputs, out, progress=progress)
    except UserError as error:
        # Tracebacks do not travel between processes, and a fault of the user's needs none.
        return StageOutcome(peak_rss_bytes(), error, tuple(_causes(error)))
    except MemoryError as error:
        needs_more = UserError(
            f"stage {stage.name} needs more memory than this machine has",
            hint="build on a larger machine, or add swap",
            exit_code=EXIT_UNAVAILABLE,
        )
        return StageOutcome(peak_rss_bytes(), needs_more, (RemoteCause(str(error) or "out of memory", None),))
    except BaseException as error:
        return StageOutcome(peak_rss_bytes(), error, (RemoteCause(traceback.format_exc(), None),))
    return StageOutcome(peak_rss_bytes())


def _causes(error: BaseException) -> list[RemoteCause]:
    cause = error.__cause__
    if cause is None:
        return []
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return [RemoteCause(text, getattr(cause, "hint", None)), *_causes(cause)]


def _chain(causes: tuple[RemoteCause, ...]) -> RemoteCause | None:
    if not causes:
        return None
    first = causes[0]
    first.__cause__ = _chain(causes[1:])
    return first
