"""A component with what its quantiser decided: codes in a file, Q/DQ in its graphs, smoothing folded in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from wanc.calibration.decision import Decision
from wanc.calibration.schemes import SCHEMES
from wanc.calibration.weights import Codes
from wanc.compiler.graphs.attentions import PROBABILITY_STEP, AttentionScales, round_attentions
from wanc.compiler.graphs.by_blocks import block_of
from wanc.compiler.graphs.convolutions import linears_and_convolutions
from wanc.compiler.graphs.folds import divide
from wanc.compiler.graphs.linears import Linear
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.probes import ProbeWriter
from wanc.compiler.program.program import OWN, ProgramComponent
from wanc.compiler.program.quant_table import FLOAT, AttentionEntry, QuantTableEntry, significant
from wanc.compiler.quantize.group_decision import GroupDecision
from wanc.compiler.quantize.linear_groups import Choice
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.own_file import OwnFile
from wanc.compiler.weights.weight_file import code_values, float_values

Array = np.ndarray[Any, Any]
FILE = "quantized.bin"
SCALE_DIGITS = 6
NO_PATTERN = "no keep pattern fits"


class QuantizedGraphs:
    """Takes decisions one by one, writing codes as they come, and gives the component at the end.

    `choice` has the Linears of all graphs, which are read for themselves and stay as they are. What is written goes
    below `out`, into a folder of the component's name.
    """

    def __init__(self, files: ComponentFiles, choice: Choice, scheme: str, out: Path) -> None:
        self._files, self._kept, self._scheme = files, dict(choice.kept), scheme
        self._name, self._weights, self._out = files.name, files.weights, out
        name = files.name
        self._linears = {linear.name: linear for linear in choice.linears}
        self._codes: dict[str, tuple[ir.ExternalTensor, Codes]] = {}
        self._decided: dict[str, GroupDecision] = {}
        self._inputs_divided: dict[str, Array] = {}
        self._divisors: dict[str, Array] = {}
        (out / name).mkdir(parents=True)
        self._own, self._probes = OwnFile(out, f"{name}/{FILE}"), ProbeWriter(out, name)

    def __enter__(self) -> QuantizedGraphs:
        self._own.__enter__()
        self._probes.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._own.__exit__(*error)
        self._probes.__exit__(*error)

    def weight_of(self, name: str) -> Array:
        """A Linear's weight as the model has it, float32 [out, in]."""
        linear = self._linears[name]
        assert linear.weight.const_value is not None
        values = float_values(linear.weight.const_value, self._weights)
        return values.reshape(linear.widths) if linear.output_axis == 0 else values.T

    def add(self, decided: GroupDecision) -> None:
        """Take the decision on some Linears of a group."""
        group = decided.group
        for linear in group.linears:
            if decided.divisors is not None:
                self._inputs_divided[linear.name] = decided.divisors
            if linear.name in decided.codes:
                codes = decided.codes[linear.name]
                tensor = self._own.add(f"{linear.weight.name}.codes", self._tensor(codes.values, linear))
                # The codes themselves go: what is left to be known of them is small.
                self._codes[linear.name] = (tensor, replace(codes, values=_nothing_of(codes.values)))
                self._probes.add(linear.name, "inputs", decided.inputs)
                self._probes.add(linear.name, "outputs", decided.outputs[linear.name])
            self._decided[linear.name] = replace(decided, codes={}, inputs=_nothing_of(decided.inputs), outputs={})
        if decided.divisors is not None and group.fold is not None:
            self._divisors |= dict.fromkeys((*group.fold.weights, *group.fold.values), decided.divisors)

    def component(self, attentions: Mapping[str, AttentionScales] | None = None) -> ProgramComponent:
        """Write the component's graphs and give it as it now is; its new weights are the program's own.

        `attentions` are those that are rounded, with the scales of what they take.
        """
        component = self._files.component
        models = {graph: self._files.model(graph) for graph in component.graphs}
        replaced = self._replaced_weights(models.values())
        self._divide_rows()
        stored = {name: self._stored(name) for name in self._codes}
        for graph, model in models.items():
            for name in replaced.keys() & model.graph.initializers.keys():
                _refer(model.graph.initializers[name], replaced[name])
            divide(model, self._divisors)
            here = {linear.name for linear in linears_and_convolutions(model)}
            insert_quantizers(model, {name: decision for name, decision in stored.items() if name in here})
            round_attentions(model, attentions or {})
            common.RemoveUnusedNodesPass()(model)  # the weights that codes have taken the place of
            save(model, self._out / str(component.graphs[graph].file))
        gone = {str(self._linears[name].weight.name) for name in self._codes} | replaced.keys()
        kept = {name: weight for name, weight in component.weights.items() if name not in gone}
        return replace(component, weights={**kept, **self._own.entries})

    def entries(self, effects: Mapping[str, float]) -> dict[str, QuantTableEntry]:
        """Every Linear's line of the QuantTable."""
        shares = self.flops()
        return {name: self._entry(name, shares[name], effects.get(name)) for name in self._linears}

    def attention_entries(
        self, scales: Mapping[str, AttentionScales], kept: Mapping[str, str]
    ) -> dict[str, AttentionEntry]:
        """Every attention's line: of those that are rounded, and of those that are kept in float, with the reasons."""
        floats = {name: AttentionEntry(FLOAT, reason, self._position(name)) for name, reason in kept.items()}
        rounded = {
            name: AttentionEntry(
                "fp8",
                NO_PATTERN,
                self._position(name),
                *(significant(step, SCALE_DIGITS) for step in (*steps, PROBABILITY_STEP)),
            )
            for name, steps in scales.items()
        }
        return {**floats, **rounded}

    def _position(self, name: str) -> float | None:
        blocks = self._files.component.blocks
        block = block_of(name, blocks)
        return None if block is None else block / max(len(blocks) - 1, 1)

    def _entry(self, name: str, share: float, effect: float | None) -> QuantTableEntry:
        position = self._position(name)
        if name not in self._codes:
            return QuantTableEntry(FLOAT, self._kept[name], share, position, effect=effect)
        decided = self._decided[name]
        sqnr, scale = decided.sqnr_db[name], decided.activation_scale
        return QuantTableEntry(
            self._scheme,
            NO_PATTERN,
            share,
            position,
            sqnr if np.isfinite(sqnr) else None,
            None if scale is None else significant(scale, SCALE_DIGITS),
            decided.alpha,
            effect,
        )

    def _tensor(self, values: Array, linear: Linear) -> ir.TensorProtocol:
        """Codes [out, in] as the weight is stored."""
        typed = values.astype(ml_dtypes.int4) if SCHEMES[self._scheme].weights == "int4" else values
        assert linear.weight.shape is not None
        stored = typed if linear.output_axis == 0 else typed.T
        return ir.tensor(np.ascontiguousarray(stored.reshape(linear.weight.shape.numpy())))

    def codes(self) -> Files:
        """Where the codes that were written so far lie, by the name that tensors give their file."""
        self._own.flush()
        return {f"{OWN}{self._name}/{FILE}": self._out / self._name / FILE}

    def flops(self) -> dict[str, float]:
        """The share of every Linear in the FLOPs of all, at the sizes of calibration."""
        flops = {
            name: linear.flops_per_row * self._decided[name].rows_per_sample for name, linear in self._linears.items()
        }
        total = sum(flops.values())
        return {name: count / total for name, count in flops.items()}

    def decisions(self) -> dict[str, Decision]:
        """What was decided on each Linear, with its codes, all of them in memory: for a model that can be trained."""
        sources = self.codes()
        return {name: self._decision(name, sources) for name in self._codes}

    def _decision(self, name: str, sources: Files) -> Decision:
        tensor, codes = self._codes[name]
        values = code_values(tensor, sources)
        stored = values if self._linears[name].output_axis == 0 else values.T
        return Decision(
            replace(codes, values=np.ascontiguousarray(stored)),
            self._inputs_divided.get(name),
            self._decided[name].activation_scale,
        )

    def alone(self) -> dict[str, StoredDecision]:
        """Each decision for a graph in which nothing else is quantised, and no smoothing folded."""
        return {name: self._alone(name) for name in self._codes}

    def keep(self, reasons: Mapping[str, str]) -> None:
        """Leave Linears in float that were decided on already."""
        for name, reason in reasons.items():
            self._kept[name] = reason
            del self._codes[name], self._own.entries[f"{self._linears[name].weight.name}.codes"]

    def _alone(self, name: str) -> StoredDecision:
        tensor, codes = self._codes[name]
        linear = self._linears[name]
        grouped = codes.group < linear.widths[1]
        stored = (
            codes.scales if grouped and linear.output_axis == 0 else codes.scales.T if grouped else codes.scales[:, 0]
        )
        inputs, scale = SCHEMES[self._scheme].inputs, self._decided[name].activation_scale
        divisors = self._inputs_divided.get(name)
        return StoredDecision(
            tensor,
            ir.tensor(np.ascontiguousarray(stored, np.float32)),
            codes.group if grouped else None,
            inputs,
            scale,
            None if divisors is None else ir.tensor(divisors),
        )

    def _divide_rows(self) -> None:
        """What the rows of a Linear are divided by goes into their scales."""
        for name, (tensor, codes) in self._codes.items():
            if (divisor := self._divisors.get(str(self._linears[name].weight.name))) is not None:
                self._codes[name] = (tensor, replace(codes, scales=codes.scales / divisor[:, None]))
                self._probes.add(name, "divisors", divisor)

    def _stored(self, name: str) -> StoredDecision:
        """A decision as the graph takes it, its scales beside the codes."""
        decision = self._alone(name)
        scales = self._own.add(f"{self._linears[name].weight.name}.scales", decision.scales)
        return replace(decision, scales=scales, divisors=None)

    def _replaced_weights(self, models: Iterable[ir.Model]) -> dict[str, ir.ExternalTensor]:
        """Weights that stay in float, and take smoothing in: as inputs are multiplied, and rows divided."""
        of_linears = {str(self._linears[name].weight.name): name for name in self._linears}
        touched = {str(self._linears[name].weight.name) for name in self._inputs_divided if name not in self._codes}
        quantized = {str(self._linears[name].weight.name) for name in self._codes}
        stored = {name: value for model in models for name, value in model.graph.initializers.items()}
        touched |= {name for name in self._divisors if name in stored} - quantized
        replaced: dict[str, ir.ExternalTensor] = {}
        for name in sorted(touched):
            tensor = stored[name].const_value
            assert tensor is not None
            values = float_values(tensor, self._weights)
            linear = self._linears.get(of_linears.get(name, ""))
            if linear is not None and linear.name in self._inputs_divided:
                factors = self._inputs_divided[linear.name]
                values = values * (factors if linear.output_axis == 0 else factors[:, None])
            if name in self._divisors:
                divisors = self._divisors[name]
                values = values / divisors.reshape(-1, *[1] * (values.ndim - 1))
            replaced[name] = self._own.add(name, ir.tensor(np.ascontiguousarray(values, np.float32)))
        return replaced


def _nothing_of(array: Array) -> Array:
    """No row of it; and not a view, which would keep all of it in memory."""
    return array[:0].copy()


def _refer(value: ir.Value, tensor: ir.ExternalTensor) -> None:
    """Put a tensor of another type, perhaps, in place of a weight."""
    value.const_value = tensor
    waiting = [value]
    while waiting:
        view = waiting.pop()
        view.type = ir.TensorType(tensor.dtype)
        waiting.extend(use.node.outputs[0] for use in view.uses() if use.node.op_type == "Transpose")
