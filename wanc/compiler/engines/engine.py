"""An engine as stages name it: what a recipe chooses of it, and which packages it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wanc.compiler.stages.code_version import code_version
from wanc.compiler.stages.stage import tool_version

if TYPE_CHECKING:
    from wanc.compiler.engines.compiler import Compiler


@dataclass(frozen=True)
class Engine(ABC):
    """Its fields are a recipe's choices. `tools` are the distributions of its library, which running a bundle takes.

    Each engine is a module of its own, which a stage's key covers together with all that it imports: so a change of one
    engine compiles nothing again for another.
    """

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    extra: ClassVar[str] = "build"
    """The extra of wanc that installs them."""
    is_for_sizes: ClassVar[bool] = False
    """Whether what it compiles takes the sizes of the recipe's shapes and no others."""

    @property
    def code(self) -> str:
        """The version of its code."""
        return code_version(type(self).__module__)

    @property
    def version(self) -> str:
        """The version of its library. Raises UserError where it is not installed."""
        return tool_version(self.tools[0], self.extra)

    def copies(self, graphs: int) -> float:
        """How often the weights of a component that has so many graphs lie on disk while it is compiled, in float32."""
        return graphs

    @abstractmethod
    def compiler(self, target: str) -> Compiler:
        """What compiles for a target of it, imported when it is needed."""
