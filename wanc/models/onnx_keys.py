"""What a recipe says of an ONNX file's inputs, compared with those that the file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from wanc.errors import RecipeError
from wanc.models.graph import Input
from wanc.runtime.dimensions import split_dimension


def check_keys(inputs: Sequence[Input], example: Mapping[str, int], values: Mapping[str, float]) -> None:
    """Raises RecipeError: a misspelt name would silently do nothing, and a missing one fail much later."""
    symbols = {*symbols_of(inputs)}
    _check_known("model.example", example, symbols, "size")
    _check_known("model.values", values, {entry.name for entry in inputs}, "input")
    if absent := sorted(symbols - example.keys()):
        sizes = ", ".join(f"{name}: {example.get(name, '…')}" for name in sorted(symbols))
        raise RecipeError(
            f"model.example gives no size for {', '.join(absent)}",
            hint=f"give sizes that work: {{{sizes}}}",
            key="model.example" if example else "model.onnx",
        )


def symbols_of(inputs: Sequence[Input]) -> list[str]:
    """The names of the sizes that are not fixed, in the order in which they appear."""
    return list(dict.fromkeys(split_dimension(d)[1] for entry in inputs for d in entry.shape if isinstance(d, str)))


def _check_known(key: str, given: Mapping[str, object], known: set[str], kind: str) -> None:
    if unknown := sorted(given.keys() - known):
        has = f"it has: {', '.join(sorted(known))}" if known else f"it has no {kind} to name: remove it"
        if near := get_close_matches(unknown[0], sorted(known), n=1):
            has = f"did you mean {near[0]}? {has}"
        message = f"{key} names {unknown[0]!r}, which is no {kind} of the model"
        raise RecipeError(message, hint=has, key=f"{key}.{unknown[0]}")
