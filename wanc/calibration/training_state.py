"""What a training run has come to, in one safetensors file, replaced as a whole: a killed run goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from wanc.artifacts.kept import keep
from wanc.errors import UserError
from wanc.runtime import safetensors

Tensors = dict[str, torch.Tensor]
OF_RUN = "run"


def write(path: Path, sections: Mapping[str, Mapping[str, torch.Tensor]], run: str) -> None:
    """Write tensors, by section and name, for the run that the digest `run`, in hexadecimal, tells from all others.

    A reader finds the old file or the new one, whatever happens in between. Raises OutputError.
    """
    arrays = {
        f"{section}/{name}": tensor.detach().numpy()
        for section, tensors in sections.items()
        for name, tensor in tensors.items()
    }
    arrays[OF_RUN] = np.frombuffer(bytes.fromhex(run), np.uint8)
    keep(path, lambda place: safetensors.write(place, arrays))


def read(path: Path, run: str) -> dict[str, Tensors]:
    """The sections that were written. Raises BundleError for a damaged file, UserError for one of another run."""
    file = safetensors.SafetensorsFile(path)
    if OF_RUN not in file or file[OF_RUN].tobytes() != bytes.fromhex(run):
        raise UserError(
            "a checkpoint of another training run",
            where=str(path),
            hint="remove it, or choose another work folder, to train anew with what is asked for now",
        )
    sections: dict[str, Tensors] = {}
    for name in file:
        if name != OF_RUN:
            section, _, entry = name.partition("/")
            sections.setdefault(section, {})[entry] = torch.from_numpy(file[name].copy())
    return sections


def of_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """What an optimizer remembers of each parameter, by the parameter's number."""
    remembered = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, entries in remembered.items() for name, value in entries.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Give back what `of_optimizer` took; the parameters and settings are the optimizer's own."""
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
