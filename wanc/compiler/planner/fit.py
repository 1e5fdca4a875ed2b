"""The one number that is fitted: the share of its peak that a device reaches, from the time of a whole video on it."""

from __future__ import annotations

from wanc.compiler.planner.costs import Format, VideoCosts
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.roofline import component_seconds

# Halvings of the interval from 0 to 1, down to what float64 tells apart.
HALVINGS = 50


def one_device_seconds(costs: VideoCosts, device: Device) -> float:
    """Of one video on one device, everything one behind the other, whether or not it has room for it."""
    return sum(component_seconds(component, device) for component in costs.components)


def fitted_efficiency(costs: VideoCosts, device: Device, seconds: float, number_format: Format = "bf16") -> float:
    """The efficiency with which one video is predicted to take so many seconds on one device.

    A prediction only falls as the efficiency grows, so that halving an interval finds it. Where even the peak rate is
    too slow the answer is 1.
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried = device.with_efficiencies({number_format: middle}, "tried")
        low, high = (middle, high) if one_device_seconds(costs, tried) > seconds else (low, middle)
    return high
