"""Distributions of Python that install the same module, so that only one of them may be there."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

INSTEAD: Mapping[str, str] = {"onnxruntime": "onnxruntime-gpu"}
"""What serves in place of a distribution: the second executes all that the first does."""


def installed(name: str) -> tuple[str, str] | None:
    """The distribution that is installed of a name, or in its place, and its version; None where there is none."""
    for found in (name, INSTEAD.get(name)):
        if found is not None:
            try:
                return found, version(found)
            except PackageNotFoundError:
                continue
    return None
