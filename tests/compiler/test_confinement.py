"""What a stage's process may reach: nobody, whoever it is that builds."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults.prober import call_in_fork, probers
from wanc.compiler.stages.worker import call_in_worker
from wanc.linux import can_leave_network

pytestmark = pytest.mark.usefixtures("fresh_stages")

NOBODY = 65534
PR_SET_DUMPABLE = 4  # linux/prctl.h


@pytest.fixture(scope="module")
def prober() -> Iterator[ProcessPoolExecutor]:
    # Nobody else may read where Python lies, as below /root: what it would load later has to be there.
    with probers(1, also=("encodings.ascii", "encodings.idna")) as pool:
        yield pool


def look_around(port: int, folder: str) -> dict[str, Any]:
    """What a worker sees of the network, and whether it is still who it was to the files."""
    codes = {}
    for address in ("127.0.0.1", "192.0.2.1"):
        with socket.socket() as connection:
            connection.settimeout(2)
            codes[address] = connection.connect_ex((address, port))
    devices = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    path = Path(folder, "written")
    path.write_text("x")
    return {
        "codes": codes,
        "devices": [line.split(":")[0].strip() for line in devices],
        "routes": Path("/proc/self/net/route").read_text().splitlines()[1:],
        "user": os.getuid(),
        "owns what it writes": path.stat().st_uid == os.getuid(),
    }


def look(user: int, port: int, folder: str) -> None:
    """Become a user, and print what a worker sees that this user starts."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)  # as after any exec
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", port))  # out here there is somebody to be reached
    print(json.dumps({"possible": can_unshare(), **call_in_worker("any", look_around, port, folder)}))


def can_unshare() -> bool:
    """Whether the system lets this user have a network of its own, by util-linux's word."""
    return subprocess.run(["unshare", "--user", "--net", "true"], stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser becomes somebody else")
@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "nobody"])
def test_a_worker_reaches_nobody(prober: ProcessPoolExecutor, user: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        port = server.getsockname()[1]
        finished = prober.submit(call_in_fork, partial(look, user, port, folder)).result(60)
    assert finished.returncode == 0, finished.stderr
    seen = json.loads(finished.stdout)
    if not seen["possible"]:
        pytest.skip("this system gives nobody a network of their own")
    assert seen["devices"] == ["lo"]
    assert seen["routes"] == []
    assert all(seen["codes"].values()), "connect() fails everywhere"
    assert (seen["user"], seen["owns what it writes"]) == (user, True)


def test_what_the_doctor_goes_by_is_what_a_worker_gets(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        seen = call_in_worker("any", look_around, server.getsockname()[1], str(tmp_path))
    assert can_leave_network() == (seen["codes"]["127.0.0.1"] != 0)


ADDRESSES = """
import ctypes, sys
from wanc.linux import fix_addresses
fix_addresses()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
print(sys.stdin.read(), libc.malloc(100), ctypes.cast(libc.malloc, ctypes.c_void_p).value)
"""


def test_a_process_begins_again_with_addresses_that_are_always_the_same() -> None:
    """What it was told, and what it reads, it is told again."""
    told = [
        subprocess.run(
            [sys.executable, "-P", "-c", ADDRESSES], input="hello", capture_output=True, text=True, check=True
        )
        for _ in range(3)
    ]
    assert told[0].stdout.startswith("hello ")
    if ctypes.CDLL(None).personality(0x0040000) < 0:
        pytest.skip("this system does not allow it")
    ctypes.CDLL(None).personality(0)
    assert len({done.stdout for done in told}) == 1
