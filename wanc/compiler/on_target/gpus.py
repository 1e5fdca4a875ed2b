"""The GPUs that a process finds here, as NVIDIA's driver tells: no other library is asked."""

from __future__ import annotations

import ctypes
import uuid
from dataclasses import dataclass
from typing import Any

DRIVER = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CUdevice_attribute: the compute capability
_NAME_BYTES = 256


@dataclass(frozen=True)
class TargetGpu:
    """One GPU; `target` is what engines are compiled for that it executes, `sm90`, and `id` how CUDA names it."""

    name: str
    target: str
    id: str


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
    name, own = ctypes.create_string_buffer(_NAME_BYTES), ctypes.create_string_buffer(16)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceGetUuid(own, device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    target = f"sm{major.value}{minor.value}"
    return TargetGpu(name.value.decode("utf-8", "replace"), target, f"GPU-{uuid.UUID(bytes=own.raw)}")
