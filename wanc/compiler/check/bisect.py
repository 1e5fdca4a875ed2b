"""Where a build stops giving what its source gives: the first step behind which it differs.

Steps are executed as they are written, by what executes an untouched ONNX file, so that nothing but the step itself
can be the reason. The last one is the engine, with what its library makes of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wanc.compiler.check.trials import Arrays, NoKernel, SourceRefuses

EXPORT, CUT, WEIGHTS, ENGINE = "the export", "the cutting into parts", "the writing of weights", "the engine's kernels"
SPLIT = "the splitting over devices"


@dataclass(frozen=True)
class Culprit:
    """A step, as an error names it: `place` is where a pass is applied, None for what is no pass."""

    name: str
    place: str | None = None

    def __str__(self) -> str:
        return f"the pass {self.name} of {self.place}" if self.place else self.name


Version = tuple[Culprit, Callable[[Arrays], Arrays]]
"""What a graph is behind a step, and how it is executed."""


def first_wrong(versions: Iterable[Version], inputs: Arrays, is_wrong: Callable[[Arrays | None], bool]) -> Culprit:
    """The first step behind which a graph is wrong; the engine where none before it is.

    `is_wrong` is given the outputs, or None where it does not run on these inputs. What cannot be executed here tells
    nothing, and is passed over.
    """
    for culprit, run in versions:
        try:
            outputs = run(inputs)
        except NoKernel:
            continue
        except SourceRefuses:
            outputs = None
        if is_wrong(outputs):
            return culprit
    return Culprit(ENGINE)
