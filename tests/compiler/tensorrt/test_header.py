"""The header of an engine file, against what was asked for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from wanc.compiler.engines.tensorrt_rtx.header import header_fault

VERSION = "1.7.1.116"


def engine(path: Path, *, magic: bytes = b"vtrt", version: tuple[int, ...] = (1, 7, 1, 116), bits: int = 8) -> Path:
    header = bytearray(0x40)
    header[:4], header[0x18:0x1C] = magic, bytes(version)
    struct.pack_into("<Q", header, 0x10, 96)
    struct.pack_into("<I", header, 0x20, bits)
    path.write_bytes(bytes(header) + bytes(32))
    return path


def test_an_engine_of_the_target_passes(tmp_path: Path) -> None:
    assert header_fault(engine(tmp_path / "engine"), "sm89", VERSION) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"magic": b"ONNX"}, "it is no engine file of TensorRT"),
        ({"version": (1, 6, 1, 120)}, "it was written by version 1.6.1.120, not 1.7.1.116"),
        ({"bits": 2}, "it is for sm80, not for sm89"),
        ({"bits": 10}, "it is for sm80 and sm89, not for sm89"),
        ({"bits": 64}, "it is for no known target, not for sm89"),
    ],
)
def test_any_other_is_refused(changes: dict[str, object], fault: str, tmp_path: Path) -> None:
    assert header_fault(engine(tmp_path / "engine", **changes), "sm89", VERSION) == fault  # type: ignore[arg-type]


def test_one_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = engine(tmp_path / "engine")
    path.write_bytes(path.read_bytes()[:80])
    assert header_fault(path, "sm89", VERSION) == "it has 80 bytes, and its header says 96"
