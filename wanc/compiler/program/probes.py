"""Probes: rows of every quantised Linear's input, and what the float model makes of them.

They go from the quantize stage to the engine's, which puts them through what it has built; a bundle does not hold them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wanc.artifacts.canonical import canonical

Array = np.ndarray[Any, Any]


def probe_files(component: str) -> tuple[str, str]:
    """Beside the program: the values of a component's probes, and where in it each lies."""
    return f"probes/{component}.bin", f"probes/{component}.json"


class ProbeWriter:
    """Writes a component's probes below `out` one by one."""

    def __init__(self, out: Path, component: str) -> None:
        self._values, self._index = (out / name for name in probe_files(component))
        self._places: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> ProbeWriter:
        self._values.parent.mkdir(exist_ok=True)
        self._stream = self._values.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._index.write_bytes(canonical(self._places))

    def add(self, linear: str, what: str, values: Array) -> None:
        """Write one array of a Linear, float32."""
        place = {"offset": self._stream.tell(), "shape": list(values.shape)}
        self._places.setdefault(linear, {})[what] = place
        self._stream.write(np.ascontiguousarray(values, np.float32).tobytes())


@dataclass(frozen=True)
class Probe:
    """Rows of an input as the quantised Linear gets it, [rows, in], and what the float model gives there, [rows, out].

    The quantised Linear gives that divided by `divisors` [out], into which the next input's smoothing went.
    """

    inputs: Array
    outputs: Array
    divisors: Array


class Probes(Mapping[str, Probe]):
    """A component's probes by Linear, mapped into memory."""

    def __init__(self, files: Mapping[str, Path], component: str) -> None:
        self._values, index = (files[name] for name in probe_files(component))
        self._places: dict[str, dict[str, Any]] = json.loads(index.read_bytes())

    def __getitem__(self, linear: str) -> Probe:
        places = self._places[linear]
        inputs, outputs = (self._read(places[what]) for what in ("inputs", "outputs"))
        divisors = self._read(places["divisors"]) if "divisors" in places else np.ones(outputs.shape[1], np.float32)
        return Probe(inputs, outputs, divisors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _read(self, place: Mapping[str, Any]) -> Array:
        return np.memmap(self._values, np.float32, "r", place["offset"], tuple(place["shape"]))
