"""Weights in a file of the program's own: where the references say that they are, and no file where there are none."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from wanc.compiler.program.program import weight_files
from wanc.compiler.weights.own_file import ALIGNMENT, EMBEDDED_BYTES, FILE, OwnFile, store_weights

TENSORS = {
    "a.weight": ir.tensor(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "a.weight.codes": ir.Tensor(np.array([[1, -2, 3], [-8, 7, 0]], ml_dtypes.int4), ir.DataType.INT4),
    "b.weight.codes": ir.tensor(np.array([[1.5, -448]], ml_dtypes.float8_e4m3fn)),
    "c": ir.tensor(np.array(7, np.int64)),
    "d": ir.tensor(np.ones(3, ml_dtypes.bfloat16)),
}


@pytest.mark.parametrize("name", ["weights.bin", "denoiser_high/quantized.bin"])
def test_what_was_written_is_where_the_references_say(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    with OwnFile(tmp_path, name) as file:
        references = {key: file.add(key, tensor) for key, tensor in TENSORS.items()}
    data = weight_files({name: tmp_path / name}, {})[f"program/{name}"].read_bytes()
    for key, tensor in TENSORS.items():
        reference, weight = references[key], file.entries[key]
        assert (reference.location, reference.offset, reference.length) == (weight.file, weight.offset, weight.length)
        assert (reference.dtype, reference.shape, reference.name) == (tensor.dtype, tensor.shape, key)
        assert (weight.dtype, weight.shape) == (tensor.dtype.name, tuple(tensor.shape.numpy()))
        assert weight.offset % ALIGNMENT == 0
        assert data[weight.offset : weight.offset + weight.length] == tensor.tobytes()
    assert file.entries["a.weight.codes"].length == 3, "two codes of four bits are a byte"


def test_no_file_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with OwnFile(tmp_path, "weights.bin"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_small_tensors_stay_in_the_graph(tmp_path: Path) -> None:
    large = np.arange(EMBEDDED_BYTES // 4 + 1, dtype=np.float32)
    tensors = {
        "large": ir.tensor(large),
        "small": ir.tensor(large[:-1]),
        "texts": ir.tensor(["x" * EMBEDDED_BYTES] * 2),
        "elsewhere": ir.ExternalTensor("x.bin", 0, 4000, ir.DataType.FLOAT, shape=ir.Shape([1000]), name="elsewhere"),
    }
    values = [ir.Value(name=name, const_value=tensor) for name, tensor in tensors.items()]
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=values), ir_version=11)
    (tmp_path / FILE).parent.mkdir()
    assert store_weights(model, tmp_path).keys() == {"large"}
    moved = model.graph.initializers["large"].const_value
    assert isinstance(moved, ir.ExternalTensor) and moved.location == f"program/{FILE}"
    np.testing.assert_array_equal(np.fromfile(tmp_path / FILE, np.float32), large)
    assert all(model.graph.initializers[name].const_value is tensors[name] for name in ("small", "texts", "elsewhere"))
