"""Constants among a file's nodes whose values lie beside it are weights like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from wanc.errors import CheckpointError
from wanc.models import onnx_limits as limits
from wanc.models.onnx_file import open_onnx, read_onnx

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def with_constant(*, in_branch: bool) -> onnx.ModelProto:
    """x · w, where w is a Constant, of the graph or of both branches of an If."""
    w = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHT, "value"))
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    nodes, inputs = [w, product], [x]
    if in_branch:
        product.output[0] = "p"
        p = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3])
        branches = {name: helper.make_graph(nodes, name, [], [p]) for name in ("then_branch", "else_branch")}
        nodes = [helper.make_node("If", ["c"], ["y"], **branches)]
        inputs.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )


@pytest.mark.parametrize("in_branch", [False, True])
def test_constants_that_lie_beside_the_file_are_weights(in_branch: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = with_constant(in_branch=in_branch)
    onnx.save(proto, path, save_as_external_data=True, convert_attribute=True, size_threshold=0, location="w.bin")
    files = open_onnx(path).files
    assert sorted(files) == ["data/w.bin", "model.onnx"]
    model = read_onnx(files).model
    assert "Constant" not in {node.op_type for node in model.graph.all_nodes()}
    graphs = list(model.graph.subgraphs()) if in_branch else [model.graph]
    for graph in graphs:
        tensor = graph.initializers["w"].const_value
        assert isinstance(tensor, ir.ExternalTensor)
        data = (tmp_path / "w.bin").read_bytes()[tensor.offset or 0 :][: tensor.nbytes]
        assert np.frombuffer(data, np.float32).tolist() == WEIGHT.reshape(-1).tolist()


def test_the_hint_for_a_file_that_is_too_large_can_be_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved as it says, the file is small: the constants lie beside it."""
    monkeypatch.setattr("wanc.models.onnx_file.MAX_PROTO_BYTES", 2**16)
    proto = with_constant(in_branch=False)
    proto.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.ones((2, 2**14), np.float32), "value"))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    with pytest.raises(CheckpointError) as caught:
        open_onnx(path)
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("onnx.save(model, path, save_as_external_data=True, convert_attribute=True)")
    onnx.save(proto, path, save_as_external_data=True, convert_attribute=True, location="w.bin")
    assert sorted(open_onnx(path).files) == ["data/w.bin", "model.onnx"]
    assert limits.MAX_PROTO_BYTES == 64 * 2**20
