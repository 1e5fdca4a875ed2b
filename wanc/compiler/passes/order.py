"""The order of passes, of `fuse` and of an engine's lowering alike: each says what it has to come after."""

from __future__ import annotations

from collections.abc import Iterable

from wanc.compiler.passes.rewrite import Pass


def ordered(passes: Iterable[Pass]) -> tuple[Pass, ...]:
    """The passes in the order given, except where one has to come after a later one.

    Raises ValueError for two of one name, for a name in `after` that no pass has, and for a circle.
    """
    waiting = list(passes)
    names = [entry.name for entry in waiting]
    for entry in waiting:
        if names.count(entry.name) > 1:
            raise ValueError(f"two passes are called {entry.name}")
        if unknown := [name for name in entry.after if name not in names]:
            raise ValueError(f"the pass {entry.name} comes after {unknown[0]}, which is no pass")
    done: list[Pass] = []
    while waiting:
        ready = next((entry for entry in waiting if set(entry.after) <= {earlier.name for earlier in done}), None)
        if ready is None:
            raise ValueError(f"passes come after one another in a circle: {', '.join(e.name for e in waiting)}")
        waiting.remove(ready)
        done.append(ready)
    return tuple(done)
