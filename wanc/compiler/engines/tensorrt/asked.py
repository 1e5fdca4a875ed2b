"""What a lowered graph asks the builder for, in the words of the build's log: before there is a log, and beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx_ir as ir

from wanc.compiler.engines.kernels import GIVES, Kernels
from wanc.compiler.engines.tensorrt.attention import SCORES
from wanc.compiler.engines.tensorrt.kernels import scores_have_kernel
from wanc.compiler.engines.tensorrt.lowered_products import lowered_products
from wanc.compiler.engines.tensorrt.numbers import ATTENTION, has_codes, pair, products_of
from wanc.compiler.graphs.values import producer
from wanc.errors import EXIT_REFUSED, UserError

TYPES: Mapping[ir.DataType, str] = {
    ir.DataType.FLOAT: "Float", ir.DataType.FLOAT16: "Half", ir.DataType.BFLOAT16: "BFloat16",
    ir.DataType.INT8: "Int8", ir.DataType.FLOAT8E4M3FN: "FP8",
}  # fmt: skip
"""TensorRT's names for types."""


def asked_kernels(model: ir.Model, example: Mapping[str, int]) -> Kernels:
    """The products of a lowered graph with the numbers that they are written in, and its attentions by name.

    Every attention of which there is a fused kernel is one.
    """
    asked = lowered_products(model, example)
    by_type, linears, fused, unfused = Counter[tuple[str, str]](), dict[str, str](), list[str](), list[str]()
    for node in model.graph:
        if node.domain or node.op_type not in ("MatMul", "Conv"):
            continue
        name, types = str(node.name), pair(_type(node.inputs[0]), _type(node.inputs[1]))
        by_type["gemm" if node.op_type == "MatMul" else "correlation", f"{types}{GIVES}{_type(node.outputs[0])}"] += 1
        if name in asked.linears:
            linears[name] = types
        if name.endswith(SCORES):
            (fused if scores_have_kernel(node) else unfused).append(name.removesuffix(SCORES))
    return Kernels(
        by_type,
        {ATTENTION: len(fused)},
        products_of(asked, linears),
        linears,
        tuple(sorted(fused)),
        tuple(sorted(unfused)),
        built=False,
    )


def check_built(where: str, asked: Kernels, built: Kernels, allowed: Iterable[str]) -> None:
    """Compare what the build's log says with what was asked for: the numbers of codes, and fused attentions.

    Raises UserError, with the exit code of a gate that said no, where one is not there and not `allowed` to be missing.
    """
    for linear, numbers in (asked.linears or {}).items():
        found = (built.linears or {}).get(linear, "nothing that the log names")
        if has_codes(numbers) and found != numbers:
            raise _refusal(where, f"{numbers} in {linear}", f"multiplies {found}")
    missing = sorted(set(asked.fused_attentions) - set(built.fused_attentions))
    if missing and ATTENTION not in allowed:
        raise _refusal(where, f"one kernel for {missing[0]}", "has several")


def _refusal(where: str, asked: str, built: str) -> UserError:
    hint = "this is a fault of the compiler or of the library's new version, not of the recipe"
    return UserError(f"{where} asks for {asked}, and the engine {built}", hint=hint, exit_code=EXIT_REFUSED)


def _type(value: ir.Value | None) -> str:
    """In what a side of a product is multiplied: codes, where those are only widened for it."""
    turned = producer(value, "Transpose")
    widened = producer(turned.inputs[0] if turned else value, "DequantizeLinear")
    codes = widened.inputs[0] if widened else value
    dtype = codes.dtype if codes is not None else None
    return TYPES.get(dtype, str(dtype)) if dtype is not None else "?"
