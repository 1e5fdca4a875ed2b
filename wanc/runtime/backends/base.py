"""What a back end is: one file of an engine, opened, that takes arrays and gives arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..value import Value

Array = np.ndarray[Any, Any]


class Backend(Protocol):
    """One engine file, open, for as many executions at once as it has lanes. What its library raises is passed on."""

    outputs: list[str]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Execute the graph on inputs by name; the results are in the order of `outputs`."""
        ...


class DeviceBackend(ABC):
    """A back end with memory of its own, in which values stay that go from one graph to another."""

    outputs: list[str]

    @abstractmethod
    def run_there(self, inputs: Mapping[str, Value]) -> list[Value]:
        """As `Backend.run`: arrays are copied to the device, once each; what lies there already is not."""

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        return [value.numpy() for value in self.run_there({name: Value(array) for name, array in inputs.items()})]
