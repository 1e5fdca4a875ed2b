"""ONNX's own checker and shape inference, on a graph that a stranger has made.

They are C++, and there are graphs of a single node at which they follow a null pointer or fill the memory. So they are
called in forks. A graph at which one dies is refused, with the node at which it does: the stages that work on it
later call the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import onnx

from wanc.errors import CheckpointError
from wanc.models.forked import DeathError, call_in_fork
from wanc.models.onnx_check import describe_node
from wanc.models.onnx_limits import inference_seconds

SMALL_BYTES = 1024
"""Values of larger tensors are no shapes, and what is inferred does not depend on them."""
SEARCH_SECONDS = 2
"""For finding the node: it is done for the reader's sake only."""

Work = Callable[[onnx.ModelProto], bytes]


def inferred_outputs(model: onnx.ModelProto, *, where: str) -> list[onnx.ValueInfoProto]:
    """The graph's outputs, with types and shapes as far as they can be inferred.

    Raises CheckpointError where the library dies of it.
    """
    answer = _survived(_without_weights(model), _outputs, where)
    return list(model.graph.output if answer is None else onnx.GraphProto.FromString(answer).output)


def check_survival(model: onnx.ModelProto, *, where: str) -> None:
    """Raises CheckpointError where the library dies of what later stages ask of it; what it says does not matter."""
    _survived(_without_weights(model), _as_later_stages, where)


def _outputs(model: onnx.ModelProto) -> bytes:
    inferred = onnx.shape_inference.infer_shapes(model)
    return onnx.GraphProto(output=inferred.graph.output).SerializeToString()


def _as_later_stages(model: onnx.ModelProto) -> bytes:
    with suppress(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return b""


def _survived(model: onnx.ModelProto, work: Work, where: str) -> bytes | None:
    seconds = inference_seconds(model.ByteSize())
    try:
        return call_in_fork(lambda: work(model), seconds=seconds)
    except DeathError as death:
        node = _fatal_node(model, work)
        raise CheckpointError(
            f"onnx {onnx.__version__} {death}{f' over {node}' if node else ''}",
            where=where,
            hint="onnx's checker and shape inference see every graph that is built: "
            "are the node's inputs and attributes what its operator takes?",
        ) from None


def _fatal_node(model: onnx.ModelProto, work: Work) -> str | None:
    """The last node of the shortest beginning of the graph that is fatal as well; None where that takes too long."""
    survived, fatal = -1, len(model.graph.node)
    deadline = time.monotonic() + SEARCH_SECONDS
    while fatal - survived > 1:
        if time.monotonic() > deadline:
            return None
        middle = (survived + fatal) // 2
        beginning = onnx.ModelProto()
        beginning.CopyFrom(model)
        del beginning.graph.node[middle:]
        try:
            call_in_fork(lambda beginning=beginning: work(beginning), seconds=1)
            survived = middle
        except DeathError:
            fatal = middle
    return describe_node(model.graph.node[fatal - 1], fatal - 1) if fatal else None


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inputs in the place of its weights, as later stages hand it over."""
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    tensors = list(slim.graph.initializer)
    del slim.graph.initializer[:]
    inputs = {value.name for value in slim.graph.input}
    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.ByteSize() <= SMALL_BYTES:
            slim.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            slim.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return slim
