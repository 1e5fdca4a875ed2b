"""How much of what an engine multiplied it multiplied as integers, read back from one execution.

A Linear is a product with a weight; what attention multiplies are two activations. Weights come in two dimensions, or
not at all where a kernel has packed them for itself; activations of attention come in heads. Convolutions are neither,
and are counted for themselves where they may be in integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import openvino

Shape = Sequence[int]

INTEGER_KERNELS = ("DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm", "QLinearMatMul")
FLOAT_KERNELS = ("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "MatMulNBits")
"""ONNX Runtime's kernels that are one product. With a weight in blocks (NBits) only that is rounded."""
ONLY_WEIGHTS = ("MatMulNBits",)
"""Those whose weight alone is codes; it has more dimensions than two."""
OPENVINO_CODES = ("i8", "u8", "i4", "u4")
FUSED_ATTENTION = "ScaledDotProductAttention"
"""OpenVINO's own operation for a whole attention."""
ATTENTION_KERNELS = ("Attention", "MultiHeadAttention")


@dataclass(frozen=True)
class Products:
    """FLOPs, two for each multiplication: of Linears in INT8, of all Linears, and of attention besides.

    `coded_linear` are those of Linears whose weight alone is codes, of 8 bits or fewer. Convolutions are in no total;
    those of an engine that has none in integers are not counted.
    """

    integer_linear: int
    linear: int
    total: int
    coded_linear: int = 0
    integer_convolution: int = 0
    convolution: int = 0

    def __add__(self, other: Products) -> Products:
        mine, theirs = astuple(self), astuple(other)
        return Products(*map(sum, zip(mine, theirs, strict=True)))

    def times(self, count: int) -> Products:
        """Those of so many executions."""
        return Products(*(count * flops for flops in astuple(self)))

    @property
    def int8_linear_share(self) -> float:
        """Of the FLOPs of Linears, those in INT8; 0 where there is no Linear."""
        return self.integer_linear / self.linear if self.linear else 0.0

    @property
    def int8_convolution_share(self) -> float:
        """Of the FLOPs of convolutions, those in INT8; 0 where there is none."""
        return self.integer_convolution / self.convolution if self.convolution else 0.0

    @property
    def attention_share(self) -> float:
        """Of the FLOPs of all products, those of attention; 0 where there is no product."""
        return 1 - self.linear / self.total if self.total else 0.0

    @property
    def int8_total_share(self) -> float:
        """Of the FLOPs of all products, attention included, those of Linears in INT8; 0 where there is no product."""
        return self.integer_linear / self.total if self.total else 0.0


def onnxruntime_products(events: Iterable[Mapping[str, Any]]) -> Products:
    """From the events of a profile, as its JSON has them, of a session that was executed once."""
    integer = linear = attention = coded = 0
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        kernel = event["args"]["op_name"]
        if kernel not in (*INTEGER_KERNELS, *FLOAT_KERNELS, *ATTENTION_KERNELS):
            continue
        inputs, (result, *_) = (_shapes(event["args"][key]) for key in ("input_type_shape", "output_type_shape"))
        if kernel in ATTENTION_KERNELS:
            queries, keys, *_ = inputs
            attention += _attention(queries, keys[-2], result)
        elif kernel not in ONLY_WEIGHTS and any(len(shape) > 2 for shape in inputs[1:]):
            attention += _product(inputs[0], result)
        else:
            linear += _product(inputs[0], result)
            integer += _product(inputs[0], result) if kernel in INTEGER_KERNELS else 0
            coded += _product(inputs[0], result) if kernel in ONLY_WEIGHTS else 0
    return Products(integer, linear, linear + attention, coded)


