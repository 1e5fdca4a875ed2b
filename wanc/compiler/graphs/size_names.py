"""Names for sizes that are computed of others, so that an interface has plain names alone: `tokens` for `2*n*m`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import onnx_ir as ir

UNKNOWN = "?"
"""What the text of a size begins with of which the graph says nothing."""


class SizeNames:
    """The names of sizes that are no multiple of a name, by what they are computed of; `named` are those given."""

    def __init__(self, named: Mapping[str, str]) -> None:
        self._given = {_simplified(text): name for name, text in named.items()}
        self._names: dict[str, str] = {}

    def name(self, text: str, sizes: Collection[str]) -> str:
        """The name of a size, which is not to be one of the `sizes` if it is new."""
        if text not in self._names:
            made_up = re.sub(r"[^A-Za-z0-9]+", "_", text.removeprefix(UNKNOWN))
            stem = made_up if text.startswith(UNKNOWN) else self._given.get(_simplified(text), made_up)
            candidates = (stem, *(f"{stem}_{count}" for count in range(2, len(sizes) + 3)))
            self._names[text] = next(name for name in candidates if name not in sizes)
        return self._names[text]

    def computed(self) -> dict[str, str]:
        """What each name stands for, where the graph says it."""
        return {name: text for text, name in self._names.items() if not text.startswith(UNKNOWN)}

    def apply(self, graph: ir.Graph) -> None:
        """Write the names wherever the graph has these sizes."""
        for node in graph:
            for value in node.outputs:
                if value.shape is not None and any(str(size) in self._names for size in value.shape):
                    value.shape = ir.Shape([self._names.get(str(size), size) for size in value.shape])


def _simplified(text: str) -> str:
    """A product in one order, however it was written."""
    return str(ir.SymbolicDim(text).simplify())
