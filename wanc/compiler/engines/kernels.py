"""What an engine really built, read back from it, against what the canonical graph asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import onnx_ir as ir

from wanc.compiler.engines.products import Products
from wanc.compiler.passes.rewrite import OPSET
from wanc.errors import EXIT_REFUSED, UserError
from wanc.runtime.engine_file import ON_TARGET
from wanc.words import FUSED_OPERATORS

PRODUCTS = frozenset(
    {"Attention", "Conv", "Convolution", "FullyConnected", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}
    | {"MultiHeadAttention", "ScaledDotProductAttention", "correlation", "gemm", "runtime_fusion"}
)
"""What engines call the kernels that multiply matrices."""
HALVES = ("bf16", "f16", "bfloat16", "float16", "BFloat16", "Half")
"""What engines call the floats of 16 bits."""
GIVES = " → "
"""In what a kernel computes in, before the type of its result where that is another one."""
ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "FakeQuantize", "QLinear")
"""What the names of kernels begin with that round to codes, or compute with them, besides those of Linears."""
Precision = Literal["float32", "integer", "integer convolutions", "half"]


@dataclass(frozen=True)
class Memory:
    """What an engine will take on its device, in bytes: for activations, for weights, and for single kernels."""

    activation_bytes: int
    weight_bytes: int
    scratch_bytes: int

    def __add__(self, other: Memory) -> Memory:
        """Of two segments that are executed one after the other."""
        return Memory(
            max(self.activation_bytes, other.activation_bytes),
            self.weight_bytes + other.weight_bytes,
            max(self.scratch_bytes, other.scratch_bytes),
        )


@dataclass(frozen=True)
class Kernels:
    """The kernels of one graph: how many there are by the engine's own name and precision, and how many are fused.

    `fused` counts, by canonical operator, the kernels that do all of one; `products` is what was multiplied, in which
    numbers. What only a build's log says is there where there is one: in which numbers each Linear multiplies, by its
    name, which attentions are one kernel and which are not, the memory that is needed, and what `attentions` that are
    one kernel are given, by name.

    Of an engine that is `built` elsewhere, they are what its lowered graph asks for.
    """

    by_type: Mapping[tuple[str, str], int]
    fused: Mapping[str, int]
    products: Products
    linears: Mapping[str, str] | None = None
    fused_attentions: tuple[str, ...] = ()
    unfused_attentions: tuple[str, ...] = ()
    memory: Memory | None = None
    attentions: Mapping[str, str] = field(default_factory=dict[str, str])
    built: bool = True

    def __add__(self, other: Kernels) -> Kernels:
        """Those of two segments of one graph."""
        return Kernels(
            Counter(self.by_type) + Counter(other.by_type),
            Counter(self.fused) + Counter(other.fused),
            self.products + other.products,
            None if self.linears is None or other.linears is None else {**self.linears, **other.linears},
            self.fused_attentions + other.fused_attentions,
            self.unfused_attentions + other.unfused_attentions,
            None if self.memory is None or other.memory is None else self.memory + other.memory,
            {**self.attentions, **other.attentions},
            self.built and other.built,
        )

    def of_ranks(self, count: int) -> Kernels:
        """Those that each of so many ranks has; what these multiply, they do together."""
        return replace(self, products=self.products.times(count))

    @property
    def precision(self) -> Precision:
        """The coarsest numbers that were computed with."""
        if any(kernel in PRODUCTS and types.rpartition(GIVES)[2] in HALVES for kernel, types in self.by_type):
            return "half"
        if self.products.integer_convolution:
            return "integer convolutions"
        rounds = any(kernel.startswith(ROUNDING) for kernel, _ in self.by_type)
        return "integer" if rounds or self.products.integer_linear or self.products.coded_linear else "float32"


def check_fused(
    where: str,
    canonical: ir.Model,
    kernels: Kernels,
    allowed: Iterable[str],
    has_kernel: Callable[[ir.Node, int], bool] | None = None,
) -> None:
    """Compare the fused kernels with the operators of the canonical graph, as far as the engine `has_kernel` for them.

    Raises UserError, with the exit code of a gate that said no, where one is missing and not `allowed`.
    """
    fused = [node for node in canonical.graph if not node.domain and node.op_type in FUSED_OPERATORS]
    opset = canonical.graph.opset_imports.get("", OPSET)
    asked = Counter(node.op_type for node in fused if has_kernel is None or has_kernel(node, opset))
    for op_type, count in sorted(asked.items()):
        built = kernels.fused.get(op_type, 0)
        if built < count and op_type not in set(allowed):
            raise UserError(
                f"{where} asks for {count} fused {op_type}, and the engine built {built}",
                hint=f"if that will do, allow it: engine.allow_unfused: [{op_type}]",
                exit_code=EXIT_REFUSED,
            )


def describe(kernels: Kernels, size: int) -> dict[str, Any]:
    """The report on one graph: kernels by type and precision, fused ones by operator, how much of the products is in
    INT8, and the bytes of its engine files; and what only a build's log says, where there is one. What is not built
    has no kernels.
    """
    if not kernels.built:
        return {"built": ON_TARGET, "precision": kernels.precision, "bytes": size}
    by_type: dict[str, dict[str, int]] = {}
    for (kernel, precision), count in sorted(kernels.by_type.items()):
        by_type.setdefault(kernel, {})[precision] = count
    from_log: dict[str, Any] = {}
    if kernels.memory is not None:
        attentions = {
            "fused": list(kernels.fused_attentions),
            "unfused": list(kernels.unfused_attentions),
            "numbers": dict(kernels.attentions),
        }
        from_log = {**asdict(kernels.memory), "attentions": attentions, "linears": dict(kernels.linears or {})}
    return {
        "kernels": by_type,
        "fused": dict(sorted(kernels.fused.items())),
        "int8_linear_share": kernels.products.int8_linear_share,
        "int8_total_share": kernels.products.int8_total_share,
        "attention_share": kernels.products.attention_share,
        **({"int8_convolution_share": kernels.products.int8_convolution_share} if kernels.products.convolution else {}),
        "precision": kernels.precision,
        "bytes": size,
        **from_log,
    }
