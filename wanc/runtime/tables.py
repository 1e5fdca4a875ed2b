"""What a graph gives for inputs that were known when the bundle was built: its results, one row for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .errors import BundleError
from .golden import tensor_name
from .interface import Interface, shown_shape
from .pool import Empty, copied
from .safetensors import STORAGE_DTYPES, SafetensorsFile
from .value import Array, Given, as_array

SUFFIX = ".table.safetensors"


def table_file(component: str, graph: str) -> str:
    """Where it lies in a bundle. Tensors are named as golden ones are, and have an axis of rows in front."""
    return f"engines/{component}/{graph}{SUFFIX}"


MOST_ROWS = 1000
"""A model is trained at as many timesteps."""


class Table:
    """The rows of one graph, mapped into memory: those that are not asked for are not read."""

    def __init__(self, path: Path, component: str, graph: str, interface: Interface) -> None:
        """Raises BundleError where the file holds something else than rows of the graph's inputs and outputs."""
        file = SafetensorsFile(path)
        values = {
            tensor_name(component, graph, tensor.name): tensor for tensor in (*interface.inputs, *interface.outputs)
        }
        rows = {info.shape[:1] for info in file.tensors.values()}
        if file.tensors.keys() != values.keys() or len(rows) != 1 or rows == {()}:
            raise BundleError(f"is no table of {component}/{graph}", where=str(path))
        if max(rows) > (MOST_ROWS,):
            raise BundleError(f"has {max(rows)[0]} rows, more than the {MOST_ROWS} allowed", where=str(path))
        for name, tensor in values.items():
            info = file.tensors[name]
            if (
                info.dtype == "BF16"
                or STORAGE_DTYPES[info.dtype].name != tensor.dtype
                or info.shape[1:] != tensor.shape
            ):
                found, declared = f"{info.dtype} {list(info.shape[1:])}", f"{tensor.dtype} {shown_shape(tensor.shape)}"
                message = f"a row of {tensor.name} is {found}, and {declared} was expected"
                raise BundleError(f"is no table of {component}/{graph}: {message}", where=str(path))
        tensors = {tensor.name: file[name] for name, tensor in values.items()}
        self._inputs = [tensor.name for tensor in interface.inputs]
        self._outputs = {tensor.name: tensors[tensor.name] for tensor in interface.outputs}
        given = zip(*(tensors[name] for name in self._inputs), strict=True)
        self._rows = {tuple(array.tobytes() for array in row): index for index, row in enumerate(given)}

    def find(self, given: Mapping[str, Given], empty: Empty = np.empty) -> dict[str, Array] | None:
        """What the graph gives for these inputs, in arrays that `empty` makes; None where that was not computed."""
        index = self._rows.get(tuple(as_array(given[name]).tobytes() for name in self._inputs))
        return None if index is None else {name: copied(array[index], empty) for name, array in self._outputs.items()}
