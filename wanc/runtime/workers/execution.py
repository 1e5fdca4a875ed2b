"""One engine file that a device's worker is to execute, and how that ends: once, by whatever comes first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from threading import Lock
from typing import TypeAlias

from ..engine_file import EngineFile
from ..value import Value

Execute: TypeAlias = Callable[[EngineFile, Mapping[str, Value]], dict[str, Value]]
"""Executes an engine file: inputs and outputs by name. Raises UserError."""


class Execution:
    """`rank` is the place among those devices that execute the file together, 0 where one does it alone.

    `on_end` is called once it has ended, by the thread in which it does. What is executed works for the request of the
    thread that has made this: it ends when that one's work is to end.
    """

    def __init__(
        self, file: EngineFile, inputs: Mapping[str, Value], on_end: Callable[[Execution], object], *, rank: int = 0
    ) -> None:
        self.file, self.inputs, self.rank = file, inputs, rank
        self.started: float | None = None
        """When a worker has begun, in seconds of `time.monotonic`; None while it waits in a queue."""
        self._on_end, self._context, self._lock = on_end, copy_context(), Lock()
        self._outputs: dict[str, Value] | None = None
        self._error: BaseException | None = None

    @property
    def device(self) -> str:
        """The device that executes it."""
        return self.file.ranks[self.rank] if self.file.ranks else self.file.device

    @property
    def ended(self) -> bool:
        return self._outputs is not None or self._error is not None

    def run(self, execute: Execute) -> None:
        """Execute it in this thread, unless it has ended before it began."""
        if self.ended:
            return
        self.started = time.monotonic()
        try:
            outputs = self._context.run(execute, self.file, self.inputs)
        except BaseException as error:  # whoever waits for it is told
            self.fail(error)
        else:
            self.finish(outputs)

    def finish(self, outputs: dict[str, Value]) -> None:
        """It has given this."""
        self._end(outputs, None)

    def fail(self, error: BaseException) -> None:
        """It gives nothing."""
        self._end(None, error)

    def result(self) -> dict[str, Value]:
        """What it has given. Raises what it failed with."""
        if self._error is not None:
            raise self._error
        assert self._outputs is not None, "it has ended"
        return self._outputs

    def __str__(self) -> str:
        """`segment 1 of denoiser_high/step, rank 0 of 2`."""
        ranks = f", rank {self.rank} of {len(self.file.ranks)}," if self.file.ranks else ""
        return f"segment {self.file.segment} of {self.file.component}/{self.file.graph}{ranks}"

    def _end(self, outputs: dict[str, Value] | None, error: BaseException | None) -> None:
        with self._lock:
            if self.ended:
                return
            self._outputs, self._error = outputs, error
        # A worker that hangs keeps this for ever, and need not keep the values.
        self.inputs = {}
        self._on_end(self)
