"""Where a model comes from, as the check stage names it: what executes it untouched, and which packages that takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.stages.code_version import code_version
from wanc.compiler.stages.stage import Files

if TYPE_CHECKING:
    from wanc.compiler.check.trials import Source


MOST_EXECUTED_BYTES = 256 * 2**20
"""Of a component's weights in float32. What is larger is never executed whole for a check: its source layer by layer, a
graph piece by piece, and in the engine's place stands the golden record."""


@dataclass(frozen=True)
class Origin(ABC):
    """A kind of source. Each is a module of its own, which the stage's key covers, and no other's.

    `has_sizes` is whether a recipe or the source says what its symbolic sizes are.
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    has_sizes: ClassVar[bool] = True

    @property
    def code(self) -> str:
        """The version of its code."""
        return code_version(type(self).__module__)

    @abstractmethod
    def open(self, inputs: Mapping[str, Files], scratch: Path) -> Source:
        """The model, ready to be executed. `inputs` are the stage's; what is written goes below `scratch`."""
