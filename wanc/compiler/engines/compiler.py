"""What an engine does at build time: compile, execute where it can, and report what it has built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from wanc.runtime.backends.base import Backend
from wanc.runtime.engine_file import EngineMemory

if TYPE_CHECKING:
    import onnx_ir as ir

    from wanc.compiler.engines.kernels import Kernels
    from wanc.compiler.engines.lowered_graph import LoweredGraph
    from wanc.compiler.passes.rewrite import Pass

Array = np.ndarray[Any, Any]


class Prober(Protocol):
    """The quantised Linears of one built graph, one by one."""

    def run(self, linear: str, inputs: Array) -> Array | None:
        """What a quantised Linear gives for rows of its input [rows, in], without its bias; None for one not there."""
        ...


@dataclass(frozen=True)
class Probers:
    """The probers of a graph that was built in several pieces, as one: a Linear is in one of them."""

    pieces: Sequence[Prober]

    def run(self, linear: str, inputs: Array) -> Array | None:
        """As `Prober.run`."""
        found = (prober.run(linear, inputs) for prober in self.pieces)
        return next((outputs for outputs in found if outputs is not None), None)


class Compiler(Protocol):
    """One engine, for one target."""

    engine: ClassVar[str]
    built: ClassVar[str | None]
    """What the manifest says of its files: None where they are engines, `on-target` where one is made of each there."""
    turns_weights: ClassVar[bool]
    """Whether it takes products' weights as [in, out], which most keep as [out, in]; else their Transpose stays."""
    has_collectives: ClassVar[bool]
    """Whether its engines exchange values between ranks themselves; else a rank's graph is cut where they do."""

    def lowering(self, component: str, graph: str) -> tuple[Pass, ...]:
        """The passes that lower a canonical graph into what it takes, in their order."""
        ...

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        """Make engine files of lowered graphs, each in its graph's folder, and return them by graph.

        The graphs' files refer to the `weights` beside them. What the engine does not need goes. The pieces of a graph
        that is cut where ranks exchange have names of their own. Raises CheckpointError where it does not take a graph.
        """
        ...

    def execute(self, path: Path) -> Backend | None:
        """An engine file, open for one thread, so that every machine agrees; None where it cannot be executed here.

        That is a normal case: an engine for a GPU may be built where there is none. Raises what the library raises.
        """
        ...

    def memory(self, path: Path) -> EngineMemory | None:
        """What an engine file takes of the processor's memory when it is open; None of one that is for a GPU."""
        ...

    def has_kernel(self, node: ir.Node, opset: int) -> bool:
        """Whether a fused operator of a canonical graph is one that the engine has a kernel for, in any of its forms.

        Where not, a model that asks for it gets what its parts compute, as it would outside of wanc.
        """
        ...

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """What was built: of one execution, which there was, or from the build's log where there was none.

        Of a file that is built elsewhere, what it asks for.
        """
        ...

    def prober(self, path: Path) -> Prober | None:
        """The quantised Linears of an engine file; None where they cannot be executed here."""
        ...
