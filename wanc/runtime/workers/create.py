"""The workers of a bundle whose graphs lie on several devices, and which processors each of them has."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from ..cores import all_cores
from ..engine_file import EngineFile, Key
from ..errors import UserError
from ..pool import ArrayPool, Empty
from .execution import Execute
from .plan import DevicePlan
from .ray_address import cluster_address
from .thread_worker import ThreadWorker
from .worker import DeviceWorker

if TYPE_CHECKING:
    from ..folder import PlainFolder
    from .process_worker import ProcessWorker
    from .ray_worker import RayWorkers

TIMEOUT = 600.0
"""Seconds that a device has for one segment, opening its file included."""

Transport: TypeAlias = Literal["threads", "processes", "ray"]
"""How devices are kept apart: by threads of this process, each by a process of its own, or by a cluster's machines."""

_ALONE = "this bundle is placed on one device"


def chosen_timeout(asked: float | None, devices: tuple[str, ...]) -> float:
    """What was asked for, `TIMEOUT` unless it was. Raises UserError where that is no time, or nobody has it."""
    if asked is None:
        return TIMEOUT
    if not 0 < asked < math.inf:
        raise UserError(f"a time-out of {asked:g} s for workers", hint="give more than 0 seconds")
    if len(devices) < 2:
        raise UserError(f"a time-out for workers has no effect: {_ALONE}", hint="leave --worker-timeout out")
    return asked


def chosen_transport(asked: str | None, devices: tuple[str, ...]) -> Transport:
    """What was asked for, `threads` unless it was. Raises UserError where there is no such thing, or not for these."""
    if asked is None:
        return "threads"
    transport = "ray" if cluster_address(asked) else asked
    if transport not in get_args(Transport) or asked == "ray":
        raise UserError(
            f"workers are {ascii(asked)[:40]}",
            hint="ask for threads, processes, or ray:HOST:PORT, a cluster that is running",
        )
    if transport != "threads" and len(devices) < 2:
        raise UserError(
            f"there are no processes of workers: {_ALONE}", hint="leave --workers out, or build for several devices"
        )
    if transport == "processes" and sys.platform != "linux":
        raise UserError("workers share memory as Linux has it", hint="leave --workers out")
    return cast("Transport", transport)


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


def shared_pool() -> ArrayPool:
    """Of arrays that lie in memory which processes share."""
    from .shared_memory import SharedBlock  # what it takes is on Linux alone

    return ArrayPool(memory=SharedBlock.make)


def process_workers(
    plans: Iterable[DevicePlan], empty: Empty, seconds: float, on_ran: Callable[[Key, float], object]
) -> dict[str, ProcessWorker]:
    """A worker for each device, as a process of its own: see `ProcessWorker`."""
    from .process_worker import ProcessWorker  # as above

    return {plan.device: ProcessWorker(plan, empty, seconds, on_ran) for plan in plans}


def ray_workers(
    transport: str,
    folder: PlainFolder,
    files: Collection[EngineFile],
    threads: int,
    thrifty: Collection[str],
    seconds: float,
    on_ran: Callable[[Key, float], object],
) -> RayWorkers:
    """A worker for each device of a bundle, on the machines of a cluster. Raises what `RayWorkers` raises."""
    # It takes a package that most runs do without.
    from .ray_worker import RayWorkers

    address = cluster_address(transport)
    assert address is not None, transport
    return RayWorkers(address, folder, files, devices_of(files), threads, thrifty, seconds, on_ran)
