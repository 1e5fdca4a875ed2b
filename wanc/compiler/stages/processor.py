"""What of a processor shows in results: libraries choose their kernels by it, and each kernel has an order of sums.

How many cores there are, how fast they are, and what the machine is called make no difference.
"""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

CPUINFO, CACHES = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache")
ARITHMETIC = {
    "flags": re.compile(r"s?sse.*|avx.*|amx.*|fma4?|f16c"),
    "Features": re.compile(r"asimd.*|fphp|sve.*|sme.*|bf16|i8mm"),
}
"""What Linux calls the instructions that calculate, by the field that x86 processors have, and the one of ARM's."""


@functools.cache
def processor() -> dict[str, str]:
    """This machine's processor, as JSON: its maker, its instructions that calculate, and its caches for data.

    By the sizes of those, sums are divided into blocks. What the system does not tell, elsewhere than on Linux, is
    empty.
    """
    cpuinfo = CPUINFO.read_text("utf-8") if CPUINFO.exists() else ""
    caches = [_cache(folder) for folder in sorted(CACHES.glob("index*"))]
    return {**described(cpuinfo), "caches": ", ".join(cache for cache in caches if "Instruction" not in cache)}


def described(cpuinfo: str) -> dict[str, str]:
    """Maker and instructions, by the first core of what Linux tells of all."""
    lines = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    found = {
        word for field, known in ARITHMETIC.items() for word in fields.get(field, "").split() if known.fullmatch(word)
    }
    return {
        "vendor": fields.get("vendor_id") or fields.get("CPU implementer") or platform.processor(),
        "instructions": " ".join(sorted(found)),
    }


def _cache(folder: Path) -> str:
    """Such as `2 Unified 1024K`."""
    return " ".join((folder / name).read_text("utf-8").strip() for name in ("level", "type", "size"))
