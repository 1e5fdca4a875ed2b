"""In which numbers products multiply, by TensorRT's names, and how much of the work that is."""

from __future__ import annotations

from collections.abc import Mapping

from wanc.compiler.engines.products import Products
from wanc.compiler.engines.tensorrt.lowered_products import LoweredProducts

INT8 = "Int8"
CODES = (INT8, "Int4", "UInt8", "FP8", "FP4")
"""TensorRT's names for types of codes."""
ATTENTION = "Attention"
TIMES = " × "


def pair(left: str, right: str) -> str:
    """The types of both sides, `Int8 × Int8`."""
    return f"{left}{TIMES}{right}"


def has_codes(numbers: str) -> bool:
    """Whether a side is codes."""
    return any(side in CODES for side in numbers.split(TIMES))


def products_of(asked: LoweredProducts, linears: Mapping[str, str]) -> Products:
    """FLOPs of a graph's products, where its Linears multiply in these numbers."""
    integer = sum(flops for name, flops in asked.linears.items() if linears[name] == pair(INT8, INT8))
    coded = sum(flops for name, flops in asked.linears.items() if _is_coded(linears[name]))
    linear = sum(asked.linears.values())
    return Products(integer, linear, linear + sum(asked.attentions.values()) + asked.others, coded)


def _is_coded(numbers: str) -> bool:
    """Whether the weight alone is codes."""
    left, _, right = numbers.partition(TIMES)
    return left not in CODES and right in CODES
