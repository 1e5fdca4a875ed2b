"""What was built of one graph, read from the build's log and set against the graph that was given to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir
from pydantic import TypeAdapter

from wanc.artifacts.canonical import canonical
from wanc.compiler.engines.compiled import NOTES
from wanc.compiler.engines.kernels import GIVES, Kernels, Memory
from wanc.compiler.engines.products import Products
from wanc.compiler.engines.tensorrt.attention import RESULT, SCORES
from wanc.compiler.engines.tensorrt.log import BuildLog, BuiltKernel
from wanc.compiler.engines.tensorrt.lowered_products import lowered_products
from wanc.compiler.engines.tensorrt.numbers import ATTENTION, pair, products_of


@dataclass(frozen=True)
class BuildReport:
    """`kernels` are those of one profile: {kind: {types: how many}}.

    `linears` says in which numbers each Linear multiplies, `Int8 × Int8`; where profiles differ, both. `fused` and
    `unfused` are the attentions that one kernel does, in every profile, and the others; `attentions` says of the former
    what that kernel is given, `FP8`. `products` are FLOPs at the example's sizes.
    """

    kernels: Mapping[str, Mapping[str, int]]
    linears: Mapping[str, str]
    fused: tuple[str, ...]
    unfused: tuple[str, ...]
    products: Products
    memory: Memory
    attentions: Mapping[str, str]

    @classmethod
    def of(cls, log: BuildLog, model: ir.Model, example: Mapping[str, int]) -> BuildReport:
        """The report on an engine of a lowered graph."""
        asked = lowered_products(model, example)
        linears = {name: " or ".join(sorted(_numbers(name, log))) for name in asked.linears}
        fused = tuple(sorted(name for name in asked.attentions if _is_fused(name, log)))
        return cls(
            _by_kind(log),
            linears,
            fused,
            tuple(sorted(asked.attentions.keys() - set(fused))),
            products_of(asked, linears),
            Memory(log.activation_bytes, log.weight_bytes, log.scratch_bytes),
            {name: " or ".join(sorted(set(map(_given, _attention_kernels(name, log))))) for name in fused},
        )

    def write(self, engine: Path) -> None:
        """Write it beside an engine file."""
        engine.with_name(engine.name + NOTES).write_bytes(canonical(asdict(self)))

    @classmethod
    def read(cls, engine: Path) -> BuildReport:
        """What `write` wrote beside an engine file."""
        return TypeAdapter(cls).validate_json(engine.with_name(engine.name + NOTES).read_bytes())

    @property
    def as_kernels(self) -> Kernels:
        """The same in the words that all engines share."""
        by_type = {(kind, types): count for kind, found in self.kernels.items() for types, count in found.items()}
        return Kernels(
            by_type,
            {ATTENTION: len(self.fused)},
            self.products,
            self.linears,
            self.fused,
            self.unfused,
            self.memory,
            self.attentions,
        )


def _numbers(linear: str, log: BuildLog) -> set[str]:
    """The types of both sides, in each kernel that a Linear is part of and that multiplies."""
    kernels = [kernel for kernel in log.kernels if linear in kernel.nodes]
    multiplying = [kernel for kernel in kernels if kernel.multiplies] or kernels
    return {pair(*kernel.operands) for kernel in multiplying if kernel.inputs}


def _is_fused(attention: str, log: BuildLog) -> bool:
    """Whether every kernel that an attention's products are part of is a fused one."""
    kernels, products = _attention_kernels(attention, log), _products_of(attention)
    return bool(kernels) and all(kernel.is_attention and products <= set(kernel.nodes) for kernel in kernels)


def _attention_kernels(attention: str, log: BuildLog) -> list[BuiltKernel]:
    """The kernels that an attention's products are part of."""
    return [kernel for kernel in log.kernels if not _products_of(attention).isdisjoint(kernel.nodes)]


def _products_of(attention: str) -> set[str]:
    return {f"{attention}{SCORES}", f"{attention}{RESULT}"}


def _given(kernel: BuiltKernel) -> str:
    """The type of all that a kernel takes; several, where they are not the same."""
    return " × ".join(sorted({tensor.dtype for tensor in kernel.inputs}))


def _by_kind(log: BuildLog) -> dict[str, dict[str, int]]:
    """Of the first profile: the others have the same kernels at other sizes."""
    counts = Counter(_kind(kernel) for kernel in log.kernels if kernel.profile == 0)
    found: dict[str, dict[str, int]] = {}
    for (kind, types), count in sorted(counts.items()):
        found.setdefault(kind, {})[types] = count
    return found


def _kind(kernel: BuiltKernel) -> tuple[str, str]:
    if kernel.is_attention:
        return ATTENTION, kernel.inputs[0].dtype
    if kernel.multiplies or kernel.kind == "correlation":
        return kernel.kind, f"{pair(*kernel.operands)}{GIVES}{kernel.result}"
    return kernel.kind, kernel.result
