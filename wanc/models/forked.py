"""Calling what may crash or hang: in a fork of this process, which dies in its place."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress

from wanc.linux import die_with

# By the clock, for a fork that computes nothing: a machine may stand still for a while through no fault of the graph's.
PATIENCE_SECONDS = 300
_ANSWERED, _RAISED, _OUT_OF_MEMORY = range(3)


class DeathError(Exception):
    """A fork that ended without an answer. The text is what it did: "crashes (SIGSEGV)", "takes more than 4 s"."""


def call_in_fork(function: Callable[[], bytes], *, seconds: int) -> bytes | None:
    """What `function` returns when it is called in a fork of this process; None where it raises an exception.

    Raises DeathError where it dies of itself, runs out of memory, or computes for more than `seconds`, and MemoryError
    where the system kills it.
    """
    parent = os.getpid()
    reader, writer = os.pipe()
    with warnings.catch_warnings():  # Python's, that other threads may hold locks: the fork asks for none of them
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os._exit(_answer(function, writer, parent, seconds))
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()  # to the end of the fork, however it ends
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == _OUT_OF_MEMORY:
        raise DeathError("takes more memory than a file of this size may")
    if code in (-signal.SIGXCPU, -signal.SIGALRM):
        raise DeathError(f"takes more than {seconds} s")
    if code == -signal.SIGKILL:
        raise MemoryError("killed from outside, most likely for the system's lack of memory")
    if code < 0:
        raise DeathError(f"crashes ({signal.Signals(-code).name})")
    return answer if code == _ANSWERED else None


def _answer(function: Callable[[], bytes], writer: int, parent: int, seconds: int) -> int:
    """What the fork does; its exit code. Nothing of the process that it was may run on in it."""
    try:
        faulthandler.disable()  # how it dies is told by the process that lives
        die_with(parent)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(ValueError):  # it has less already
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(PATIENCE_SECONDS + seconds)
        answer = function()
        with open(writer, "wb") as stream:
            stream.write(answer)
    except MemoryError:
        return _OUT_OF_MEMORY
    except BaseException:
        return _RAISED
    return _ANSWERED
