"""A component as one graph again: what `hoist` cut by binding time, put together for calibration.

The parts were cut from one graph and kept its names, so that equal names are equal values. In one graph every layer has
what it needs beside it: a block's cross-attention keys are computed in the block, and need not be kept for all blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from wanc.compiler.graphs.hoist import SHAPE


def whole(parts: Mapping[str, ir.Model], main: str) -> ir.Model:
    """The graph that gives the outputs of the part `main` from what no part gives. The parts stay as they are.

    Nodes stand where they are first needed, views of weights included. An input `x.shape` is computed from x.
    """
    return _Whole(parts, main).model()


class _Whole:
    def __init__(self, parts: Mapping[str, ir.Model], main: str) -> None:
        self._main = parts[main]
        self._producers = {
            str(value.name): node for part in parts.values() for node in part.graph for value in node.outputs
        }
        self._sources: dict[str, ir.Value] = {}
        for part in parts.values():
            for value in (*part.graph.inputs, *part.graph.initializers.values()):
                self._sources.setdefault(str(value.name), value)
        self._values: dict[str, ir.Value] = {}
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._initializers: list[ir.Value] = []

    def model(self) -> ir.Model:
        views = constants(self._main.graph)
        for node in self._main.graph:
            if node not in views:
                self._place(str(node.outputs[0].name))
        for value in self._main.graph.outputs:
            self._place(str(value.name))
        outputs = [self._values[str(value.name)] for value in self._main.graph.outputs]
        graph = ir.Graph(
            self._inputs,
            outputs,
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports=dict(self._main.graph.opset_imports),
            name=self._main.graph.name,
        )
        return ir.Model(graph, ir_version=self._main.ir_version)

    def _place(self, wanted: str) -> None:
        """Put a value's node behind all that it needs."""
        waiting = [wanted]
        while waiting:
            name = waiting[-1]
            if name in self._values:
                waiting.pop()
                continue
            node = self._producers.get(name)
            missing = [needed for needed in self._needs(name, node) if needed not in self._values]
            if missing:
                waiting.extend(reversed(missing))
                continue
            waiting.pop()
            if node is not None:
                self._copy(node)
            else:
                self._source(name)

    def _needs(self, name: str, node: ir.Node | None) -> list[str]:
        if node is not None:
            return [str(value.name) for value in node.inputs if value is not None]
        shaped = self._shaped(name)
        return [] if shaped is None else [shaped]

    def _shaped(self, name: str) -> str | None:
        """What an input is the shape of. None for every other value, and where no part takes more than the shape."""
        of = name.removesuffix(SHAPE)
        return of if of != name and self._sources[name].is_graph_input() and of in self._sources else None

    def _copy(self, node: ir.Node) -> None:
        outputs = [ir.Value(name=value.name, shape=value.shape, type=value.type) for value in node.outputs]
        inputs = [None if value is None else self._values[str(value.name)] for value in node.inputs]
        # Without its name, which a node of another part may have as well.
        self._add(ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), outputs=outputs))

    def _source(self, name: str) -> None:
        """An input of the component, the shape of one, or a weight."""
        found = self._sources[name]
        if (shaped := self._shaped(name)) is not None:
            output = ir.Value(name=name, shape=found.shape, type=found.type)
            self._add(ir.Node("", "Shape", [self._values[shaped]], outputs=[output]))
            return
        value = ir.Value(name=name, shape=found.shape, type=found.type, const_value=found.const_value)
        self._values[name] = value
        (self._initializers if found.is_initializer() else self._inputs).append(value)

    def _add(self, node: ir.Node) -> None:
        self._nodes.append(node)
        self._values |= {str(value.name): value for value in node.outputs}


def constants(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that depend on no input: constants, and views of weights."""
    found: set[ir.Node] = set()
    for node in graph:
        if all(
            value is None or value.is_initializer() or (not value.is_graph_input() and value.producer() in found)
            for value in node.inputs
        ):
            found.add(node)
    return found
