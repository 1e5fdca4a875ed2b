"""What an untouched model was given and what it gave: what a build is measured by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wanc.compiler.check.asked import Asked
from wanc.compiler.check.draws import Kind, draw, kinds, other_sizes

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


class SourceRefuses(Exception):
    """The untouched model does not run at these sizes, or on these numbers."""


class NoKernel(SourceRefuses):
    """A graph that cannot be opened: most often there is no kernel for one of its operators."""


@dataclass(frozen=True)
class Trial:
    """One execution of the untouched model: at `sizes`, on inputs drawn in the way `kind`.

    `moved` gives the outputs that the model itself has where every float that enters it is off in its last places.
    """

    kind: Kind
    sizes: Mapping[str, int]
    inputs: Arrays
    outputs: Arrays
    moved: Callable[[], Arrays]


@dataclass(frozen=True)
class Refused:
    """Sizes, or inputs, that the untouched model does not take."""

    kind: Kind
    sizes: Mapping[str, int]


class Source(Protocol):
    """A model as it was given. `against` says by what it is executed: it goes into the manifest."""

    against: str

    def trials(self, component: str, graph: str, asked: Asked) -> Iterator[Trial | Refused]:
        """Executions of one graph of the program, which has this interface: the first at the example's sizes."""
        ...


class Untouched(Protocol):
    """What executes a model that was not touched."""

    def run(self, inputs: Arrays) -> Arrays:
        """Its outputs by name. Raises SourceRefuses."""
        ...

    def run_moved(self, inputs: Arrays) -> Arrays:
        """The same with every float, of the inputs and of the weights, off in its last places."""
        ...


def attempt(model: Untouched, asked: Asked) -> Iterator[Trial | Refused]:
    """Try a model at the example's sizes, at the first others that it takes, and on inputs that reach edges."""
    example = dict(asked.example)

    def tried(kind: Kind, sizes: Mapping[str, int]) -> Trial | Refused:
        inputs = draw(asked, sizes, kind)
        try:
            outputs = model.run(inputs)
        except SourceRefuses:
            return Refused(kind, sizes)

        def moved() -> Arrays:
            try:
                return model.run_moved(inputs)
            except SourceRefuses:  # nothing is known of how far it moves
                return outputs

        return Trial(kind, sizes, inputs, outputs, moved)

    yield tried("noise", example)
    for sizes in other_sizes(asked):
        found = tried("noise", sizes)
        yield found
        if isinstance(found, Trial):
            break
    for kind in kinds(asked):
        yield tried(kind, example)
