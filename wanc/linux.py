"""What Linux does for a process, where Python has no call for it. Elsewhere nothing of it happens."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
ADDR_NO_RANDOMIZE, ASK = 0x0040000, 0xFFFFFFFF  # linux/personality.h
_TRIAL = "from wanc.linux import leave_network; raise SystemExit(not leave_network())"


def die_with(parent: int) -> None:
    """Let this process be killed when the one that started it, whose number is `parent`, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that
            os._exit(1)


def leave_network() -> bool:
    """Give this process a network of its own, with nothing in it, for good; whether that was possible.

    Only the superuser may do that as such. Anybody may who is the superuser of a user namespace of its own, which a
    process with more than one thread cannot enter, and which some systems do not allow.
    """
    if sys.platform != "linux":
        return False
    libc, user, group = ctypes.CDLL(None), os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET) == 0:
        return True
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        return False
    with suppress(OSError):  # without these it has no name, and may do what it might before
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def can_leave_network() -> bool:
    """Whether `leave_network` works here, tried in another process."""
    return subprocess.run([sys.executable, "-P", "-c", _TRIAL], stderr=subprocess.DEVNULL, check=False).returncode == 0


def fix_addresses() -> None:
    """Begin this process again, unless it was, so that what it loads and allocates has the same addresses every time.

    It is for libraries that go through things in the order of their addresses. Some systems do not allow it: then
    nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    kind = libc.personality(ASK)
    if kind < 0 or kind & ADDR_NO_RANDOMIZE:
        return
    libc.personality(kind | ADDR_NO_RANDOMIZE)
    if libc.personality(ASK) & ADDR_NO_RANDOMIZE:
        os.execv(sys.executable, sys.orig_argv)


def private_bytes() -> int | None:
    """The private memory of this process, as RLIMIT_DATA counts it; None where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii"), flags=re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None
