"""What the tests of ONNX files share: models as text, weights in files beside them, and one way to be refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.parser
import pytest

from wanc.errors import CheckpointError, render
from wanc.models.onnx_file import OnnxFile, open_onnx

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
IDENTITY = "g (float[3] x) => (float[3] y) { y = Identity (x) }"


def model(text: str = IDENTITY, *, header: str = HEADER) -> onnx.ModelProto:
    """A model in ONNX's text form (github.com/onnx/onnx, docs/Syntax.md)."""
    return onnx.parser.parse_model(f"{header} {text}")


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def opened(proto: onnx.ModelProto, folder: Path) -> OnnxFile:
    return open_onnx(saved(proto, folder))


def refusal(proto: onnx.ModelProto, folder: Path) -> str:
    """What a reader of the error sees, with the model's path as `m.onnx`. The exit code has to be 65."""
    path = saved(proto, folder)
    with pytest.raises(CheckpointError) as caught:
        open_onnx(path)
    assert caught.value.exit_code == 65
    return render(caught.value).replace(str(path), "m.onnx")


def external(name: str, shape: list[int], entries: Mapping[str, str], data_type: int = 1) -> onnx.TensorProto:
    """A tensor that says that it lies elsewhere."""
    tensor = onnx.TensorProto(name=name, data_type=data_type, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def with_weights(*tensors: onnx.TensorProto) -> onnx.ModelProto:
    """The identity, with initializers that nothing uses."""
    proto = model()
    proto.graph.initializer.extend(tensors)
    return proto
