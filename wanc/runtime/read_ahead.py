"""Reading what will be mapped soon, so that the system has its pages by then: they are not this process's."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

CHUNK_BYTES = 2**20


def read_through(engine: Path) -> None:
    """Read an engine file, and what lies beside it for it alone: `step.s3.cpu.xml`, `step.s3.cpu.bin`, and
    `weights.s3.cpu.bin`. What cannot be read is for who needs it to tell.
    """
    _, _, ending = engine.name.partition(".")
    weights = engine.with_name(f"weights.{ending}").with_suffix(".bin")
    chunk = bytearray(CHUNK_BYTES)
    for path in (engine, engine.with_suffix(".bin"), weights):
        with suppress(OSError), path.open("rb", buffering=0) as file:
            while file.readinto(chunk):
                pass
