"""The workers of a bundle whose graphs lie on several devices, and which processors each of them has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..cores import all_cores
from ..engine_file import EngineFile
from .execution import Execute
from .thread_worker import ThreadWorker
from .worker import DeviceWorker

TIMEOUT = 600.0
"""Seconds that a device has for one segment, opening its file included."""


def devices_of(files: Iterable[EngineFile]) -> tuple[str, ...]:
    """The devices that execute these files, in the order of their names."""
    return tuple(sorted({device for file in files for device in (file.ranks or (file.device,))}))


def cores_of(devices: tuple[str, ...]) -> dict[str, frozenset[int]]:
    """The processors of each device: equal shares of those that this process may use, in the order of their numbers.

    Where there are fewer than devices, several have the same one; where a system keeps no thread, none has any.
    """
    cores = sorted(all_cores())
    if not cores:
        return dict.fromkeys(devices, frozenset[int]())
    share = max(1, len(cores) // len(devices))
    return {
        device: frozenset(cores[(index * share + step) % len(cores)] for step in range(share))
        for index, device in enumerate(devices)
    }


def thread_workers(cores: Mapping[str, frozenset[int]], execute: Execute) -> dict[str, DeviceWorker]:
    """A worker for each device, in this process."""
    return {device: ThreadWorker(device, own, execute) for device, own in cores.items()}
