"""What the tests of passes share: models as text before and after, and what they compute in onnxruntime."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes import common

from wanc.compiler.passes.fold import weights_hidden
from wanc.compiler.passes.rewrite import PassOutcome, Rewrite, rewriting
from wanc.runtime.backends.onnxruntime import FATAL_ONLY

Arrays = Mapping[str, np.ndarray[Any, Any]]
Apply = Callable[[ir.Model], PassOutcome]

# Both sides are float32 and differ in the order of sums only: 1e-7 to 5e-7 is what these sizes give. A wrong scale,
# axis or constant is thousands of times larger.
TOLERANCE = 2e-6
SHOWN = 16  # elements; longer constants are shown as their shape


def parse(text: str, *weights: str, opset: int = 23, shapes: bool = True) -> ir.Model:
    """A model in ONNX's text form. The inputs that `weights` names become weights, in a file that does not exist.

    Shapes are inferred, as they are for every graph that an exporter or an earlier pass hands over, unless `shapes`
    says otherwise.
    """
    for name in weights:  # the text form has no names with dots
        text = text.replace(name, name.replace(".", "__"))
    header = f'<ir_version: 11, opset_import: ["" : {opset}, "custom" : 1, "local" : 1, "com.microsoft" : 1]>'
    model = ir.from_proto(onnx.parser.parse_model(f"{header} {text}"))
    named = {name.replace(".", "__"): name for name in weights}
    for value in [value for value in model.graph.inputs if value.name in named]:
        value.name = named[value.name]
        assert value.shape is not None and value.dtype is not None
        model.graph.inputs.remove(value)
        length = int(np.prod(value.shape.numpy())) * value.dtype.itemsize
        value.const_value = ir.ExternalTensor(
            "nowhere.bin", 0, int(length), value.dtype, shape=value.shape, name=str(value.name)
        )
        model.graph.register_initializer(value)
    if shapes:
        infer(model)
    return model


def infer(model: ir.Model) -> None:
    with weights_hidden(model):
        common.ShapeInferencePass()(model)


def apply(model: ir.Model, *passes: Apply) -> PassOutcome:
    """Apply passes once each, as `apply_passes` does; how often they fired together, and all refusals."""
    total = PassOutcome()
    for entry in passes:
        outcome = entry(model)
        common.RemoveUnusedNodesPass()(model)
        infer(model)
        total.fired += outcome.fired
        total.refusals += outcome.refusals
    common.CheckerPass()(without_weights(model))
    return total


def refused(model: ir.Model, rewrite: Callable[[], Rewrite]) -> list[str]:
    """Why a rewrite leaves a model alone, which stays as it was."""
    before = text(model)
    outcome = rewriting(rewrite)(model)
    assert outcome.fired == 0
    assert text(model) == before
    return [refusal.reason for refusal in outcome.refusals]


def text(model: ir.Model) -> list[str]:
    """The nodes of the main graph, a line each: what it gives = Operator(inputs, attributes).

    Inputs, outputs and weights have their names; values between them are numbered. Small constants are written out
    where they are used.
    """
    names: dict[ir.Value, str] = {value: str(value.name) for value in model.graph.inputs}
    names |= {value: str(value.name) for value in model.graph.outputs}
    lines: list[str] = []
    for value in model.graph.initializers.values():
        small = value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
        names[value] = _constant(value.const_value) if small and value not in names else str(value.name)
    for node in model.graph:
        if node.op_type == "Constant" and not node.outputs[0].is_graph_output():
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            names[node.outputs[0]] = _constant(tensor)
            continue
        numbered = (f"v{index}" for index in range(len(names) + 1))
        for output in node.outputs:
            taken = set(names.values())
            names.setdefault(output, next(name for name in numbered if name not in taken))
        arguments = [names[value] if value is not None else "" for value in node.inputs]
        arguments += [f"{key}={_attribute(entry)}" for key, entry in sorted(node.attributes.items())]
        operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        lines.append(f"{', '.join(names[output] for output in node.outputs)} = {operator}({', '.join(arguments)})")
    return lines


def run(model: ir.Model, feeds: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """What a model computes in onnxruntime, without its optimisations; weights are noise, the same for each name."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = 1
    proto = ir.to_proto(with_noise(model))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = {entry.name for entry in session.get_inputs()}
    results = session.run(names, {name: array for name, array in feeds.items() if name in taken})
    return dict(zip(names, results, strict=True))


def assert_same(
    before: ir.Model,
    after: ir.Model,
    *sizes: Mapping[str, int],
    feeds: Arrays | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Both give the same for noise of each of the sizes; `feeds` are inputs that noise would not suit."""
    for seed, size in enumerate(sizes or ({},)):
        given = {**noise(before, size, seed), **(feeds or {})}
        expected, actual = run(before, given), run(after, given)
        assert list(actual) == list(expected)
        for name, array in expected.items():
            assert_close(actual[name], array, tolerance)


def assert_close(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], tolerance: float = TOLERANCE) -> None:
    """Equal up to a part of the largest value."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected)
        return
    assert np.isfinite(expected).all()
    scale = float(np.abs(expected).max(initial=0.0))
    assert float(np.abs(actual - expected).max(initial=0.0)) <= tolerance * scale


def noise(model: ir.Model, sizes: Mapping[str, int], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """An array for each input: a normal distribution, or small whole numbers."""
    feeds: dict[str, np.ndarray[Any, Any]] = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None
        shape = [int(d) if isinstance(d, int) else int(d.evaluate(sizes)) for d in value.shape]
        feeds[str(value.name)] = _noise(str(value.name), shape, value.dtype.numpy(), seed)
    return feeds


def _noise(name: str, shape: Sequence[int], dtype: np.dtype[Any], seed: int = 0) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng([zlib.crc32(name.encode()), seed])
    if dtype.kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.normal(size=shape).astype(dtype)


def with_noise(model: ir.Model) -> ir.Model:
    """A copy whose weights are in memory: noise, the same for each name."""
    filled = model.clone()
    for value in filled.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            array = _noise(str(value.name), tensor.shape.numpy(), tensor.dtype.numpy())
            value.const_value = ir.tensor(array, dtype=tensor.dtype, name=str(value.name))
    return filled


def without_weights(model: ir.Model) -> ir.Model:
    """A copy with inputs in place of the weights, for a checker that would open their file."""
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        if isinstance(value.const_value, ir.ExternalTensor):
            del copy.graph.initializers[name]
            value.const_value = None
            copy.graph.inputs.append(value)
    return copy


def _constant(tensor: ir.TensorProtocol | None) -> str:
    assert tensor is not None
    if tensor.size > SHOWN:
        return f"{tensor.dtype.name.lower()}{list(tensor.shape.numpy())}"
    return re.sub(r"\s+", "", np.array2string(tensor.numpy(), separator=",", precision=7))


def _attribute(entry: ir.Attr) -> str:
    if entry.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "graph"
    if entry.type == ir.AttributeType.FLOAT:
        return f"{entry.value:.6g}"
    return str(
        list(entry.value) if isinstance(entry.value, Iterable) and not isinstance(entry.value, str) else entry.value
    )
