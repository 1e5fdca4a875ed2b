"""Trials that were made while a model was at hand, kept beside its program: a torch module is made once in a build."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wanc.compiler.check.trials import Refused, Trial
from wanc.compiler.stages.stage import Files
from wanc.runtime import safetensors
from wanc.runtime.golden import named, tensor_name
from wanc.runtime.safetensors import SafetensorsFile

if TYPE_CHECKING:
    from wanc.compiler.check.trials import Arrays

TRIALS, ARRAYS = "untouched.json", "untouched.safetensors"
PARTS = ("inputs", "outputs", "moved")


def write_trials(trials: list[tuple[Trial, Arrays] | Refused], against: str, out: Path) -> None:
    """Keep trials, each with the outputs of the moved model, in the folder of a program."""
    told: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, entry in enumerate(trials):
        trial = entry if isinstance(entry, Refused) else entry[0]
        told.append({"kind": trial.kind, "sizes": dict(trial.sizes), "refused": isinstance(entry, Refused)})
        if not isinstance(entry, Refused):
            parts = (entry[0].inputs, entry[0].outputs, entry[1])
            for part, values in zip(PARTS, parts, strict=True):
                arrays |= {tensor_name(str(number), part, name): array for name, array in values.items()}
    (out / TRIALS).write_text(json.dumps({"against": against, "trials": told}, sort_keys=True) + "\n")
    safetensors.write(out / ARRAYS, arrays)


class RecordedSource:
    """What `write_trials` wrote, as a source."""

    def __init__(self, exported: Files) -> None:
        self._told: Mapping[str, Any] = json.loads(exported[TRIALS].read_bytes())
        self._arrays = dict(SafetensorsFile(exported[ARRAYS]).items())
        self.against = str(self._told["against"])

    def trials(self, component: str, graph: str, asked: object) -> Iterator[Trial | Refused]:
        """As `Source.trials`: of the one graph that such a program has."""
        del component, graph, asked
        for number, told in enumerate(self._told["trials"]):
            if told["refused"]:
                yield Refused(told["kind"], told["sizes"])
            else:
                inputs, outputs, moved = (named(self._arrays, str(number), part) for part in PARTS)
                yield Trial(told["kind"], told["sizes"], inputs, outputs, lambda moved=moved: moved)
