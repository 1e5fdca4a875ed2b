"""What a run's trace says of the devices, in the form in which the simulator says it: a plan beside what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanc.compiler.planner.simulate import Event, SimulatedRun
from wanc.errors import UserError
from wanc.runtime.model import DECODER, HIGH, LOW, TEXT_ENCODER
from wanc.runtime.strict_json import Fields, parse_object

MOST_BYTES = 256 * 2**20
PHASE_OF: Mapping[str, str] = {TEXT_ENCODER: "encode", HIGH: "denoise_high", LOW: "denoise_low", DECODER: "decode"}
EXECUTE, SEND = "execute", "send"
"""The spans of a trace in which a device computes, and in which it waits for its values to be copied."""
SECONDS = 1e-6


@dataclass(frozen=True)
class Shares:
    """Of the time of all devices, from the first execution to the last: in which they wait, and in which they send."""

    waiting: float
    sending: float


@dataclass(frozen=True)
class TracedRun:
    """`run` is what a trace has of these devices, by their numbers; `sent` the seconds in which values were copied."""

    run: SimulatedRun
    sent: float

    @classmethod
    def read(cls, path: Path, devices: Sequence[str]) -> TracedRun:
        """What `wanc run --trace` wrote of a bundle on these devices.

        Raises BundleError for a file that is none, and UserError where one of the devices has executed nothing: then it
        is of another placement.
        """
        entries = parse_object(_content(path), where=str(path), max_bytes=MOST_BYTES).objects("traceEvents")
        tracks = _tracks(entries, devices)
        executed = [entry for entry in entries if _category(entry) == EXECUTE and _track(entry) in tracks]
        if absent := set(devices) - {tracks[_track(entry)] for entry in executed}:
            raise UserError(
                f"nothing in it was executed by {min(absent)}",
                where=str(path),
                hint="give the trace of a run of a bundle that was built from this recipe",
            )
        began = min(entry.number("ts") for entry in executed)
        requests: dict[str, int] = {}
        events = [_event(entry, began, devices.index(tracks[_track(entry)]), requests) for entry in executed]
        finished = tuple(max(event.end for event in events if event.request == number) for number in requests.values())
        sent = sum(entry.number("dur") for entry in entries if _category(entry) == SEND)
        ordered = sorted(events, key=lambda event: event.start)
        return cls(SimulatedRun(tuple(ordered), finished), sent * SECONDS)

    def shares(self, devices: int) -> Shares:
        """Of so many devices."""
        return shares(self.run, range(devices), self.sent)


def shares(run: SimulatedRun, devices: Sequence[int], sent: float) -> Shares:
    """Of a run in which values are `sent` for so many seconds in all."""
    began, ended = min(event.start for event in run.events), max(event.end for event in run.events)
    available = len(devices) * (ended - began)
    worked = sum(run.busy(device, began, ended) for device in devices)
    return Shares(max(0.0, 1 - worked / available), sent / available)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError("cannot be read", where=str(path), hint="name a file that wanc run --trace wrote") from error


def _tracks(entries: Sequence[Fields], devices: Sequence[str]) -> dict[tuple[int, int], str]:
    """The devices by the process and thread of their tracks, which are named after them."""
    found: dict[tuple[int, int], str] = {}
    for entry in entries:
        if entry.values.get("name") == "thread_name" and (name := entry.object("args").text("name")) in devices:
            found[_track(entry)] = name
    return found


def _track(entry: Fields) -> tuple[int, int]:
    return entry.integer("pid"), entry.integer("tid")


def _category(entry: Fields) -> object:
    return entry.values.get("cat") if entry.values.get("ph") == "X" else None


def _event(entry: Fields, began: float, device: int, requests: dict[str, int]) -> Event:
    """An execution. Requests get numbers in the order in which they are first worked on."""
    asked = entry.object("args")
    name = asked.values.get("request")
    request = requests.setdefault(str(name), len(requests))
    start = (entry.number("ts") - began) * SECONDS
    component = asked.text("component")
    if component not in PHASE_OF:
        asked.refuse("component", f"is {ascii(component)[:80]}, no component of a video model")
    return Event((device,), PHASE_OF[component], request, 0, 0, start, start + entry.number("dur") * SECONDS)
