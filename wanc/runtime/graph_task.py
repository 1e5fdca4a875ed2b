"""The task `graph`: a bundle of one graph, executed once on arrays from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arrays import read_arrays, write_arrays
from .bundle import Bundle
from .executor import Executor, flat
from .interface import COMPONENT, GRAPH, TASK
from .memory import peak_rss_bytes
from .progress import ProgressBar
from .timer import Timer


@dataclass(frozen=True)
class GraphReport:
    """What a run of a graph gave, and what it cost."""

    outputs: Path
    seconds: dict[str, float]
    peak_rss_bytes: int
    counters: dict[str, dict[str, int | float]]
    ok = True

    def as_json(self) -> dict[str, Any]:
        return {
            "outputs": str(self.outputs),
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "counters": flat(self.counters),
        }

    def as_text(self) -> str:
        phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return f"{self.outputs} ({phases}; peak memory {self.peak_rss_bytes / 2**20:.0f} MiB)"


def run_graph(root: Path, output: Path, *, inputs: Path, threads: int | None, progress: bool) -> GraphReport:
    """Execute the bundle's graph on the arrays of an .npz file and write its outputs into another. Raises UserError."""
    timer = Timer()
    with timer.phase("verify"), ProgressBar("verify", 0, enabled=progress) as bar:
        bundle = Bundle.open(root, progress=bar.move_to)
    bundle.expect_task(TASK)
    executor = Executor(bundle.root, bundle.engines, threads=bundle.threads if threads is None else threads)
    with timer.phase("read"):
        arrays = read_arrays(inputs, bundle.interface(COMPONENT, GRAPH))
    with timer.phase("open"):
        executor.open(COMPONENT, GRAPH)
    with timer.phase("run"):
        outputs = executor.run(COMPONENT, GRAPH, arrays)
    with timer.phase("write"):
        write_arrays(output, {name: value.numpy() for name, value in outputs.items()})
    return GraphReport(output, timer.seconds, peak_rss_bytes(), executor.counters())
