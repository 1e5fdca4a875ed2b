"""The machine: cores, memory, what its processor computes fast, and its GPUs. Read from Linux's own files."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wanc.runtime.cores import available_cores

# Precision → the processor features that make it fast, as /proc/cpuinfo calls them; x86 first, then Arm.
FAST: Mapping[str, tuple[str, ...]] = {
    "float32": ("avx2", "avx512f", "asimd", "sve"),
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp"),
    "int8": ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"),
}
_SMI_QUERY = ("name", "memory.total", "compute_cap", "driver_version")
_SMI_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU. Without nvidia-smi, only its name is known, if that."""

    name: str
    memory_bytes: int | None = None
    compute_capability: str | None = None
    driver: str | None = None


@dataclass(frozen=True)
class Machine:
    """What programs find here. `cores` and `memory_bytes` are what this process may use; swap is 0 where there is none.

    `fast` maps a precision to the processor features, of those in `FAST`, that this machine has for it. `hides_network`
    tells whether a stage gets a network of its own, with nothing in it; `read_machine` does not try that.
    """

    system: str
    architecture: str
    processor: str
    cores: int
    fast: Mapping[str, tuple[str, ...]]
    memory_bytes: int
    available_bytes: int
    swap_bytes: int
    gpus: tuple[Gpu, ...]
    hides_network: bool = True


def read_machine(root: Path = Path("/")) -> Machine:
    """This machine, as the files below `root` (proc, sys, dev) describe it; what they do not say is empty or 0."""
    processor = _pairs(root / "proc/cpuinfo")
    flags = set((processor.get("flags") or processor.get("Features") or "").split())
    memory = _pairs(root / "proc/meminfo")
    total = _kibibytes(memory, "MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(total, _limit(root) or total)
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        processor=processor.get("model name", ""),
        cores=available_cores(),
        fast={name: found for name, features in FAST.items() if (found := tuple(f for f in features if f in flags))},
        memory_bytes=limit,
        available_bytes=min(limit, _kibibytes(memory, "MemAvailable") or limit),
        swap_bytes=_kibibytes(memory, "SwapTotal"),
        gpus=_gpus(root),
    )


def _pairs(path: Path) -> dict[str, str]:
    """The `name: value` lines of a file under /proc; of equal names the first, which is the first processor's."""
    pairs: dict[str, str] = {}
    with suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            pairs.setdefault(name.strip(), value.strip())
    return pairs


def _kibibytes(pairs: Mapping[str, str], name: str) -> int:
    match = re.fullmatch(r"(\d{1,15}) kB", pairs.get(name, ""))
    return int(match[1]) * 1024 if match else 0


def _limit(root: Path) -> int | None:
    """The memory that a container may use, in bytes (cgroup v2, then v1); None where there is no limit."""
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return int((root / name).read_text("ascii"))  # "max" is a ValueError
    return None


def _gpus(root: Path) -> tuple[Gpu, ...]:
    found = tuple(
        Gpu(_pairs(path).get("Model", "NVIDIA GPU"))
        for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    )
    devices = [path for path in sorted((root / "dev").glob("nvidia[0-9]*")) if path.name[6:].isdigit()]
    # A container may see the driver's files and not the devices.
    return _from_smi() or found[: len(devices)] or tuple(Gpu("NVIDIA GPU") for _ in devices)


def _from_smi() -> tuple[Gpu, ...]:
    """What nvidia-smi lists; nothing where it is missing, fails, or takes too long."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_SMI_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines())]
    return tuple(
        Gpu(name, int(memory) * 2**20 if memory.isdecimal() else None, capability or None, driver or None)
        for name, memory, capability, driver in (row for row in rows if len(row) == len(_SMI_QUERY))
    )
