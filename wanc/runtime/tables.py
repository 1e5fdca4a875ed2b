"""What a graph gives for inputs that were known when the bundle was built: its results, one row for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import BundleError
from .golden import named
from .interface import Interface
from .safetensors import SafetensorsFile
from .value import Array, Given, as_array


def table_file(component: str, graph: str) -> str:
    """Where it lies in a bundle. Tensors are named as golden ones are, and have an axis of rows in front."""
    return f"engines/{component}/{graph}.table.safetensors"


class Table:
    """The rows of one graph, mapped into memory: those that are not asked for are not read."""

    def __init__(self, path: Path, component: str, graph: str, interface: Interface) -> None:
        """Raises BundleError where the file holds something else."""
        tensors = named(SafetensorsFile(path), component, graph)
        names = {tensor.name for tensor in (*interface.inputs, *interface.outputs)}
        lengths = {array.shape[:1] for array in tensors.values()}
        if tensors.keys() != names or len(lengths) != 1 or lengths == {()}:
            raise BundleError(f"is no table of {component}/{graph}", where=str(path))
        self._inputs = [tensor.name for tensor in interface.inputs]
        self._outputs = {tensor.name: tensors[tensor.name] for tensor in interface.outputs}
        rows = zip(*(tensors[name] for name in self._inputs), strict=True)
        self._rows = {tuple(array.tobytes() for array in row): index for index, row in enumerate(rows)}

    def find(self, given: Mapping[str, Given]) -> dict[str, Array] | None:
        """What the graph gives for these inputs; None where that was not computed."""
        index = self._rows.get(tuple(as_array(given[name]).tobytes() for name in self._inputs))
        return None if index is None else {name: array[index].copy() for name, array in self._outputs.items()}
