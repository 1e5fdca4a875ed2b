"""A denoiser that several devices split by its tokens, executed as they would: each its part, in its own thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wanc.compiler.check.built import Together
from wanc.compiler.check.steps import Lowering, Workshop, Written, lowered
from wanc.compiler.check.trials import Arrays, SourceRefuses
from wanc.compiler.engines.split import split, tokens_of_a_rank
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ProgramGraph
from wanc.runtime.denoise import GRAPH
from wanc.runtime.engine_file import OWN_TOKENS, RANK

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Ranked:
    """A component's `parts` with the step that ranks split; `own` is what the tokens of each are computed of."""

    parts: Together
    own: str

    @classmethod
    def of(
        cls, ranks: int, compiled: ComponentFiles, passes: Lowering, workshop: Workshop, allowed: Collection[str]
    ) -> Ranked:
        """A component as so many ranks are given it; arguments as those of `lowered`."""
        graphs = split(lowerable(compiled), ranks)
        own = graphs[GRAPH].computed[OWN_TOKENS]
        # Where one rank executes the component its weights lie in another file, which is needed as well.
        parts = lowered(graphs, compiled, passes, workshop, allowed, "ranks.bin")
        return cls(Together({**parts, GRAPH: RankedStep(parts[GRAPH], ranks)}), own)

    def takes(self, sizes: Mapping[str, int]) -> bool:
        """Whether all ranks have as many tokens, as in every video of the recipe."""
        return tokens_of_a_rank(self.own, sizes) is not None

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """What the step gives. Raises SourceRefuses."""
        return self.parts.run(GRAPH, inputs)


@dataclass(frozen=True)
class RankedStep:
    """A step as each of so many ranks is given it."""

    written: Written
    ranks: int

    @property
    def graph(self) -> ProgramGraph:
        return self.written.graph

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """What all ranks give. Raises SourceRefuses where it does not run, or they do not agree."""
        from wanc.compiler.host.ranks import run_ranks

        workshop, given = self.written.workshop, [{**inputs, RANK: np.array([rank])} for rank in range(self.ranks)]
        try:
            first, *others = run_ranks(workshop.copied(self.written.model), workshop.folder, given)
        except Exception as error:  # onnx's reference implementation raises what it likes
            raise SourceRefuses(str(error)) from error
        if any(not np.array_equal(array, other[name]) for other in others for name, array in first.items()):
            raise SourceRefuses("its ranks give different results")
        return first

    def close(self) -> None:
        """Nothing is open behind a run."""
