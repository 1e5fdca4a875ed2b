"""Weights that are in memory only while they are used: each is read when the module that owns it is executed.

So a model of any size is executed eagerly in the memory of its largest layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wanc.errors import CheckpointError
from wanc.models.weights import Weight

Array = np.ndarray[Any, Any]
TORCH_DTYPES = {"FLOAT": torch.float32, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16}
"""By ONNX's names."""


Change = Callable[[str, Array], Array]
"""A weight's values, float32, in place of those that it has; the name is the module's."""


def stream(
    module: torch.nn.Module, weights: Mapping[str, Weight], root: Path, *, where: str, change: Change | None = None
) -> None:
    """Have a module on the device `meta` read its weights, in float32, from files below `root` while it is executed.

    `weights` are by the module's own names; `change` is applied to each that is read. Raises CheckpointError, naming
    `where`, when a layer is executed that has a parameter that is not among them, or one of another shape.
    """

    def read(prefix: str, part: torch.nn.Module, _inputs: object) -> None:
        for own, parameter in part.named_parameters(recurse=False):
            name = f"{prefix}{own}"
            weight = weights.get(name)
            if weight is None:
                raise CheckpointError(f"the weights hold no tensor named {name}", where=where)
            if weight.shape != tuple(parameter.shape):
                raise CheckpointError(
                    f"{name} has shape {list(weight.shape)}; its configuration asks for {list(parameter.shape)}",
                    where=where,
                )
            values = read_tensor(weight, root / weight.file)
            _set(part, own, torch.from_numpy(change(name, values.numpy())) if change else values)

    for path, part in module.named_modules():
        if dict(part.named_parameters(recurse=False)):
            part.register_forward_pre_hook(partial(read, f"{path}." if path else ""))
            part.register_forward_hook(_forget, always_call=True)
            _forget(part)


def read_tensor(weight: Weight, path: Path) -> torch.Tensor:
    """A weight's values, float32, from the file that holds it."""
    data = np.fromfile(path, np.uint8, weight.length, offset=weight.offset)
    return torch.from_numpy(data).view(TORCH_DTYPES[weight.dtype]).reshape(weight.shape).float()


def _forget(part: torch.nn.Module, *_: Any) -> None:
    """In the place of a parameter, a single NaN of its shape: what is used and was not read shows."""
    for name, parameter in part.named_parameters(recurse=False):
        _set(part, name, torch.full((), float("nan"), device="cpu").expand(parameter.shape))


def _set(part: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    setattr(part, name, torch.nn.Parameter(tensor, requires_grad=False))
