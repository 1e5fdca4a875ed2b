"""Executing the segments of a graph on their devices, for several inputs at once: micro-batches of a pipeline.

Each guidance branch of each request is a micro-batch of its own. While one is in the second segment, another is in the
first; so all devices work, and none waits for another one. Whoever wants a step drives its micro-batches from segment
to segment itself: a worker only ever executes what lies before it. So there is no order of work in which they could
stop each other, and values go to the next device while the one that made them is at the next micro-batch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty as NothingThere
from queue import SimpleQueue

import numpy as np

from ..checkpoint import checkpoint
from ..engine_file import RANK
from ..errors import TargetError
from ..pool import Empty
from ..segments import Segments
from ..value import Value
from .exchange import check_shared, exchanged
from .execution import Execution
from .worker import ROOM, DeviceWorker

CHECK_SECONDS = 0.1
"""How often it is looked whether the work is still wanted, and whether a worker hangs."""
HANGS = "run it again; where it takes so long to open or execute a segment, allow more: --worker-timeout SECONDS"


@dataclass
class _MicroBatch:
    """What each rank has of its values, behind so many `done` segments; `results` are those of the present one."""

    ranks: list[dict[str, Value]]
    done: int = 0
    results: dict[int, dict[str, Value]] = field(default_factory=dict[int, dict[str, Value]])


def run_micro_batches(
    segments: Segments,
    inputs: Sequence[Mapping[str, Value]],
    workers: Mapping[str, DeviceWorker],
    seconds: float,
    empty: Empty = np.empty,
) -> list[dict[str, Value]]:
    """The graph's outputs for each of `inputs`, in their order. What ranks exchange lies in arrays of `empty`'s.

    Raises InputError, before anything is executed, where ranks cannot have equal parts of what there is; TargetError,
    naming the segment and the rank, where a device gives nothing within `seconds` for one segment; what executions
    raise; and what `checkpoint` raises, where nobody wants the results any more. Nothing is waited for behind that.
    """
    for given in inputs:
        check_shared(segments.shared, len(segments.files[0].ranks) or 1, given)
    return _Pipelined(segments, inputs, workers, seconds, empty).run()


class _Pipelined:
    """Micro-batches on their way through the segments of one graph."""

    def __init__(
        self,
        segments: Segments,
        inputs: Sequence[Mapping[str, Value]],
        workers: Mapping[str, DeviceWorker],
        seconds: float,
        empty: Empty,
    ) -> None:
        self._segments, self._workers, self._seconds, self._empty = segments, workers, seconds, empty
        count = len(segments.files[0].ranks) or 1
        ranks = [Value(np.array([rank], np.int64)) for rank in range(count)]
        self._batches = [_MicroBatch([{**given, RANK: rank} for rank in ranks]) for given in inputs]
        self._open: dict[Execution, _MicroBatch] = {}
        self._ended: SimpleQueue[Execution] = SimpleQueue()
        self._looked = time.monotonic()

    def run(self) -> list[dict[str, Value]]:
        try:
            for batch in self._batches:
                self._begin(batch)
            while self._open:
                self._go_on()
        except BaseException as error:
            for execution in list(self._open):
                execution.fail(error)  # a worker that comes to it does not begin it
            raise
        return [{name: batch.ranks[0][name] for name in self._segments.outputs} for batch in self._batches]

    def _begin(self, batch: _MicroBatch) -> None:
        """Give the next segment of a micro-batch to its workers, all ranks at once."""
        file = self._segments.files[batch.done]
        exchanged(file, batch.ranks, self._empty)
        for rank, values in enumerate(batch.ranks):
            execution = Execution(file, {name: values[name] for name in file.inputs}, self._ended.put, rank=rank)
            self._open[execution] = batch
            self._offer(execution)

    def _offer(self, execution: Execution) -> None:
        began, worker = time.monotonic(), self._workers[execution.device]
        while not worker.offer(execution, CHECK_SECONDS):
            self._look()
            if time.monotonic() - began > self._seconds:
                raise TargetError(
                    f"{worker.device} has not taken {execution} within {self._seconds:g} s: "
                    f"its queue is full, {ROOM} executions wait in it",
                    hint="make fewer videos at once, or allow more: --worker-timeout SECONDS",
                )

    def _go_on(self) -> None:
        """Wait for something to end, and go on from there."""
        try:
            execution = self._ended.get(timeout=CHECK_SECONDS)
        except NothingThere:
            self._look()
            return
        if time.monotonic() - self._looked > CHECK_SECONDS:
            self._look()
        batch = self._open.pop(execution)
        batch.results[execution.rank] = execution.result()
        if len(batch.results) == len(batch.ranks):
            self._advance(batch)

    def _advance(self, batch: _MicroBatch) -> None:
        """All ranks of a segment have ended: what no later one takes is let go, and the next one begins."""
        for rank, values in enumerate(batch.ranks):
            values |= batch.results.pop(rank)
            for name in self._segments.dropped[batch.done]:
                del values[name]
        batch.done += 1
        if batch.done < len(self._segments.files):
            self._begin(batch)

    def _look(self) -> None:
        """Raises where the work is to end, and where one of its executions takes too long."""
        self._looked = now = time.monotonic()
        checkpoint()
        for execution in self._open:
            if execution.started is not None and now - execution.started > self._seconds:
                error = TargetError(
                    f"{execution.device} has not given {execution} within {self._seconds:g} s", hint=HANGS
                )
                self._workers[execution.device].abandon(error)
                raise error
