"""Weights that no file of the model's source holds: written beside the program, and referred to from its graph."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from wanc.compiler.program import OWN
from wanc.models.weights import Weight
from wanc.runtime.interface import COMPONENT

FILE = f"{COMPONENT}/weights.bin"
# Below this, a tensor is a shape or a scalar that graph optimisers want to see.
EMBEDDED_BYTES = 1024
ALIGNMENT = 64


def store_weights(model: ir.Model, out: Path) -> dict[str, Weight]:
    """Move the values of a graph's initializers from memory into `out/model/weights.bin`, one at a time.

    Returns where each one lies, by name. Small ones, and those that lie in a file already, stay what they are.
    """
    stored: dict[str, Weight] = {}
    with (out / FILE).open("wb") as stream:
        for name, initializer in model.graph.initializers.items():
            tensor = initializer.const_value
            if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.nbytes <= EMBEDDED_BYTES:
                continue
            if tensor.dtype == ir.DataType.STRING:  # texts have no place outside of a graph
                continue
            stream.write(b"\0" * (-stream.tell() % ALIGNMENT))
            shape = tuple(tensor.shape.numpy())
            weight = Weight(f"{OWN}{FILE}", stream.tell(), tensor.nbytes, tensor.dtype.name, shape)
            stream.write(tensor.tobytes())
            initializer.const_value = ir.ExternalTensor(
                weight.file, weight.offset, weight.length, tensor.dtype, shape=ir.Shape(shape), name=name
            )
            stored[name] = weight
    if not stored:
        (out / FILE).unlink()
    return stored
