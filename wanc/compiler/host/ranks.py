"""Executing a graph that several ranks share: a thread for each of them, which meet at every collective.

A collective is a node DistCollective, which works along dimension 0. What each rank has brought is put together by
every rank for itself, in the order of the ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference.op_run import OpRun

from wanc.compiler.graphs.collectives import COLLECTIVE, RANKS_DOMAIN
from wanc.compiler.host.lowered import HostGraph
from wanc.compiler.host.operators import NARROW

Array = np.ndarray[Any, Any]


def run_ranks(model: ir.Model | Path, folder: Path, inputs: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Each rank's outputs for its `inputs`, all of one graph; see `HostGraph` for `model` and `folder`.

    Where a rank raises, the others are let go, and the first cause is raised. Raises ValueError where the graph is for
    another number of ranks.
    """
    group = _Group(len(inputs))
    graphs = [HostGraph(model, folder, group.operator(rank)) for rank in range(len(inputs))]
    with ThreadPoolExecutor(len(inputs)) as threads:
        waiting = [threads.submit(group.guarded, graph.run, given) for graph, given in zip(graphs, inputs, strict=True)]
    if group.cause is not None:
        raise group.cause
    return [entry.result() for entry in waiting]


class _Group:
    """The ranks, and what each of them has brought to the collective at which they are."""

    def __init__(self, ranks: int) -> None:
        self.cause: BaseException | None = None
        self._brought: list[Array | None] = [None] * ranks
        self._barrier = Barrier(ranks)

    def guarded(self, run: Callable[..., dict[str, Array]], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Execute a rank's graph; if that raises, no other one waits for it."""
        try:
            return run(inputs)
        except BrokenBarrierError:
            raise
        except BaseException as error:
            self.cause = self.cause or error
            self._barrier.abort()
            raise

    def exchange(self, rank: int, array: Array) -> list[Array]:
        """What all ranks bring, in their order."""
        self._brought[rank] = array
        self._barrier.wait()
        brought = [entry for entry in self._brought if entry is not None]
        self._barrier.wait()  # nobody brings the next before all have taken
        return brought

    def operator(self, rank: int) -> type[OpRun]:
        """The operator that executes collectives for one rank."""

        def _run(_: OpRun, array: Array, **attributes: Any) -> tuple[Array]:
            operation, ranks = attributes["collective_operation"], attributes["nb_rank"]
            if ranks != len(self._brought):
                raise ValueError(f"{operation} of {ranks} ranks is executed by {len(self._brought)}")
            if operation in ("all_to_all", "reduce_scatter") and len(array) % ranks:
                raise ValueError(f"{operation}: {len(array)} along dimension 0 is not divisible by {ranks} ranks")
            if attributes["reduce_op"] != REDUCED.get(operation, "none") or attributes["root"] != -1:
                raise ValueError(f"{operation} with {attributes['reduce_op']} and root {attributes['root']}")
            return (_received(operation, self.exchange(rank, array), rank),)

        return type(COLLECTIVE, (OpRun,), {"op_domain": RANKS_DOMAIN, "_run": _run})


REDUCED = {"all_reduce": "sum", "reduce_scatter": "sum"}


def _received(operation: str, brought: list[Array], rank: int) -> Array:
    """What a rank has behind a collective, of what all ranks had before it."""
    match operation:
        case "all_to_all":
            return np.concatenate([np.split(array, len(brought))[rank] for array in brought])
        case "all_gather":
            return np.concatenate(brought)
        case "all_reduce":
            return _sum(brought)
        case "reduce_scatter":
            return np.split(_sum(brought), len(brought))[rank]
        case _:
            raise ValueError(f"there is no collective {operation}")


def _sum(arrays: list[Array]) -> Array:
    """In float32 at least, in the order of the ranks, and rounded once."""
    dtype = arrays[0].dtype
    return np.sum(arrays, axis=0, dtype=np.float32 if dtype in NARROW else dtype).astype(dtype)
