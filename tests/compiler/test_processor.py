"""What is told of a processor: what kernels are chosen by, and nothing that changes from minute to minute."""

from __future__ import annotations

import platform
import sys

import pytest

from wanc.compiler.stages import processor as module
from wanc.compiler.stages.processor import described, processor

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: A processor @ 2.00GHz
cpu MHz\t\t: 2000.123
flags\t\t: fpu sse sse2 smep smap avx2 fma ssse3 bmi2 avx avx512_vnni amx_int8 sme

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu sse sse2
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm fphp asimdhp sve sve2 i8mm bf16 smei16i64 sme2
CPU implementer\t: 0x41
"""


def test_x86() -> None:
    """What it calls sme is no arithmetic, but encrypts memory."""
    assert described(X86) == {
        "vendor": "GenuineIntel",
        "instructions": "amx_int8 avx avx2 avx512_vnni fma sse sse2 ssse3",
    }


def test_arm() -> None:
    told = described(ARM)
    assert told["vendor"] == "0x41"
    instructions = ["asimd", "asimdhp", "bf16", "fphp", "i8mm", "sme2", "smei16i64", "sve", "sve2"]
    assert told["instructions"].split() == instructions


@pytest.mark.parametrize(
    "other",
    [X86.replace("2000.123", "800.1"), X86.replace("A processor", "Another"), X86.split("\n\n")[0], X86 + "\n" + X86],
)
def test_what_makes_no_difference(other: str) -> None:
    """The clock, the name on the box, and how many cores there are."""
    assert described(other) == described(X86)


@pytest.mark.parametrize(
    "other", [X86.replace("avx512_vnni ", ""), X86.replace("fpu sse ", "fpu sse avx10 "), X86.replace("Intel", "Other")]
)
def test_what_does(other: str) -> None:
    assert described(other) != described(X86)


def test_the_order_of_the_flags_does_not() -> None:
    assert described(X86.replace("avx2 fma", "fma avx2")) == described(X86)


def test_a_system_that_tells_nothing() -> None:
    assert described("") == {"vendor": platform.processor(), "instructions": ""}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_this_one() -> None:
    told = processor()
    assert told.keys() == {"vendor", "instructions", "caches"}
    assert told["instructions"] and "Instruction" not in told["caches"]
    assert all(cache.split()[0] in "1234" for cache in told["caches"].split(", ") if cache)
    if platform.machine() == "x86_64":
        assert "sse2" in told["instructions"].split()
    assert module.CPUINFO.exists()
