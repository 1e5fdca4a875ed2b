"""Builds in forks of a process that has everything imported: what is struck hundreds of times has to begin at once.

A prober is a process of one thread, so that it can be forked. Its builds fork their stages' processes in turn, where a
user's build starts fresh interpreters; all else is what `wanc build` does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection

from wanc import cli
from wanc.compiler.bundle import seal
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.bundle.seal import Seal
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.fuse import Fuse
from wanc.compiler.partition import Partition
from wanc.compiler.stages import worker
from wanc.compiler.stages.code_version import code_version

# What the stages of a small ONNX model import when they run; whatever is missing here is only imported again and again.
USED = (
    "onnx", "onnx_ir", "onnxruntime", "onnxscript.optimizer", "onnxscript.rewriter", "rich.console",
    "wanc.compiler.bundle.examine", "wanc.compiler.engines.onnxruntime.compiler", "wanc.compiler.engines.segment",
    "wanc.compiler.export.onnx_file", "wanc.compiler.passes.registry", "wanc.compiler.pipeline",
)  # fmt: skip
ADAPTERS = ("wanc.compiler.engines.compiled", "wanc.compiler.program.program", "wanc.compiler.program.quant_table")
"""What reads their files is made once in a process, and takes longer than most of a small stage."""
PATIENCE_SECONDS = 60
PR_SET_PTRACER, PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)  # linux/prctl.h


def ready_to_fork(*names: str) -> None:
    """Import these modules, and do what their users do once in a process."""
    for name in names:
        importlib.import_module(name)
    for name in ADAPTERS:
        importlib.import_module(name)._adapter()
    gc.collect()
    gc.freeze()  # or every fork would look through all that is imported, and copy its pages


def probers(count: int = 2, also: Sequence[str] = (), adopt_bytes: int = seal.ADOPT_BYTES) -> ProcessPoolExecutor:
    """Processes in which `run_in_fork` may be called; two, as many as there are cores in the smallest machine.

    They import `also` besides what builds use. Of an engine's files those over `adopt_bytes` are moved into a bundle.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=spawn, initializer=_prepare, initargs=(also, adopt_bytes))


def run_in_fork(arguments: Sequence[str], *tracer: str) -> subprocess.CompletedProcess[str]:
    """`wanc ARGUMENTS…` run to its end in a fork of this process, which a command such as strace may trace."""
    sys.argv = ["wanc", *arguments]
    return call_in_fork(cli.main, *tracer)


def call_in_fork(function: Callable[[], object], *tracer: str) -> subprocess.CompletedProcess[str]:
    """Call a function in a fork, so that what it imports and keeps changes nothing for those that come after."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_exit_code(function, traced=bool(tracer)))
        tracing = subprocess.Popen([*tracer, "-p", str(child)]) if tracer else None
        _, status = os.waitpid(child, 0)
        if tracing is not None:
            tracing.wait(PATIENCE_SECONDS)
        texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
    return subprocess.CompletedProcess(sys.argv, os.waitstatus_to_exitcode(status), *texts)


class _Fork:
    """A process of a stage that begins as a fork of this one."""

    def __init__(self, pipe: Connection) -> None:
        build = os.getpid()
        self._process = multiprocessing.get_context("fork").Process(target=worker.work, args=(pipe.fileno(), build))
        self._process.start()

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode or 0


def _prepare(also: Sequence[str], adopt_bytes: int) -> None:
    seal.ADOPT_BYTES = adopt_bytes
    ready_to_fork(*USED, *also)
    for stage in (ExportOnnx, Fuse, Partition, Compile, OnnxRuntimeEngine, Assemble, Seal):
        code_version(stage.__module__)
    worker.start = _Fork
    # A lock that a dead process still held would be an error at once.
    os.environ["WANC_LOCK_TIMEOUT"] = "0"


def _exit_code(function: Callable[[], object], *, traced: bool) -> int:
    """What the interpreter would exit with."""
    try:
        if traced:
            _wait_for_tracer()
        function()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    else:
        return 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait_for_tracer() -> None:
    """Return as soon as this process is traced, with no call in between that might be counted or not."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PTRACER_ANY)
    status = os.open("/proc/self/status", os.O_RDONLY)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while b"TracerPid:\t0\n" in os.pread(status, 4096, 0):
        if time.monotonic() > deadline:
            raise TimeoutError("nobody traces this process")
        time.sleep(0.001)
    os.close(status)
