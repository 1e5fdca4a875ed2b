"""What is mapped soon is read before: the system has its pages then, as far as it tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.true_scale.disk import cached_bytes, put_out
from wanc.runtime.read_ahead import read_through

SIZE = 2**21


@pytest.mark.parametrize("ending", ["xml", "onnx"])
def test_an_engine_and_its_own_weights_are_read(ending: str, tmp_path: Path) -> None:
    own = [tmp_path / name for name in (f"step.s3.cpu.{ending}", "step.s3.cpu.bin", "weights.s3.cpu.bin")]
    others = [tmp_path / name for name in ("step.s4.cpu.bin", "weights.s4.cpu.bin", "request.s3.cpu.bin")]
    for path in (*own, *others):
        path.write_bytes(os.urandom(SIZE))
    put_out([*own, *others])
    if any(map(cached_bytes, own)):
        pytest.skip("this file system keeps its pages whatever it is told")
    read_through(own[0])
    assert [cached_bytes(path) for path in own] == [SIZE] * 3
    assert [cached_bytes(path) for path in others] == [0] * 3


def test_what_is_not_there_is_passed_over(tmp_path: Path) -> None:
    read_through(tmp_path / "step.s0.cpu.onnx")
