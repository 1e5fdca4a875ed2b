"""How the road asks for stages: one of which it needs the result, or several that do not need each other's.

Who runs them (see `runner`) may run such several at the same time, and may run them elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from wanc.compiler.stages.stage import Stage, Tree

Action = tuple[Stage, Mapping[str, Tree]]
"""A stage with its inputs by name."""
Run = Callable[[Stage, Mapping[str, Tree]], Tree]
"""Yields the result of one stage; raises what the stage raises."""
RunAll = Callable[[Sequence[Action]], list[Tree]]
"""Yields the results of stages that do not depend on each other, in their order; raises as the first that fails."""


def in_turn(run: Run) -> RunAll:
    """What runs several stages one after the other."""
    return lambda actions: [run(*action) for action in actions]
