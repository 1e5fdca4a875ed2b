"""Running one stage in a process of its own: its memory goes back when it ends, and its peak is its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec, Protocol, TypeVar

from wanc.artifacts.files import output_errors
from wanc.artifacts.timeout import timeout_seconds
from wanc.compiler.stages.confinement import confine, environment
from wanc.compiler.stages.stage import Files, Stage
from wanc.errors import EXIT_TEMPORARY, EXIT_UNAVAILABLE, CheckpointError, RemoteCause, UserError
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.progress import OnProgress, ignore, report_to

TIMEOUT_VARIABLE = "WANC_STAGE_TIMEOUT"
DEFAULT_TIMEOUT_SECONDS = 24 * 3600.0
BEGIN = """
import json, sys
paths, pipe, build = map(json.loads, sys.argv[1:])
sys.path[:] = paths
from wanc.compiler.stages.worker import work
work(pipe, build)
"""

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class StageOutcome:
    """How a stage ended: its result, or the fault that it found and that fault's causes; the most memory it held."""

    peak_rss_bytes: int
    result: Any = None
    error: BaseException | None = None
    causes: tuple[RemoteCause, ...] = ()

    def check(self) -> None:
        """Raise the fault, with its causes, in the process that asked for the stage."""
        if self.error is not None:
            raise self.error from _chain(self.causes)


class CrashError(CheckpointError):
    """A stage's process that died of the model that it worked on. What the model lies in, the stage does not know."""


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


def run_in_worker(stage: Stage, inputs: Mapping[str, Files], out: Path, *, progress: OnProgress | None) -> int:
    """Run a stage to its end in a fresh process; returns the process's peak memory in bytes.

    `progress` is called here, with what bars in that process would show: this one has nothing else to do meanwhile.
    Raises what the stage raised, CrashError where it crashed, and UserError where it was killed from outside or ran for
    longer than the seconds in WANC_STAGE_TIMEOUT, by default a day.
    """
    outcome = _outcome(stage.name, progress or ignore, _run, stage, inputs, out, bool(progress))
    return outcome.peak_rss_bytes


def call_in_worker(stage: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What a function returns that is called in such a process, under the name of a stage. Raises the same."""
    return _outcome(stage, ignore, function, *args, **kwargs).result


def _outcome(
    stage: str, on_progress: OnProgress, function: Callable[..., Any], *args: Any, **kwargs: Any
) -> StageOutcome:
    timeout = timeout_seconds(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_SECONDS, allow_zero=False)
    deadline = time.monotonic() + timeout
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs:
            process = start(theirs)
        try:
            ours.send((stage, function, args, kwargs))
            while not isinstance(outcome := _received(ours, deadline), StageOutcome):
                if outcome is None:
                    raise _too_long(stage, timeout)
                on_progress(*outcome)
        except (EOFError, ConnectionError):
            # How the process ended is known when it has been waited for.
            raise _killed(stage, process.wait()) from None
        except BaseException:
            # Where it waited for the stage, that might take an hour.
            process.kill()
            raise
        finally:
            process.wait()
    outcome.check()
    return outcome


def _received(pipe: Connection, deadline: float) -> StageOutcome | tuple[str, int, int] | None:
    """How a process ended, or how far it is; None where it said nothing until a time of the monotonic clock."""
    return pipe.recv() if pipe.poll(max(0.0, deadline - time.monotonic())) else None


def work(pipe: int, build: int) -> None:
    """Call what comes through a pipe, and send back how it ended; `build` is the process that wants it.

    Before that, how far it is: (phase, done, total).
    """
    confine(build)
    with Connection(pipe) as connection:
        report_to(lambda *progress: connection.send(progress))
        try:
            outcome = outcome_of(*connection.recv())
        except EOFError:  # the build is gone already
            return
        try:
            connection.send(outcome)
        except Exception:  # not every exception can be sent
            connection.send(replace(outcome, error=RuntimeError(repr(outcome.error))))


def _killed(stage: str, exitcode: int) -> UserError:
    if exitcode >= 0 or -exitcode == signal.SIGKILL:
        return UserError(
            f"the process of stage {stage} was killed",
            hint="most often the system is out of memory: `dmesg` tells",
            exit_code=EXIT_UNAVAILABLE,
        )
    return CrashError(
        f"the process of stage {stage} crashed ({signal.Signals(-exitcode).name})",
        hint="is the model what its exporter wrote? If it is, a library has a bug that it meets: please tell us",
    )


def _too_long(stage: str, seconds: float) -> UserError:
    return UserError(
        f"stage {stage} ran for more than {seconds:g} s and was stopped",
        hint=f"set {TIMEOUT_VARIABLE} to the number of seconds that it may take; finished stages are kept",
        exit_code=EXIT_TEMPORARY,
    )


def _run(stage: Stage, inputs: Mapping[str, Files], out: Path, progress: bool) -> None:
    # What libraries put aside, as PyTorch's compiler does, goes with the stage.
    with TemporaryDirectory(dir=out.parent, prefix="libraries-") as tempfile.tempdir, output_errors(out):
        os.environ["TMPDIR"] = tempfile.tempdir
        stage.run(inputs, out, progress=progress)


def _peak_bytes() -> int:
    """The most that this process, or one that it has waited for, has held at once: engines are built in such ones.

    A process that ended reports its parent's peak where that was higher than its own, which changes no maximum.
    """
    return max(peak_rss_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


def outcome_of(stage: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> StageOutcome:
    """How a call ended, in a form that travels between processes."""
    try:
        result = function(*args, **kwargs)
    except UserError as error:
        # Tracebacks do not travel between processes, and a fault of the user's needs none.
        return StageOutcome(_peak_bytes(), error=error, causes=tuple(_causes(error)))
    except MemoryError as error:
        needs_more = UserError(
            f"stage {stage} needs more memory than this machine has",
            hint="build on a larger machine, or add swap",
            exit_code=EXIT_UNAVAILABLE,
        )
        causes = (RemoteCause(str(error) or "out of memory"),)
        return StageOutcome(_peak_bytes(), error=needs_more, causes=causes)
    except BaseException as error:
        return StageOutcome(_peak_bytes(), error=error, causes=(RemoteCause(traceback.format_exc()),))
    return StageOutcome(_peak_bytes(), result)


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
