"""Stages' processes that begin at once: forks of a process in which all that stages use has been imported.

A build starts a fresh interpreter for each stage, which spends most of a small one's time on imports. Here it begins
as a fork of one such interpreter that has done nothing else; its variables, folder and streams are those of the build.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any

from wanc.compiler.stages import worker
from wanc.compiler.stages.confinement import environment
from wanc.linux import die_with

from .faults.prober import USED, ready_to_fork

ROOT = Path(__file__).resolve().parents[1]
ALSO = (
    "openvino", "wanc.compiler.bundle.assemble", "wanc.compiler.bundle.tables", "wanc.compiler.check.component",
    "wanc.compiler.engines.openvino.compiler",
    "wanc.compiler.export.tracing", "wanc.compiler.export.wan", "wanc.compiler.fuse", "wanc.compiler.quantize.quantize",
    "wanc.models.wan.text_encoder", "wanc.models.wan.transformer", "wanc.models.wan.untouched", "wanc.models.wan.vae",
)  # fmt: skip
MOST_BYTES = 2**16


class Zygote:
    """The process that forks, started when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def start(self, pipe: Connection) -> Fork:
        """What `worker.start` does: a process that works for the other end of a pipe."""
        mask = os.umask(0)
        os.umask(mask)
        wanted = {"variables": environment(), "path": sys.path, "folder": os.getcwd(), "mask": mask}
        return Fork(self, int(self.ask(wanted, [pipe.fileno(), 1, 2])))

    def ask(self, question: dict[str, Any], descriptors: list[int]) -> str:
        """Send something to the process, and get its answer."""
        with self._lock:
            if self._process is None:
                self._begin()
            socket.send_fds(self._ours, [json.dumps(question).encode()], descriptors)
            return self._ours.recv(MOST_BYTES).decode()

    def close(self) -> None:
        """End it, and with it what it has forked."""
        if self._process is not None:
            self._ours.close()
            self._process.wait()

    def _begin(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests import zygote"
            command = [sys.executable, "-P", "-c", f"{code}; zygote.serve({theirs.fileno()}, {os.getpid()})"]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment())


class Fork:
    """A process that was forked elsewhere."""

    def __init__(self, zygote: Zygote, number: int) -> None:
        self._zygote, self._number, self._exit_code = zygote, number, None
        self._descriptor = os.pidfd_open(number)

    def kill(self) -> None:
        if self._exit_code is None:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self) -> int:
        if self._exit_code is None:
            select.select([self._descriptor], [], [])
            self._exit_code = int(self._zygote.ask({"ended": self._number}, []))
            os.close(self._descriptor)
        return self._exit_code


def serve(descriptor: int, parent: int) -> None:
    """Fork whenever that is wanted, until nobody is there any more who might want it."""
    die_with(parent)
    ready_to_fork(*USED, *ALSO)
    me = os.getpid()
    with socket.socket(fileno=descriptor) as connection:
        while True:
            message, descriptors, *_ = socket.recv_fds(connection, MOST_BYTES, 3)
            if not message:
                return
            question = json.loads(message)
            if "ended" in question:
                _, status = os.waitpid(question["ended"], 0)
                connection.send(str(os.waitstatus_to_exitcode(status)).encode())
                continue
            child = os.fork()
            if not child:
                connection.close()
                _work(question, descriptors, me)
            for received in descriptors:
                os.close(received)
            connection.send(str(child).encode())


def _work(wanted: dict[str, Any], descriptors: list[int], parent: int) -> None:
    pipe, out, err = descriptors
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    os.environ.update(wanted["variables"])
    sys.path[:] = wanted["path"]
    os.umask(wanted["mask"])
    os.chdir(wanted["folder"])
    try:
        worker.work(pipe, parent)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
