"""Whether the numbers of arrays are those that a graph's inputs may hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .interface import InputError, Interface
from .value import Array


def check_ranges(interface: Interface, given: Mapping[str, Array]) -> None:
    """Compare the numbers of arrays, by the inputs' names, with their ranges, which not every engine does.

    Raises InputError naming what was expected, what was found, and where in the array.
    """
    for tensor in interface.inputs:
        array = given[tensor.name]
        if tensor.range is None or not array.size:
            continue
        low, high = tensor.range
        for place, is_wrong in ((array.argmin(), array.min() < low), (array.argmax(), array.max() > high)):
            if is_wrong:
                at = [int(index) for index in np.unravel_index(place, array.shape)]
                raise InputError(
                    f"the input {tensor.name!r} holds {array.flat[place]} at {at}, "
                    f"and numbers from {low} to {high} were expected"
                )
