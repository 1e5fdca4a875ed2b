"""A way to a Ray cluster: to one that runs, or to one of this machine alone, which is started and ended again.

Ray is told to keep to itself: it reports nothing to anybody, serves no dashboard, and prints nothing of its own. A
cluster that is started here listens on the loopback interface only, takes orders only from who knows its token, and
keeps its files in a folder that goes with it.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, chdir, contextmanager, redirect_stdout
from importlib import import_module
from tempfile import TemporaryDirectory
from threading import current_thread, main_thread
from typing import Any, TextIO, cast

from ..errors import EXIT_UNAVAILABLE, RemoteCause, UserError
from ..voice import explain

CONNECT_SECONDS = 30.0
"""After which a cluster that gives no answer is none. Ray itself would ask for many minutes, and tell each time."""
OBJECT_STORE_BYTES = 80 * 2**20
"""About the least that Ray takes. What travels through it are orders, and no weights."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
"""With any cluster; by the last, what Ray has to print comes from its own threads alone (see `WithoutRay`)."""
ALONE = {"RAY_enable_metrics_collection": "0", "RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Of a cluster of this machine alone; by the last, whatever it is named after, its address is that of the loopback."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TRIAL = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False)"


class WithoutRay:
    """Standard output while Ray is there: what its threads print, of nodes that die, is for those who want to know.

    It would otherwise stand in the middle of a result that a program reads.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not current_thread().name.startswith("ray_"):
            return self._stream.write(text)
        if text.strip():  # what is behind the first line are counters of Ray's own
            explain(f"Ray: {_COLOUR.sub('', text.strip().splitlines()[0])}")
        return len(text)


@contextmanager
def connected(address: str | None) -> Generator[Any]:
    """The module `ray`, connected to the cluster at `address` ("HOST:PORT"), or to one that lives as long as the body.

    Raises UserError where there is none, within `CONNECT_SECONDS`.
    """
    with ExitStack() as stack:
        if address is None:
            folder = stack.enter_context(TemporaryDirectory(prefix="wanc-ray-", ignore_cleanup_errors=True))
            variables = {**QUIET, **ALONE, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            options = {"address": "local", "_temp_dir": folder, "object_store_memory": OBJECT_STORE_BYTES}
        else:
            _check_answers(address)
            variables, options = QUIET, {"address": address}
        stack.enter_context(_with_variables(variables))
        stack.enter_context(redirect_stdout(cast(TextIO, WithoutRay(sys.stdout))))
        ray: Any = import_module("ray")
        logging.getLogger("ray").setLevel(logging.ERROR)
        _begin(ray, address, options)
        stack.callback(ray.shutdown, wait_for_processes=True)
        yield ray


def node_name() -> str:
    """What the node is called that this process works on, for people: its address and the beginning of its id."""
    ray: Any = import_module("ray")
    return f"node {ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"


def _begin(ray: Any, address: str | None, options: Mapping[str, Any]) -> None:
    """Connect, with two things as they are without Ray.

    It puts a handler of its own in the place of ours, by which a process that is ended has another exit code; and its
    processes import first what lies in the folder where they were asked for, another wanc for one.
    """
    ours = signal.getsignal(signal.SIGTERM)
    try:
        with chdir("/"):
            ray.init(**options, include_dashboard=False, log_to_driver=False, configure_logging=False)
    except Exception as error:
        raise _unreachable(address) from cause_of(str(error))
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, ours)


def _check_answers(address: str) -> None:
    """Raise UserError unless a process that connects to the cluster manages to, in the time that it has."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        done = subprocess.run(
            [sys.executable, "-P", "-c", TRIAL, address],
            env={**os.environ, **QUIET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CONNECT_SECONDS,
            check=False,
        )
    except (OSError, OverflowError) as error:
        raise _unreachable(address) from error
    except subprocess.TimeoutExpired:
        silent = f"what listens there gave no answer within {CONNECT_SECONDS:g} s"
        raise _unreachable(address) from cause_of(silent)
    if done.returncode:
        raise _unreachable(address) from cause_of(done.stderr)


def _unreachable(address: str | None) -> UserError:
    if address is None:
        return UserError(
            "a Ray cluster cannot be started on this machine",
            hint="build without one: --executor in-process",
            exit_code=EXIT_UNAVAILABLE,
        )
    return UserError(
        "there is no Ray cluster that can be joined",
        where=address,
        hint="give the address that `ray start --head` prints, and build on one of the cluster's nodes",
        exit_code=EXIT_UNAVAILABLE,
    )


def cause_of(text: str) -> RemoteCause:
    """The last line of what Ray says: what is above are its own files and lines."""
    lines = text.strip().splitlines()
    return RemoteCause(lines[-1] if lines else "it gave no reason")


@contextmanager
def _with_variables(values: Mapping[str, str]) -> Generator[None]:
    """These variables, for this process and those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
