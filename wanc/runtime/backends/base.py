"""What a back end is: one file of an engine, opened, that takes arrays and gives arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Backend(Protocol):
    """One engine file, open, for as many executions at once as it has lanes. What its library raises is passed on."""

    outputs: list[str]

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Execute the graph on inputs by name; the results are in the order of `outputs`."""
        ...
