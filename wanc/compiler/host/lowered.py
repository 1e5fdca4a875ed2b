"""Executing a lowered graph on the machine that builds, in the types of the target: for engines that cannot run here.

The graph is standard ONNX with bfloat16 or float16 values, casts and roundings to codes. onnx's own reference evaluator
chooses and executes the operators; `operators.py` has those that it gets wrong or takes hours for. Weights are mapped
when they are used and values freed behind their last use, so that memory has one weight and what is alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from wanc.compiler.host.operators import operators

Array = np.ndarray[Any, Any]


class HostGraph:
    """A graph, ready to be executed.

    `model` is the graph or its file, and `folder` where the files lie that its external weights name. `collectives`
    executes what ranks exchange, where this is the graph of one of several (see `ranks.run_ranks`).
    """

    def __init__(self, model: ir.Model | Path, folder: Path, collectives: type[OpRun] | None = None) -> None:
        read = ir.load(model) if isinstance(model, Path) else model.clone()
        self._folder = folder
        self._weights = {name: value.const_value for name, value in read.graph.initializers.items()}
        self._inputs = {str(value.name): _dtype(value) for value in read.graph.inputs}
        self._outputs = [str(value.name) for value in read.graph.outputs]
        read.graph.initializers.clear()  # the evaluator would read all of them
        own = [*operators(read.opset_imports[""]), *([collectives] if collectives else [])]
        self._nodes: list[OpRun] = ReferenceEvaluator(ir.to_proto(read), new_ops=own).rt_nodes_
        self._uses = [_uses(node.onnx_node) for node in self._nodes]
        self._ended = _ended(self._nodes, self._uses, self._outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The graph's outputs by name, each in the type that the graph says.

        Raises ValueError where an input is missing or of another type than the graph's, and what operators raise.
        """
        for name, dtype in self._inputs.items():
            if name not in inputs or inputs[name].dtype != dtype:
                found = inputs[name].dtype if name in inputs else "missing"
                raise ValueError(f"input {name} is {found}, where the graph takes {dtype}")
        values: dict[str, Any] = {"": None, **{name: inputs[name] for name in self._inputs}}
        for index, (node, names) in enumerate(zip(self._nodes, self._uses, strict=True)):
            self._execute(node, names, values)
            for name in self._ended[index]:
                values.pop(name, None)
        return {name: self._value(name, values) for name in self._outputs}

    def _execute(self, node: OpRun, names: set[str], values: dict[str, Any]) -> None:
        """Execute a node, and note what it gives."""
        known = {name: self._value(name, values) for name in names}
        context = {"context": known} if node.need_context() else {}
        outputs = node.run(*(known[name] if name else None for name in node.input), **context)
        values.update(zip(node.output, map(_in_order, outputs), strict=False))

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        """A value by name; a weight is mapped from its file."""
        tensor = self._weights.get(name)
        if name in values or tensor is None:
            return values[name]
        if isinstance(tensor, ir.ExternalTensor):
            tensor = ir.ExternalTensor(
                tensor.location,
                tensor.offset,
                tensor.length,
                tensor.dtype,
                shape=tensor.shape,
                name=name,
                base_dir=self._folder,
            )
        return tensor.numpy()


def _in_order(value: Any) -> Any:
    """A value with its axes in memory as it has them: numpy sums what is turned in another order."""
    return value if not isinstance(value, np.ndarray) or value.flags.c_contiguous else value.copy(order="C")


def _uses(node: onnx.NodeProto) -> set[str]:
    """The values that a node takes, or a graph in it: some of those are of that graph itself."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(*map(_uses, graph.node), (value.name for value in graph.output))
            names -= {name for inner in graph.node for name in inner.output}
            names -= {value.name for value in (*graph.input, *graph.initializer)}
    return names - {""}


def _ended(nodes: list[OpRun], uses: list[set[str]], outputs: list[str]) -> list[set[str]]:
    """Behind each node the values that nothing takes any more."""
    needed, ended = set(outputs), list[set[str]]()
    for node, names in zip(reversed(nodes), reversed(uses), strict=True):
        done = (names | set(node.output)) - needed
        needed |= names
        ended.append(done)
    return ended[::-1]


def _dtype(value: ir.Value) -> np.dtype[Any]:
    assert value.dtype is not None
    return value.dtype.numpy()
