"""Distributions of Python that install the same module, so that only one of them may be there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

INSTEAD: Mapping[str, str] = {"onnxruntime": "onnxruntime-gpu"}
"""What serves in place of a distribution: the second executes all that the first does."""


def installed(name: str) -> tuple[str, str] | None:
    """The distribution that is installed of a name, or in its place, and its version; None where there is none."""
    return _installed(name, tuple(sys.path))


@cache
def _installed(name: str, _: tuple[str, ...]) -> tuple[str, str] | None:
    """The same along one path: a build asks for each of its tools a dozen times."""
    for found in (name, INSTEAD.get(name)):
        if found is not None:
            try:
                return found, version(found)
            except PackageNotFoundError:
                continue
    return None
