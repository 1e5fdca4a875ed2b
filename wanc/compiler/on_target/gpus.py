"""The GPUs that a process finds here, as NVIDIA's driver tells: no other library is asked."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DRIVER = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CUdevice_attribute: the compute capability
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_NAME_BYTES = 256


@dataclass(frozen=True)
class TargetGpu:
    """One GPU; `target` is what engines are compiled for that it executes, `sm90`.

    `variables` leave it alone visible to a process.
    """

    name: str
    target: str
    variables: Mapping[str, str]


def visible_gpus() -> tuple[TargetGpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in their order; none where there is no driver, or it does not work."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_gpu(driver, number) for number in range(count.value))


def _gpu(driver: Any, number: int) -> TargetGpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    target = f"sm{major.value}{minor.value}"
    return TargetGpu(name.value.decode("utf-8", "replace"), target, alone(number))


def alone(number: int) -> dict[str, str]:
    """The variables with which a process sees the GPU of that number alone; GPUs are counted as this process does."""
    listed = os.environ.get(VISIBLE)
    order = {ORDER: os.environ[ORDER]} if ORDER in os.environ else {}
    return {**order, VISIBLE: listed.split(",")[number].strip() if listed else str(number)}
