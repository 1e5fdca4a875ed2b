"""What a contest says of this machine: how many FLOP/s it reaches in each number format, for plans that have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wanc.compiler.planner.costs import Format
from wanc.compiler.planner.profile import Profile

KIND = "cpu"
FLOATS: Mapping[Format, tuple[str, ...]] = {
    "fp32": ("wanc onnxruntime", "wanc openvino"),
    "bf16": ("wanc openvino bf16",),
}
"""The contenders that multiply in one format alone."""
INTEGERS: Mapping[str, Format] = {
    "wanc onnxruntime int8": "fp32",
    "wanc openvino int8": "fp32",
    "wanc openvino int8 bf16": "bf16",
}
"""Those whose Linears are in INT8, and the format of all else."""


def profile_of(report: Mapping[str, Any]) -> Profile:
    """The rates that the fastest contenders reached, over the median of their rounds; formats nobody has are left out.

    A step in INT8 is as long as its integer products, and the others at the rate of their own format.
    """
    entries = {entry["name"]: entry for entry in report["contenders"] if entry["flops"]}
    rates: dict[Format, float] = {}
    for number_format, names in FLOATS.items():
        if reached := [entries[name]["flops"] / entries[name]["median"] for name in names if name in entries]:
            rates[number_format] = max(reached)
    integer = [
        rate
        for name, rest in INTEGERS.items()
        if name in entries and rest in rates and (rate := _integer_rate(entries[name], rates[rest])) is not None
    ]
    if integer:
        rates["int8"] = max(integer)
    machine = report["machine"]
    told = f"{machine['processor']}, {report['threads']} of {machine['cores']} cores"
    return Profile(KIND, told, {name: float(f"{rate:.4g}") for name, rate in rates.items()})


def _integer_rate(entry: Mapping[str, Any], rest: float) -> float | None:
    """None where nothing is left for the integer products, so that their rate cannot be told."""
    integer = entry["flops"] * entry["int8_total_share"]
    seconds = entry["median"] - (entry["flops"] - integer) / rest
    return integer / seconds if integer and seconds > 0 else None
