"""What the process of a stage may do: less than the build that started it.

A stage parses foreign files and, for a torch model, runs a foreign function. It should not leave a core file of 60 GB
behind, drive the machine into swapping, fetch what the recipe does not name, or depend on a stray variable.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from wanc.linux import die_with, leave_network
from wanc.runtime.backends.offline import stay_offline

# Variables that say where things are. Those that say how to calculate are not among them: on how many threads, with
# which instructions, how exactly. OPENBLAS_CORETYPE alone has made three different bundles of one recipe.
ALLOWED = (
    "PATH", "HOME", "USER", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SOURCE_DATE_EPOCH",
    "CUDA_HOME", "CUDA_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
)  # fmt: skip
ALLOWED_PREFIXES = ("LC_", "PYTHON", "WANC_")
# By the seed of their hashes, sets of texts have another order in every process, and so has what is made by going
# through one: a library does.
FIXED = {"HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}


def environment() -> dict[str, str]:
    """The variables of a stage's process.

    It has to be started with them: some are read by libraries as they are loaded, and some before Python begins.
    """
    kept = {name: value for name, value in os.environ.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)}
    return {**kept, **FIXED}


def confine(parent: int) -> None:
    """Confine this process for good; `parent` is the number of the process that started it.

    Elsewhere than on Linux only some of it is possible.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stay_offline()
    socket.has_ipv6 = False  # urllib3 would try a socket when it is loaded
    # Before anything has started a thread. Where it may not, `wanc doctor` says so, and there is HF_HUB_OFFLINE.
    leave_network()
    # A killed build leaves no stage running behind it.
    die_with(parent)
    if sys.platform == "linux":
        _limit_memory()


def _limit_memory() -> None:
    """No more private memory than the machine has. Files that are mapped, as weights are, do not count."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        kibibytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        most = (kibibytes["MemTotal"] + kibibytes["SwapTotal"]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
