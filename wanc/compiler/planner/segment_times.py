"""How long every segment of a row takes on a group of devices, and how long what crosses a cut takes."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.links import Link
from wanc.compiler.planner.roofline import part_seconds
from wanc.compiler.planner.row import Phase, Row

Seconds = NDArray[np.float64]


class SegmentTimes:
    """Seconds on `ranks` devices that split the tokens, and that exchange over `link`."""

    def __init__(self, row: Row, device: Device, ranks: int, link: Link) -> None:
        self._row = row
        self._host_link = device.host_link
        self._computing = [
            part_seconds(one.part, device, 1 if one.rank is not None else ranks, link) for one in row.parts
        ]
        self._streaming = [one.weights / device.host_link if one.streams else 0.0 for one in row.parts]

    def execution(self, start: int, stop: int, phase: Phase) -> float:
        """Of one execution of parts start … stop - 1 in a phase. Streamed weights arrive while others are used."""
        used = [index for index in range(start, stop) if any(use.phase == phase for use in self._row.parts[index].uses)]
        computing = sum(self._computing[index] for index in used)
        return max(computing, sum(self._streaming[index] for index in used))

    def load(self, start: int, stop: int) -> float:
        """Of putting one expert's weights in the place of the other's."""
        return sum(part.loads for part in self._row.parts[start:stop]) / self._host_link

    @cached_property
    def videos(self) -> Seconds:
        """Of all executions for one video: [start, stop], inf where stop is not behind start."""
        parts = list(zip(self._row.parts, self._computing, self._streaming, strict=True))
        plain = [part.executions * seconds + part.loads / self._host_link for part, seconds, _ in parts]
        streamed = [part.executions * seconds if part.streams else 0.0 for part, seconds, _ in parts]
        arriving = [part.executions * seconds for part, _, seconds in parts]
        stays = [seconds - compute for seconds, compute in zip(plain, streamed, strict=True)]
        total = _differences(stays) + np.maximum(_differences(streamed), _differences(arriving))
        return np.where(np.tri(len(total), dtype=bool), np.inf, total)


def transfer_seconds(row: Row, link: Link, ranks: int) -> Seconds:
    """Of what crosses each cut for one video; `ranks` are those of the smaller group, which send or receive at once."""
    seconds = [part.executions * link.seconds(part.part.leaves / ranks) for part in row.parts]
    return np.array([0.0, *seconds])


def _differences(values: list[float]) -> Seconds:
    """The sums of all ranges: [start, stop]."""
    sums = np.array(list(accumulate(values, initial=0.0)))
    return sums[None, :] - sums[:, None]
