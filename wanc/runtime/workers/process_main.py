"""What the process of a device does: it executes engine files for the process that has started it, and nothing else.

It ends with that one, however that ends: the kernel kills it, or it finds nobody at the other end.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from ..cores import keep_on
from ..engine_file import Key
from ..engine_runner import EngineRunner
from ..events import Span, recording
from ..openings import Openings
from ..strict_json import Fields, JsonObject, JsonValue
from ..value import Array, Value
from .plan import DevicePlan, digest_of_plan
from .remote_error import error_as_json
from .shared_memory import SharedBlock, place_of, shared_copy
from .wire import DONE, FAILED, HELLO, Wire, WireClosed, entry_of

SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def main() -> None:
    """`DEVICE CONNECTION PLAN`: the device's name, and the descriptors of a socket and of a plan."""
    # It is sent when the thread ends that has started this process: the one that talks to it.
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whether to go on is the other process's to say
    _, _, connection, plan = sys.argv
    with open(int(plan), "rb") as file:
        data = file.read()
    wire = Wire(socket.socket(fileno=int(connection)))
    try:
        _Server(wire, DevicePlan.read(data), digest_of_plan(data)).serve()
    except WireClosed:
        return


class _Server:
    """Executes what it is asked to, one file after the other."""

    def __init__(self, wire: Wire, plan: DevicePlan, digest: str) -> None:
        if plan.cores:
            keep_on(plan.cores)
        self._wire, self._plan, self._digest = wire, plan, digest
        self._seconds = 0.0
        self._runner = EngineRunner(
            plan.folder,
            plan.files,
            Openings(plan.threads, {}),
            self._note_seconds,
            thrifty=plan.thrifty,
            memory=SharedBlock.make,
        )
        self._empty = self._runner.residency.pool.empty
        self._lent: dict[int, Array] = {}
        """What the other side has, by block: until it says that it needs it no more, nothing else is put there."""

    def serve(self) -> None:
        """Raises WireClosed when there is nobody any more."""
        self._send({"kind": HELLO, "process": os.getpid()})
        while True:
            asked = self._wire.receive()
            try:
                self._answer(asked)
            except WireClosed:
                raise
            except Exception as error:
                self._send({"kind": FAILED, "error": error_as_json(error)})
            del asked  # and what it names is not held while another is waited for

    def _answer(self, asked: Fields) -> None:
        if asked.text("plan") != self._digest:
            asked.refuse("plan", "is another one")
        for number in asked.whole_numbers("returned", _length(asked, "returned")):
            self._lent.pop(number, None)
        unwanted = asked.whole_numbers("close", _length(asked, "close"))
        self._runner.residency.close([self._plan.files[index] for index in unwanted])
        file = self._plan.files[asked.integer("file", maximum=len(self._plan.files) - 1)]
        inputs = dict(self._wire.array(entry) for entry in asked.objects("inputs"))
        if sorted(inputs) != sorted(file.inputs):
            asked.refuse("inputs", f"are {', '.join(sorted(inputs))}, not {', '.join(sorted(file.inputs))}")
        values = {name: Value(array) for name, array in inputs.items()}
        with recording() if asked.boolean("trace") else nullcontext() as recorder:
            outputs = self._runner.run(file, values)
        spans = recorder.spans if recorder is not None else []
        self._give({name: outputs[name].numpy() for name in file.outputs}, inputs, spans)

    def _give(self, outputs: Mapping[str, Array], inputs: Mapping[str, Array], spans: Sequence[Span]) -> None:
        """Send outputs, each in a block of its own that is lent from now on, and what has taken which time."""
        taken = {place.block.number for array in inputs.values() if (place := place_of(array)) is not None}
        lent: dict[int, Array] = {}
        entries: list[JsonValue] = []
        blocks: list[SharedBlock] = []
        for name, array in outputs.items():
            place = place_of(array)
            is_own = place is not None and place.block.number not in taken | lent.keys() | self._lent.keys()
            given = array if is_own else shared_copy(array, self._empty)
            entry, block = entry_of(name, given)
            lent[block.number] = given
            entries.append(entry)
            blocks.append(block)
        self._lent |= lent
        told: list[JsonValue] = [{"phase": span.phase, "start": span.start, "end": span.end} for span in spans]
        self._send({"kind": DONE, "outputs": entries, "seconds": self._seconds, "spans": told}, blocks)

    def _note_seconds(self, _: Key, seconds: float) -> None:
        self._seconds = seconds

    def _send(self, message: JsonObject, blocks: Sequence[SharedBlock] = ()) -> None:
        self._wire.send({**message, "plan": self._digest}, blocks)


def _length(fields: Fields, name: str) -> int:
    entries = fields.values.get(name)
    return len(entries) if isinstance(entries, list) else 0
