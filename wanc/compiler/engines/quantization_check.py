"""Whether what was asked for was built: every expert, in integer kernels, and as exactly as its QuantTable says.

A quantised model whose engine computes in floats, or with a wrong scale, looks like any other. So the engine's stage
reads back what it built, and puts probes through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.calibration.weights import sqnr_db
from wanc.compiler.engines.compiler import Prober
from wanc.compiler.engines.products import Products
from wanc.compiler.graphs.attentions import attentions
from wanc.compiler.graphs.quantized_linears import flops_of_convolutions, flops_of_linears, quantized_linears
from wanc.compiler.program.probes import Probes
from wanc.compiler.program.quant_table import FLOAT, QuantTable, table_file
from wanc.compiler.stages.stage import Files
from wanc.errors import EXIT_REFUSED, UserError

Array = np.ndarray[Any, Any]

MOST_DB_LOST = 1.0
"""How far a Linear that was built may fall behind its QuantTable: rounding elsewhere costs a tenth of that."""
SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class QuantizedComponent:
    """What the quantize stage says of a component: its table, and its probes."""

    table: QuantTable
    probes: Probes

    @classmethod
    def read(cls, component: str, files: Files) -> QuantizedComponent:
        """Raises UserError where the component was not quantised."""
        if table_file(component) not in files:
            raise _refusal(f"{component} was to be quantised, and is not")
        return cls(QuantTable.read(files[table_file(component)]), Probes(files, component))


def check_products(where: str, canonical: ir.Model, sizes: Mapping[str, int], products: Products) -> None:
    """Compare what an engine multiplied, executed at `sizes`, with what the canonical graph asks for.

    Raises UserError where less of it is in INT8, or by weights that are codes, than was asked for.
    """
    found = quantized_linears(canonical)
    linears = [linear for linear in found if not linear.is_convolution]
    integers = sum(linear.flops(sizes) for linear in linears if linear.is_integer)
    codes = sum(linear.flops(sizes) for linear in linears if not linear.rounds_input)
    convolutions = sum(linear.flops(sizes) for linear in found if linear.is_convolution)
    of_linears, of_convolutions = (count(canonical, sizes) for count in (flops_of_linears, flops_of_convolutions))
    for what, kind, asked, built, of in (
        ("INT8", "Linears", integers, products.integer_linear, of_linears),
        ("weights that are codes", "Linears", codes, products.coded_linear, of_linears),
        ("INT8", "convolutions", convolutions, products.integer_convolution, of_convolutions),
    ):
        if built < asked * (1 - SHARE_TOLERANCE):
            raise _refusal(
                f"{where} asks for {what} in {asked / of:.2%} of what its {kind} compute, "
                f"and the engine has {built / of:.2%}"
            )


def check_named(where: str, canonical: ir.Model, numbers: Mapping[str, str]) -> None:
    """Compare the numbers in which Linears multiply, as the build's log has them by name, with those asked for.

    Raises UserError for the first that multiplies others.
    """
    for linear in quantized_linears(canonical):
        asked = linear.numbers
        built = numbers.get(linear.name, "nothing that the log names")
        if not _is(asked, built):
            raise _refusal(f"{where} asks for {asked} in {linear.name}, and the engine multiplies {built}")


def check_attentions(where: str, canonical: ir.Model, numbers: Mapping[str, str]) -> None:
    """Compare what fused attentions multiply, as the build's log has it by name, with what was asked for.

    Raises UserError for the first that was to be rounded and multiplies other numbers, or is no single kernel.
    """
    for attention in attentions(canonical):
        asked, built = attention.numbers, numbers.get(attention.name, "floats, in several kernels")
        if asked != "float" and built.lower() != asked:
            raise UserError(
                f"{where} asks for {asked} in {attention.name}, and the engine multiplies {built}",
                hint=f"keep it in float: quantize.keep.patterns: [{attention.name}]",
                exit_code=EXIT_REFUSED,
            )


def check_rounded(component: str, graphs: Iterable[ir.Model], table: QuantTable) -> None:
    """Compare the attentions that are rounded in a component's canonical graphs with its QuantTable.

    Raises UserError where one is not that is to be, or is rounded with other scales.
    """
    found = {attention.name: attention for model in graphs for attention in attentions(model)}
    for name, entry in table.attentions.items():
        scales = found[name].scales if name in found else None
        told = [scale or 0.0 for scale in (entry.query_scale, entry.key_scale, entry.value_scale)]
        if entry.scheme != FLOAT and (scales is None or not np.allclose(scales, told, rtol=1e-5)):
            raise _refusal(f"{component}/{name} is {entry.scheme} in the QuantTable, and otherwise in the graph")


def _is(asked: str, built: str) -> bool:
    """Whether a pair of types, by an engine's names for them, is that asked for."""
    return [part.lower() for part in built.split(" × ")] == asked.lower().split(" × ")


def check_linears(
    component: str, graphs: Mapping[str, ir.Model], built: Mapping[str, Prober], of: QuantizedComponent
) -> None:
    """Put the probes of a component through what was built of its canonical graphs.

    Raises UserError where a Linear is gone, or is less exact than its QuantTable says.
    """
    quantized = of.table.quantized
    missing = dict.fromkeys(quantized)
    for graph, model in graphs.items():
        for linear in quantized_linears(model):
            entry, probe = quantized[linear.name], of.probes[linear.name]
            missing.pop(linear.name, None)  # of a decoder both graphs have it
            outputs = built[graph].run(linear.name, probe.inputs)
            if outputs is None:
                raise _refusal(
                    f"{component}/{linear.name} is {entry.scheme} in the QuantTable, and float in the engine"
                )
            found = sqnr_db(outputs * probe.divisors, probe.outputs)
            if entry.sqnr_db is not None and not found > entry.sqnr_db - MOST_DB_LOST:
                raise _refusal(
                    f"{component}/{linear.name} has {found:.1f} dB in the engine, "
                    f"and its QuantTable says {entry.sqnr_db:.1f} dB"
                )
    if missing:
        raise _refusal(f"{component}/{next(iter(missing))} is quantised in the QuantTable, and not in the graph")


def _refusal(message: str) -> UserError:
    hint = "this is a fault of the compiler or of an engine's new version, not of the recipe"
    return UserError(message, hint=hint, exit_code=EXIT_REFUSED)
