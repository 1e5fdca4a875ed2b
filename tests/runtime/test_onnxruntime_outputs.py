"""Outputs of ONNX Runtime lie where the runtime's arrays do; what a file says of their sizes need not be true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from wanc.runtime.backends.onnxruntime import OnnxRuntime
from wanc.runtime.pool import ArrayPool

HEADER = '<ir_version: 10, opset_import: ["" : 20]>'
ROWS = np.arange(4096, dtype=np.float32).reshape(1024, 4)


def engine(folder: Path, declared: str) -> Path:
    """Doubles the rows of x; `declared` is what it says of the shape of y."""
    text = f"{HEADER} g (float[rows, 4] x) => (float[{declared}] y) {{ y = Concat <axis = 0> (x, x) }}"
    path = folder / "engine.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize("declared", ["twice, 4", "rows, 4", "2048, 4", "4", "1, rows, 4"])
def test_outputs_are_right_and_of_the_pool_whatever_is_declared(tmp_path: Path, declared: str) -> None:
    pool = ArrayPool()
    backend = OnnxRuntime(engine(tmp_path, declared), threads=1, empty=pool.empty)
    for _ in range(2):
        (found,) = backend.run({"x": ROWS})
        np.testing.assert_array_equal(found, np.concatenate([ROWS, ROWS]))
        assert pool.counts().out == found.nbytes


def test_an_error_is_told_and_changes_nothing(tmp_path: Path) -> None:
    backend = OnnxRuntime(engine(tmp_path, "2048, 4"), threads=1)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        backend.run({"x": np.ones((3, 5), np.float32)})
    (found,) = backend.run({"x": ROWS})
    assert found.shape == (2048, 4)
