"""The export stage for any ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files, Stage
from wanc.errors import CheckpointError
from wanc.models.onnx_keys import check_keys
from wanc.models.weights import Weight
from wanc.runtime.interface import COMPONENT, GRAPH
from wanc.runtime.progress import ProgressBar

if TYPE_CHECKING:
    import onnx_ir as ir

    from wanc.models.graph import Input

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

        with ProgressBar(self.name, 1, enabled=progress) as bar:
            read = read_onnx(inputs["source"])
            check_keys(read.inputs, self.example, self.values)
            make_ours(read.model, read.inputs)
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


def make_ours(model: ir.Model, inputs: Sequence[Input]) -> None:
    """Make of a foreign graph, in place, one that passes may take at its word, given the `inputs` of a bundle."""
    from wanc.models.onnx_limits import OPSETS

    _drop_defaults(model)
    _unite_tied(model)
    # One of other domains' operators alone need not say it: so old that no pass has anything to put in.
    model.graph.opset_imports.setdefault("", OPSETS[""][0])
    _believe_inputs_alone(model, inputs)


def _drop_defaults(model: ir.Model) -> None:
    """Inputs that have a default are constants from here on: a bundle's inputs are those that have to be given."""
    for value in list(model.graph.inputs):
        if value.is_initializer():
            model.graph.inputs.remove(value)
    model.ir_version = max(model.ir_version, CONSTANT_INITIALIZERS)


def _unite_tied(model: ir.Model) -> None:
    """Make one weight of those that are the same bytes of a file, as a graph has it that was never taken apart.

    One that a subgraph uses keeps its own name, which may mean something else there.
    """
    import onnx_ir as ir

    from wanc.models.onnx_tensors import plain_location

    first: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor) or value.is_graph_output():
            continue
        if any(use.node.graph is not model.graph for use in value.uses()):
            continue
        place = (plain_location(str(tensor.location)), tensor.offset or 0, tensor.dtype, tuple(tensor.shape))
        if (kept := first.setdefault(place, value)) is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del model.graph.initializers[name]


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
            given = value.shape if value.is_graph_output() else None
            value.shape = None if given is None else ir.Shape([None] * len(given))


def _refer_to_source(model: ir.Model) -> dict[str, Weight]:
    """Name external tensors' files as the source does; returns where each weight of the main graph lies."""
    import onnx_ir as ir

    from wanc.models.onnx_file import DATA
    from wanc.models.onnx_tensors import plain_location

    weights: dict[str, Weight] = {}
    for graph, value in _initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            weight = Weight(
                f"{DATA}{plain_location(str(tensor.location))}",
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
