"""Kinds of devices that a recipe adds, or of which it knows better."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from wanc.compiler.planner.costs import Format
from wanc.compiler.planner.devices import Device, Efficiency
from wanc.compiler.planner.known_devices import DEVICES
from wanc.compiler.planner.links import LINKS
from wanc.errors import RecipeError

NUMBERS = ("memory", "bandwidth", "host_link", "nvlink")
FIELDS = ("like", "capability", "peaks", "efficiencies", "pcie", *NUMBERS)
ASSUMED = 0.4


def with_overrides(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Device]:
    """All kinds of devices by name: the known ones, with `changes` (kind → field → value) made to them.

    A kind that is not known needs `like`, the known one that it takes all other fields from. `peaks` and
    `efficiencies` are mappings by format, merged into what is there; a peak of None removes the format.
    """
    devices = dict(DEVICES)
    for kind, values in changes.items():
        devices[kind] = _changed(kind, values)
    return devices


def _changed(kind: str, values: Mapping[str, Any]) -> Device:
    where = f"device {kind!r}"
    for name in values:
        if name not in FIELDS:
            close = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"its fields are {', '.join(FIELDS)}"
            raise RecipeError(f"{where} has no field {name!r}", hint=hint)
    base = _base(kind, values.get("like"), where)
    numbers = {name: _positive(values[name], f"{name} of {where}") for name in NUMBERS if name in values}
    texts = {name: str(values[name]) for name in ("capability", "pcie") if name in values}
    if texts.get("pcie", base.pcie) not in LINKS:
        raise RecipeError(f"pcie of {where} is {texts['pcie']!r}", hint="write pcie-gen4 or pcie-gen5")
    changes: dict[str, Any] = {**numbers, **texts}
    if "memory" in numbers:
        changes["memory"] = int(numbers["memory"])
    device = _with_peaks(replace(base, kind=kind, **changes), values.get("peaks", {}))
    return device.with_efficiencies(values.get("efficiencies", {}), "recipe")


def _base(kind: str, like: str | None, where: str) -> Device:
    """The known device that an override begins with. Of a new kind its efficiencies are only assumed."""
    if like is None and kind in DEVICES:
        return DEVICES[kind]
    if like is None or like not in DEVICES:
        said = f"is like {like!r}, which" if like else "has no `like`, and"
        raise RecipeError(f"{where} {said} is not known", hint=f"write `like:` with one of {', '.join(DEVICES)}")
    base = DEVICES[like]
    assumed = {name: Efficiency(one.value, f"assumed from {like}") for name, one in base.efficiencies.items()}
    return replace(base, efficiencies=assumed)


def _with_peaks(device: Device, peaks: Mapping[str, Any]) -> Device:
    formats: dict[str, Format] = {name: name for name in get_args(Format)}
    merged, efficiencies = dict(device.peaks), dict(device.efficiencies)
    for name, value in peaks.items():
        if name not in formats:
            raise RecipeError(
                f"peaks of device {device.kind!r}: {name!r} is no format", hint=f"choose among {', '.join(formats)}"
            )
        known = formats[name]
        if value is None:
            merged.pop(known, None)
            efficiencies.pop(known, None)
            continue
        merged[known] = _positive(value, f"peak of device {device.kind!r} in {name}")
        efficiencies.setdefault(known, Efficiency(ASSUMED, "assumed"))
    return replace(device, peaks=merged, efficiencies=efficiencies)


def _positive(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise RecipeError(f"{what} is {value!r}", hint="write a number above 0, in bytes, bytes/s or FLOP/s")
    return float(value)
