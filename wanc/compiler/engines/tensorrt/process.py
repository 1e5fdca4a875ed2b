"""Building an engine in a process of its own, confined as that of a stage is: its end, and what it means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from wanc.compiler.engines.tensorrt.building import BuildOutcome, BuildTask
from wanc.compiler.stages.confinement import confine, environment
from wanc.errors import EXIT_UNAVAILABLE, CheckpointError, OutputError, UserError

BEGIN = """
import importlib, json, sys
paths, module, outcome, build = map(json.loads, sys.argv[1:])
sys.path[:] = paths
from wanc.linux import fix_addresses
fix_addresses()  # TensorRT lists the outputs of a graph in the order in which they lie in memory
from wanc.compiler.engines.tensorrt.process import work
work(importlib.import_module(module).build_engine, outcome, build)
"""
OUT_OF_MEMORY = ("OutOfMemory", "out of memory", "std::bad_alloc")


def build_in_process(
    module: str, task: BuildTask, where: str, extra: str, variables: Mapping[str, str] | None = None
) -> BuildOutcome:
    """Have a module's `build_engine` build an engine; `where` is the graph, `extra` the extra that the library is of.

    `variables` are those of the process besides a stage's. Raises UserError where the library is missing, of another
    version, or needs more memory than there is, CheckpointError where it does not take the graph, and OutputError where
    the engine cannot be written. Then the engine's file is gone.
    """
    with TemporaryDirectory() as folder:
        outcome = Path(folder) / "outcome.json"
        told = map(json.dumps, (sys.path, module, str(outcome), os.getpid()))
        process = subprocess.run(
            [sys.executable, "-P", "-c", BEGIN, *told],
            input=json.dumps(asdict(task)),
            text=True,
            capture_output=True,
            env={**environment(), **(variables or {})},
        )
        if outcome.exists():
            found = TypeAdapter(BuildOutcome).validate_json(outcome.read_bytes())
            fault = _fault(found, where, extra, task)
        else:
            found, fault = BuildOutcome(), _died(process, where)
    if fault is not None:
        Path(task.engine).unlink(missing_ok=True)
        raise fault
    return found


def work(build_engine: Callable[[BuildTask], BuildOutcome], outcome: str, build: int) -> None:
    """In that process: build what is told on standard input, and write how it ended; `build` is who wants it."""
    confine(build)
    task = TypeAdapter(BuildTask).validate_json(sys.stdin.read())
    Path(outcome).write_text(json.dumps(asdict(build_engine(task))))


def _fault(found: BuildOutcome, where: str, extra: str, task: BuildTask) -> UserError | None:
    install = f"pip install 'wanc[{extra}]'"
    if found.missing is not None:
        return UserError(f"{extra} needs the package {found.missing}", hint=install, exit_code=EXIT_UNAVAILABLE)
    if found.version is not None:
        return UserError(f"{extra} {found.version}", hint=install, exit_code=EXIT_UNAVAILABLE)
    if found.unwritten is not None:
        error = OutputError(f"{where}: its engine cannot be written", where=str(Path(task.engine).parent))
        error.__cause__ = RuntimeError(found.unwritten)
        return error
    if not found.faults:
        return None
    cause = RuntimeError(found.faults[0].strip())
    if any(word in fault for fault in found.faults for word in OUT_OF_MEMORY):
        hint = "build where there is more: it takes up to 3.5 times what the graph's weights have"
        error = UserError(f"{where}: {extra} needs more memory", hint=hint, exit_code=EXIT_UNAVAILABLE)
    else:
        hint = "tell us, and build with another engine.kind, or for other engine.targets, until then"
        error = CheckpointError(f"{where}: {extra} does not build this graph", hint=hint)
    error.__cause__ = cause
    return error


def _died(process: subprocess.CompletedProcess[str], where: str) -> UserError:
    last = (process.stderr.strip() or "it says nothing").splitlines()[-1]
    how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    error = UserError(
        f"{where}: the process that builds its engine ended with {how}",
        hint="most often the system is out of memory: `dmesg` tells",
        exit_code=EXIT_UNAVAILABLE,
    )
    error.__cause__ = RuntimeError(last)
    return error
