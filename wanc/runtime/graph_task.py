"""The task `graph`: a bundle of one graph, executed on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from .arrays import OUTPUTS, read_arrays, write_arrays
from .bundle import Bundle
from .bundle_executor import executor_of
from .cost import RunCost
from .directory import Root
from .interface import COMPONENT, GRAPH, TASK, InputError
from .options import RunLimits
from .progress import OnProgress, ignore
from .ranges import check_ranges
from .timer import Timer
from .value import Array
from .whole_file import require_writable


class GraphPipeline:
    """A bundle of one graph, ready to be executed. `interface` says what it takes and gives."""

    def __init__(self, bundle: Bundle, **limits: Unpack[RunLimits]) -> None:
        bundle.expect_task(TASK)
        self.bundle, self.interface = bundle, bundle.interface(COMPONENT, GRAPH)
        self.executor = executor_of(bundle, **limits)

    @classmethod
    def open(cls, root: Root, *, on_progress: OnProgress = ignore, **limits: Unpack[RunLimits]) -> GraphPipeline:
        """Verify a bundle and make it ready, as `Pipeline.open` does. Raises BundleError for one of another task."""
        return cls(Bundle.open(root, on_progress=on_progress), **limits)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Execute the graph once. Inputs and outputs by name.

        Raises InputError where dtypes, shapes or numbers are not those that it takes, TargetError where the engine
        fails.
        """
        self.interface.check({name: (array.dtype.name, array.shape) for name, array in inputs.items()})
        check_ranges(self.interface, inputs)
        return {name: value.numpy() for name, value in self.executor.run(COMPONENT, GRAPH, inputs).items()}


@dataclass(frozen=True)
class GraphReport:
    """What a run of a graph gave, and what it cost."""

    outputs: Path
    cost: RunCost
    ok = True

    def as_json(self) -> dict[str, Any]:
        return {"outputs": str(self.outputs), **self.cost.as_json()}

    def as_text(self) -> str:
        return f"{self.outputs} ({self.cost})"


def run_graph(
    root: Root, output: Path, *, inputs: Path, on_progress: OnProgress = ignore, **limits: Unpack[RunLimits]
) -> GraphReport:
    """Execute the bundle's graph on the arrays of an .npz file and write its outputs into another. Raises UserError."""
    require_writable(output, OUTPUTS)
    timer = Timer()
    with timer.phase("verify"):
        graph = GraphPipeline.open(root, on_progress=on_progress, **limits)
    with timer.phase("read"):
        arrays = read_arrays(inputs, graph.interface)
    with timer.phase("open"):
        graph.executor.open(COMPONENT, GRAPH)
    with timer.phase("run"):
        try:
            outputs = graph.run(arrays)
        except InputError as error:
            error.where = str(inputs)
            raise
    with timer.phase("write"):
        write_arrays(output, outputs)
    return GraphReport(output, RunCost.so_far(timer, graph.executor))
