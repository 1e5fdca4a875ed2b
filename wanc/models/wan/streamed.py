"""Weights that are in memory only while they are used: each is read when the module that owns it is executed.

So a model of any size is executed eagerly in the memory of its largest layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wanc.errors import CheckpointError
from wanc.models.weights import Weight

TORCH_DTYPES = {"FLOAT": torch.float32, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16}
"""By ONNX's names."""


def stream(module: torch.nn.Module, weights: Mapping[str, Weight], root: Path, *, where: str) -> None:
    """Have a module on the device `meta` read its weights, in float32, from files below `root` while it is executed.

    `weights` are by the module's own names. Raises CheckpointError, naming `where`, when a layer is executed that has a
    parameter that is not among them, or one of another shape.
    """
    for path, part in module.named_modules():
        if dict(part.named_parameters(recurse=False)):
            prefix = f"{path}." if path else ""
            part.register_forward_pre_hook(partial(_read, prefix, weights, root, where))
            part.register_forward_hook(_forget, always_call=True)
            _forget(part)


def read_tensor(weight: Weight, path: Path) -> torch.Tensor:
    """A weight's values, float32, from the file that holds it."""
    data = np.fromfile(path, np.uint8, weight.length, offset=weight.offset)
    return torch.from_numpy(data).view(TORCH_DTYPES[weight.dtype]).reshape(weight.shape).float()


def _read(
    prefix: str, weights: Mapping[str, Weight], root: Path, where: str, part: torch.nn.Module, _inputs: object
) -> None:
    for name, parameter in part.named_parameters(recurse=False):
        weight = weights.get(f"{prefix}{name}")
        if weight is None:
            raise CheckpointError(f"the weights hold no tensor named {prefix}{name}", where=where)
        if weight.shape != tuple(parameter.shape):
            raise CheckpointError(
                f"{prefix}{name} has shape {list(weight.shape)}; its configuration asks for {list(parameter.shape)}",
                where=where,
            )
        _set(part, name, read_tensor(weight, root / weight.file))


def _forget(part: torch.nn.Module, *_: Any) -> None:
    """In the place of a parameter, a single NaN of its shape: what is used and was not read shows."""
    for name, parameter in part.named_parameters(recurse=False):
        _set(part, name, torch.full((), float("nan"), device="cpu").expand(parameter.shape))


def _set(part: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    setattr(part, name, torch.nn.Parameter(tensor, requires_grad=False))