def openvino_products(compiled: openvino.CompiledModel, model: openvino.Model) -> Products:
    """Linears from the graph that the CPU plugin executed, attention from the model that it was compiled from.

    A generated kernel does not say which of its inputs' dimensions are the heads, so attention is counted where it is
    written, at the sizes of the last execution, which `model` has afterwards; products of sizes that values decide are
    not counted. Raises ValueError where there was no execution. Inputs that a kernel rounds by itself, as some do where
    the weight alone is rounded, are floats here.
    """
    integer = linear = coded = integer_convolution = convolution = 0
    sizes: dict[str, Shape] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        kernel = str(node.get_rt_info()["layerType"].astype(str))
        if kernel == "Input":
            sizes[node.get_friendly_name()] = _shape(node.output(0))
        if kernel == "FullyConnected":
            flops = _product(_shape(node.input(0)), _shape(node.output(0)))
            linear += flops
            # By its own account a kernel is of the precision of its weight, whatever it multiplies that with.
            inputs, weight = (node.input(index).get_element_type().get_type_name() for index in range(2))
            integer += flops if inputs in OPENVINO_CODES else 0
            coded += flops if inputs not in OPENVINO_CODES and weight in OPENVINO_CODES else 0
        if kernel == "Convolution":
            _, *window = _shape(node.input(1))
            flops = 2 * prod(_shape(node.output(0))) * prod(window)
            convolution += flops
            integer_convolution += flops if node.input(0).get_element_type().get_type_name() in OPENVINO_CODES else 0
    inputs = {entry.output(0): sizes.get(entry.get_friendly_name()) for entry in model.get_parameters()}
    with suppress(RuntimeError):  # its kernels take more than its inference does, such as a list of one for a number
        model.reshape({port: shape for port, shape in inputs.items() if shape is not None})
    total = linear + _openvino_attention(model)
    return Products(integer, linear, total, coded, integer_convolution, convolution)


def _openvino_attention(model: openvino.Model) -> int:
    """FLOPs of the products whose sides are both computed from a model's inputs, as far as it knows their sizes."""
    flops = 0
    for node in openvino_attentions(model):
        if any(port.get_partial_shape().is_dynamic for port in (*node.inputs(), *node.outputs())):
            continue
        if node.get_type_name() == FUSED_ATTENTION:
            queries, keys = (_shape(node.input(index)) for index in range(2))
            flops += _attention(queries, keys[-2], _shape(node.output(0)))
        else:
            columns = _shape(node.input(0))[-2 if node.get_attributes()["transpose_a"] else -1]
            flops += 2 * prod(_shape(node.output(0))) * columns
    return flops


def openvino_attentions(model: openvino.Model) -> Iterator[openvino.Node]:
    """The operations that multiply two values that are both computed from a model's inputs, in order."""
    computed: set[str] = set()
    for node in model.get_ordered_ops():
        sides = [port.get_node().get_friendly_name() in computed for port in node.input_values()]
        if node.get_type_name() == "Parameter" or any(sides):
            computed.add(node.get_friendly_name())
        if node.get_type_name() == FUSED_ATTENTION or (node.get_type_name() == "MatMul" and all(sides)):
            yield node


def is_attention(kernel: str, info: Mapping[str, str]) -> bool:
    """Whether a node of OpenVINO's execution graph is a generated kernel that does all of an attention.

    Only the names of what it was made of tell: OpenVINO's own for an Attention, and those that exporters give.
    """
    return kernel == "Subgraph" and "softmax" in info.get("originalLayersNames", "").lower()


def _shapes(entries: Iterable[Mapping[str, Shape]]) -> list[Shape]:
    """A profile lists {type: shape} for every tensor that is there."""
    return [shape for entry in entries for shape in entry.values()]


def _shape(port: Any) -> Shape:
    shape = port.get_partial_shape()
    if shape.is_dynamic:
        raise ValueError(f"the sizes {shape} are those of no execution")
    return list(shape.to_shape())


def _product(left: Shape, result: Shape) -> int:
    """FLOPs of a product whose left side is not transposed."""
    return 2 * prod(result) * left[-1]


def _attention(queries: Shape, keys: int, result: Shape) -> int:
    """FLOPs of scores and of what is made of the values, for this many keys."""
    return 2 * keys * (prod(queries) + prod(result))
