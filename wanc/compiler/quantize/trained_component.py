"""What training has come to, in the graphs of a component: the same decisions with other codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wanc.calibration.decision import Decision
from wanc.calibration.exact import product
from wanc.calibration.schemes import SCHEMES, rounded_inputs
from wanc.calibration.weights import sqnr_db
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.probes import Probes
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.program.quant_table import FLOAT, QuantTable, table_file
from wanc.compiler.quantize.group_decision import GroupDecision
from wanc.compiler.quantize.linear_groups import LinearGroup, choose
from wanc.compiler.quantize.quantized_graphs import QuantizedGraphs
from wanc.compiler.stages.stage import Files
from wanc.runtime.denoise import GRAPH


def write_trained(
    files: ComponentFiles, quantized_files: Files, decisions: Mapping[str, Decision], keep: Sequence[str], out: Path
) -> tuple[ProgramComponent, QuantTable]:
    """Write the graph of a component that is not quantised with these decisions below `out`.

    `quantized_files` are what the quantize stage made of it.
    """
    name = files.name
    table, probes = QuantTable.read(quantized_files[table_file(name)]), Probes(quantized_files, name)
    (scheme,) = {entry.scheme for entry in table.quantized.values()}
    model = files.model(GRAPH)
    choice = choose(model, name, keep)
    floats = {linear: entry.reason for linear, entry in table.linears.items() if entry.scheme == FLOAT}
    choice = replace(choice, kept={**choice.kept, **floats})
    found: dict[str, float] = {}
    with QuantizedGraphs(files, choice, scheme, out) as quantized:
        for group in choice.groups:
            decided = _decided(replace(group, quantized=group.quantized & decisions.keys()), decisions, probes, scheme)
            found |= decided.sqnr_db
            quantized.add(decided)
        result = quantized.component()
    linears = {
        linear: replace(entry, sqnr_db=found[linear]) if linear in found else entry
        for linear, entry in table.linears.items()
    }
    return result, replace(table, method="qat", linears=linears)


def _decided(group: LinearGroup, decisions: Mapping[str, Decision], probes: Probes, scheme: str) -> GroupDecision:
    """A group as training leaves it, measured on the rows that were kept of its input."""
    names = [linear.name for linear in group.linears if linear.name in group.quantized]
    shared = decisions[names[0]] if names else None
    inputs = probes[names[0]].inputs if names else np.empty(0, np.float32)
    scale = shared.activation_scale if shared else None
    rounded = rounded_inputs(inputs, SCHEMES[scheme].inputs, scale) if names else inputs
    outputs = {name: probes[name].outputs for name in names}
    return GroupDecision(
        group=group,
        alpha=None,
        divisors=None if shared is None or shared.smoothing is None else shared.smoothing.astype("float32"),
        activation_scale=scale,
        codes={name: decisions[name].codes for name in names},
        sqnr_db={name: sqnr_db(product(rounded, decisions[name].codes.weights()), outputs[name]) for name in names},
        rows_per_sample=1.0,
        inputs=inputs,
        outputs=outputs,
    )
