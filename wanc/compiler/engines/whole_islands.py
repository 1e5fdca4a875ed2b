"""The graphs that are islands as a whole: they take little of the time, and their errors show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch

from wanc.words import Island

WHOLE: Mapping[Island, tuple[str, str]] = {"time": ("*", "time"), "vae": ("vae_decoder", "*")}
"""Patterns of their component and name, by the word that a recipe has for them."""


def is_whole_island(component: str, graph: str, islands: Iterable[Island]) -> bool:
    """Whether all of a graph stays in float32, where these islands do."""
    patterns = [WHOLE[island] for island in islands if island in WHOLE]
    return any(fnmatch(component, one) and fnmatch(graph, other) for one, other in patterns)
