"""The export stage for any ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.errors import CheckpointError, RecipeError
from wanc.models.graph import Input
from wanc.models.weights import Weight
from wanc.runtime.dimensions import split_dimension
from wanc.runtime.interface import COMPONENT, GRAPH
from wanc.runtime.progress import ProgressBar

if TYPE_CHECKING:
    import onnx_ir as ir

# The first version of the format in which an initializer need not be an input.
CONSTANT_INITIALIZERS = 4


@dataclass(frozen=True)
class ExportOnnx(Stage):
    """Input `source`: the model's files. Result: `program.json`, one graph, and the weights embedded in the file.

    The graph passes through as it is: only its weights are replaced by references, and inputs that have a default
    become constants.
    """

    name: ClassVar[str] = "export"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir")

    example: Mapping[str, int]
    values: Mapping[str, float]

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from onnx_ir.serde import SerdeError

        from wanc.compiler.program.graph_file import save
        from wanc.compiler.weights.own_file import store_weights
        from wanc.models.onnx_file import MODEL, read_onnx
        from wanc.models.onnx_limits import OPSETS

        with ProgressBar(self.name, 1, enabled=progress) as bar:
            read = read_onnx(inputs["source"])
            self._check_keys(read.inputs)
            _drop_defaults(read.model)
            # One of other domains' operators alone need not say it: so old that no pass has anything to put in.
            read.model.graph.opset_imports.setdefault("", OPSETS[""][0])
            _believe_inputs_alone(read.model, read.inputs)
            weights = _refer_to_source(read.model)
            (out / COMPONENT).mkdir()
            weights |= store_weights(read.model, out)
            file = f"{COMPONENT}/{GRAPH}.onnx"
            try:
                save(read.model, out / file)
            except SerdeError as error:
                where = str(inputs["source"][MODEL])
                raise CheckpointError("onnx-ir cannot write what it has read of this model", where=where) from error
            bar.advance()
        graph = ProgramGraph(file, read.inputs, read.outputs, self.example, self.values)
        Program("graph", None, {COMPONENT: ProgramComponent({GRAPH: graph}, weights)}, None).write(out)

    def _check_keys(self, inputs: Sequence[Input]) -> None:
        """A misspelt name would silently do nothing, and a missing one fail much later."""
        symbols = {split_dimension(d)[1] for entry in inputs for d in entry.shape if isinstance(d, str)}
        _check_known("model.example", self.example, symbols, "size")
        _check_known("model.values", self.values, {entry.name for entry in inputs}, "input")
        if absent := sorted(symbols - self.example.keys()):
            sizes = ", ".join(f"{name}: …" for name in sorted(symbols))
            raise RecipeError(
                f"model.example gives no size for {', '.join(absent)}", hint=f"give sizes that work: {{{sizes}}}"
            )


def _check_known(key: str, given: Mapping[str, object], known: set[str], kind: str) -> None:
    if unknown := sorted(given.keys() - known):
        has = f"it has: {', '.join(sorted(known))}" if known else f"it has no {kind} to name"
        raise RecipeError(f"{key} names {unknown[0]!r}, which is no {kind} of the model", hint=has)


def _drop_defaults(model: ir.Model) -> None:
    """Inputs that have a default are constants from here on: a bundle's inputs are those that have to be given."""
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, CONSTANT_INITIALIZERS)


def _believe_inputs_alone(model: ir.Model, inputs: Sequence[Input]) -> None:
    """Forget what the file says of sizes inside of the graph and at its end: nothing holds it to them.

    They are found out anew from those of the inputs, to which a bundle holds who runs it. Of an input's sizes without
    a name each has one of its own here, as there.
    """
    import onnx_ir as ir

    for value, entry in zip(model.graph.inputs, inputs, strict=True):
        value.shape = ir.Shape(entry.shape)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            # ONNX asks for a rank of what a graph gives.
            is_given = value.is_graph_output() and value.shape is not None
            value.shape = ir.Shape([None] * len(value.shape)) if is_given else None


def _refer_to_source(model: ir.Model) -> dict[str, Weight]:
    """Name external tensors' files as the source does; returns where each weight of the main graph lies."""
    import onnx_ir as ir

    from wanc.models.onnx_file import DATA

    weights: dict[str, Weight] = {}
    for graph, value in _initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            weight = Weight(
                f"{DATA}{tensor.location}",
                tensor.offset or 0,
                tensor.nbytes,
                tensor.dtype.name,
                tuple(tensor.shape.numpy()),
            )
            value.const_value = ir.ExternalTensor(
                weight.file, weight.offset, weight.length, tensor.dtype, shape=tensor.shape, name=str(value.name)
            )
            if graph is model.graph:
                weights[str(value.name)] = weight
    return weights


def _initializers(model: ir.Model) -> Iterator[tuple[ir.Graph, ir.Value]]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            yield graph, value
