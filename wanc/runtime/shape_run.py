"""A graph executed on dtypes and sizes alone: what it would take and give, as its interface declares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .dimensions import Dimension, split_dimension
from .errors import BundleError
from .interface import Input, Interface, shown_shape

Sizes = tuple[int | None, ...]


@dataclass(frozen=True)
class Described:
    """An array that is not there: its dtype, and its sizes, None where nobody says."""

    dtype: str
    shape: Sizes

    def __str__(self) -> str:
        return f"{self.dtype} {shown_shape(tuple('?' if size is None else size for size in self.shape))}"

    def fits(self, other: Described) -> bool:
        """Whether both could be one array."""
        return self.dtype == other.dtype and _meet(self.shape, other.shape)


@dataclass(frozen=True)
class ShapeRun:
    """The graphs of one component. `where` is the manifest that declares them."""

    component: str
    graphs: Mapping[str, Interface]
    where: str

    def run(self, graph: str, given: Mapping[str, Described]) -> dict[str, Described]:
        """What a graph gives for these inputs, by name.

        Raises BundleError where the component has no such graph, and where it takes others.
        """
        if graph not in self.graphs:
            raise BundleError(f"there is no engine for {self.component}/{graph}", where=self.where)
        interface, sizes = self.graphs[graph], dict[str, int]()
        names = {tensor.name for tensor in interface.inputs}
        if unknown := sorted(given.keys() - names):
            raise self.fault(graph, f"does not take {unknown[0]}, which it is given")
        for tensor in interface.inputs:
            if tensor.name not in given:
                raise self.fault(graph, f"takes {tensor.name}, which nobody gives it")
            if not _bind(tensor, given[tensor.name], sizes):
                declared = f"{tensor.dtype} {shown_shape(tensor.shape)}"
                raise self.fault(graph, f"takes {tensor.name} as {declared}, and is given {given[tensor.name]}")
        return {
            output.name: Described(output.dtype, tuple(_size(dimension, sizes) for dimension in output.shape))
            for output in interface.outputs
        }

    def expect(self, graph: str, results: Mapping[str, Described], name: str, wanted: Described) -> None:
        """Raises BundleError unless this is among what the graph gives."""
        if name not in results:
            raise self.fault(graph, f"does not give {name}, which is read from it")
        if not results[name].fits(wanted):
            raise self.fault(graph, f"gives {name} as {results[name]}, and {wanted} is needed")

    def fault(self, graph: str, reason: str) -> BundleError:
        return BundleError(f"{self.component}/{graph} {reason}", where=self.where)


def _bind(tensor: Input, given: Described, sizes: dict[str, int]) -> bool:
    """Whether the input takes this; what its names stand for goes into `sizes`."""
    if tensor.dtype != given.dtype or len(tensor.shape) != len(given.shape):
        return False
    for dimension, size in zip(tensor.shape, given.shape, strict=True):
        factor, name = split_dimension(dimension)
        if size is None:
            continue
        if size % factor if name else size != factor:
            return False
        if name and sizes.setdefault(name, size // factor) != size // factor:
            return False
    return True


def _size(dimension: Dimension, sizes: Mapping[str, int]) -> int | None:
    factor, name = split_dimension(dimension)
    if not name:
        return factor
    return factor * sizes[name] if name in sizes else None


def _meet(one: Sizes, other: Sizes) -> bool:
    return len(one) == len(other) and all(
        mine == theirs or mine is None or theirs is None for mine, theirs in zip(one, other, strict=True)
    )
