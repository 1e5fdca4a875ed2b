"""A process of the same Python as this one, with a socket to it; nothing of it stays when it is closed."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack

from ..errors import RemoteCause, TargetError
from .wire import Wire

STDERR_BYTES = 2**16
"""That a process may write before it ends: more than an error in words, and less than would hurt."""
MOST_SHOWN = 300
GRACE_SECONDS = 5.0
"""Within which a process ends that has closed its end of the socket; one that does not is killed."""


class Child:
    """Python that executes `text`, with a plan to read, and with these descriptors as this process has them.

    Nothing that is set in the environment for Python has an effect on it (`-I`). It reads and prints nothing; what it
    writes to stderr is kept for the error that says how it ended.
    """

    def __init__(self, device: str, text: str, plan: bytes, descriptors: tuple[int, ...]) -> None:
        """Raises TargetError where there cannot be another process."""
        with ExitStack() as stack:
            try:
                program, plan_file, self._stderr = (
                    _memory(text.encode()), _memory(plan), _memory(bytes(STDERR_BYTES))
                )  # fmt: skip
                stack.callback(os.close, program)
                stack.callback(os.close, plan_file)
                on_failure = stack.enter_context(ExitStack())
                on_failure.callback(os.close, self._stderr)
                own, others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                stack.enter_context(others)
                on_failure.enter_context(own)
                inherited = (others.fileno(), plan_file)
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-B", "-", device, *map(str, inherited)],
                    stdin=program,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=(*inherited, *descriptors),
                    process_group=0,  # what a terminal sends this process is for this one to decide
                )
                on_failure.pop_all()
            except OSError as error:
                raise TargetError(
                    f"no process can be started for {device}", hint="raise the limits: ulimit -u, ulimit -n"
                ) from error
        self.wire = Wire(own)

    @property
    def number(self) -> int:
        """By which the system knows it."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it at once. Any thread may call this."""
        self._process.kill()

    def close(self) -> None:
        """Leave nothing of it."""
        self._process.kill()
        self._process.wait()
        self.wire.close()
        os.close(self._stderr)

    def error(self, what: str, hint: str) -> TargetError:
        """That `what` happened, since it ended: how, and with which last words."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"it was killed by {signal.Signals(-code).name}" if code < 0 else f"its exit code is {code}"
        error = TargetError(f"{what}: {how}", hint=hint)
        if said := self._last_words():
            error.__cause__ = RemoteCause(said)
        return error

    def _last_words(self) -> str:
        text = os.pread(self._stderr, STDERR_BYTES, 0).rstrip(b"\0").decode("utf-8", "backslashreplace")
        lines = [line for line in text.splitlines() if line.strip()]
        return ascii(lines[-1])[1:-1][:MOST_SHOWN] if lines else ""


def _memory(data: bytes) -> int:
    """A descriptor of a file in memory that holds this, at its beginning, and cannot grow."""
    descriptor = os.memfd_create("wanc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
