"""Whether a torch module gives the same whenever it is given the same: a graph keeps nothing between two executions.

What a module holds when it is traced is a constant of the graph. A counter would count to one for ever, a cache of keys
would hold those of the example. So the module is executed before it is traced, and looked at: what it has written to,
and whether it gives again what it gave. A table that it computes when it first needs it is no such state.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from wanc.errors import RecipeError

HINT = "a bundle keeps nothing between runs: take it as an input, and return it as an output"
RELATIVE, ABSOLUTE = 1e-4, 1e-6  # what one graph gives twice may differ by the order of sums
GIVEN = (torch.Tensor, int, type(None))
"""What torch takes for results of a graph: sizes become tensors, and None is left out."""

Arguments = Sequence[torch.Tensor]


def check_stateless(module: torch.nn.Module, arguments: Arguments, factory: str) -> None:
    """Execute a module three times on arguments of these shapes; floats are noise.

    Raises RecipeError where it writes to a parameter or buffer of its own, where it gives other results for the same
    arguments after others, and where they are no tensors; and whatever the module raises.
    """
    first, other = (_with_noise(arguments, seed) for seed in (0, 1))
    before = {name: (tensor, tensor._version, _digest(tensor)) for name, tensor in _held(module)}
    once = _results(module, first)
    for name, tensor in _held(module):
        held, version, digest = before.get(name, (tensor, tensor._version, None))
        written = held is tensor and tensor._version != version
        if written or (digest is not None and tensor.shape == held.shape and _digest(tensor) != digest):
            raise RecipeError(f"{factory}: forward changes {name}, which the module keeps", hint=HINT)
    if foreign := [type(result).__name__ for result in once if not isinstance(result, GIVEN)]:
        raise RecipeError(f"{factory}: forward returns a {foreign[0]}", hint="return tensors: a graph has no others")
    if not any(isinstance(result, torch.Tensor) for result in once):
        raise RecipeError(f"{factory}: forward returns no tensor")
    _results(module, other)
    again = _results(module, first)
    if len(once) != len(again) or not all(map(_equal, once, again)):
        raise RecipeError(f"{factory}: forward gives other results when it is called again", hint=HINT)


def _held(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _results(module: torch.nn.Module, arguments: Arguments) -> list[Any]:
    """What it gives, in the order of its leaves. Random numbers are the same ones every time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        results = pytree.tree_leaves(module(*(tensor.clone() for tensor in arguments)))
        return [result.clone() if isinstance(result, torch.Tensor) else result for result in results]


def _with_noise(arguments: Arguments, seed: int) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [
        torch.randn(tensor.shape, generator=noise).to(tensor.dtype) if tensor.is_floating_point() else tensor
        for tensor in arguments
    ]


def _digest(tensor: torch.Tensor) -> int | None:
    """Of a tensor's values; None where they do not lie in memory one after the other."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return None
    return zlib.crc32(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _equal(one: Any, other: Any) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return isinstance(one, torch.Tensor) == isinstance(other, torch.Tensor)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one, other, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
