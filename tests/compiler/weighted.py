"""Graphs written as text, with weights that lie in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.program.program import weight_files
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.own_file import OwnFile
from wanc.models.weights import Weight

from .passes.builder import with_noise

Array = np.ndarray[Any, Any]
FILE = "weights.bin"


@dataclass(frozen=True)
class Weighted:
    """A model that refers to its weights, the files that they lie in, and the same model with weights in memory."""

    model: ir.Model
    filled: ir.Model
    files: Files
    weights: Mapping[str, Weight]

    def fill(self, model: ir.Model) -> ir.Model:
        """A piece of the model, with its weights in memory."""
        filled = model.clone()
        for name, value in filled.graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = self.filled.graph.initializers[name].const_value
        return filled


def weighted(
    model: ir.Model, folder: Path, change: Callable[[str, Array], Array] = lambda _name, values: values
) -> Weighted:
    """Give a parsed model weights: noise by name, which `change` may make something else of."""
    filled, referring = with_noise(model), model.clone()
    with OwnFile(folder, FILE) as file:
        for name, value in referring.graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                tensor = filled.graph.initializers[name].const_value
                assert tensor is not None
                values = change(name, tensor.numpy()).astype(tensor.dtype.numpy())
                tensor = ir.tensor(values, dtype=tensor.dtype, name=name)
                filled.graph.initializers[name].const_value = tensor
                value.const_value = file.add(name, tensor)
    return Weighted(referring, filled, weight_files({FILE: folder / FILE}, {}), dict(file.entries))
