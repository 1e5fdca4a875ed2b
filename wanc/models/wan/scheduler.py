"""What a checkpoint's scheduler says. The recipe's sampling takes its place, so it has to be of the same kind.

Which of the solvers it is, and with how many steps, is the recipe's own affair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from wanc.models.wan.configuration import Field, named, one_of, positive
from wanc.models.wan.doubts import Doubt, unread_keys, wrong_values
from wanc.models.wan.stored import read_json

SCHEDULER = "scheduler/scheduler_config.json"
DIFFUSION: Mapping[str, Field] = {
    "prediction_type": one_of("flow_prediction", default="epsilon"),
    "use_flow_sigmas": one_of(True, default=False),
    "num_train_timesteps": one_of(1000, default=1000),
    "flow_shift": positive(default=1.0),
}
"""Of a scheduler that was made for diffusion: unless it says so, it does not predict the flow."""
FIELDS: Mapping[str, Mapping[str, Field]] = {
    "UniPCMultistepScheduler": DIFFUSION,
    "DPMSolverMultistepScheduler": DIFFUSION,
    "FlowMatchEulerDiscreteScheduler": {
        "num_train_timesteps": one_of(1000, default=1000),
        "shift": positive(default=1.0),
    },
}
"""By class, those that the solvers of `runtime/solvers/` are equal to."""


class Scheduler(NamedTuple):
    """Its shift, None where it has none that is a number, and what it says that a recipe's sampling does not do."""

    shift: float | None = None
    doubts: tuple[Doubt, ...] = ()


def read_scheduler(root: Path, entry: object) -> Scheduler:
    """The scheduler of a checkpoint in the diffusers layout; `entry` is what its model_index.json says of it.

    A checkpoint without one says nothing. Raises CheckpointError where the file is no JSON object.
    """
    if not os.path.isfile(root / SCHEDULER):
        return Scheduler()
    document, where = read_json(root, SCHEDULER), str(root / SCHEDULER)
    # Where neither file names the scheduler, it is taken for the one that Wan's repositories have.
    classes = [named(name) for name in (document.get("_class_name"), _class_of(entry)) if name is not None]
    name = classes[0] if classes else "UniPCMultistepScheduler"
    if classes and classes[-1] != name:
        message = f"the scheduler's class is {name}, and {classes[-1]} in model_index.json"
        return Scheduler(doubts=(Doubt("scheduler", message, where),))
    if name not in FIELDS:
        message = f"the scheduler's class is {name}; a recipe samples as one of {', '.join(FIELDS)}"
        return Scheduler(doubts=(Doubt("scheduler", message, where),))
    fields = FIELDS[name]
    doubts = (*wrong_values(fields, document, where), *unread_keys(name, document, fields, where))
    return Scheduler(_shift(fields, document), doubts)


def _class_of(entry: object) -> Any:
    parts = cast("list[object]", entry) if isinstance(entry, list) else []
    return parts[1] if len(parts) == 2 else None


def _shift(fields: Mapping[str, Field], document: Mapping[str, Any]) -> float | None:
    (key,) = fields.keys() & {"flow_shift", "shift"}
    value = document.get(key)
    return float(value) if value is not None and fields[key].holds(value) else None
