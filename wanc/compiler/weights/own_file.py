"""Weights that no file of the model's source holds: written beside the program, and referred to from its graphs."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

from wanc.compiler.program.program import OWN
from wanc.models.weights import Weight
from wanc.runtime.interface import COMPONENT

FILE = f"{COMPONENT}/weights.bin"
# Below this, a tensor is a shape or a scalar that graph optimisers want to see.
EMBEDDED_BYTES = 1024
ALIGNMENT = 64


class OwnFile:
    """One file of such weights, at `out / name`; nothing is left of it where it stays empty."""

    def __init__(self, out: Path, name: str) -> None:
        self._path, self._name = out / name, f"{OWN}{name}"
        self.entries: dict[str, Weight] = {}

    def __enter__(self) -> OwnFile:
        self._stream: BinaryIO = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if not self.entries:
            self._path.unlink()

    def flush(self) -> None:
        """Let what was added be read."""
        self._stream.flush()

    def add(self, name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        """Write a tensor and return the reference to it."""
        self._stream.write(b"\0" * (-self._stream.tell() % ALIGNMENT))
        shape = tuple(tensor.shape.numpy())
        weight = Weight(self._name, self._stream.tell(), tensor.nbytes, tensor.dtype.name, shape)
        self._stream.write(tensor.tobytes())
        self.entries[name] = weight
        return ir.ExternalTensor(
            weight.file, weight.offset, weight.length, tensor.dtype, shape=ir.Shape(shape), name=name
        )


def store_weights(model: ir.Model, out: Path) -> dict[str, Weight]:
    """Move the values of a graph's initializers from memory into `out/model/weights.bin`, one at a time.

    Returns where each one lies, by name. Small ones, and those that lie in a file already, stay what they are.
    """
    with OwnFile(out, FILE) as file:
        for name, initializer in model.graph.initializers.items():
            tensor = initializer.const_value
            if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes <= EMBEDDED_BYTES:
                continue
            if tensor.dtype != ir.DataType.STRING:  # texts have no place outside of a graph
                initializer.const_value = file.add(name, tensor)
    return file.entries
