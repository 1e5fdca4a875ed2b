"""The detectors that a model's card may name. They are wanc's own: no code of a checkpoint is executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanc.report.detectors import moving_shapes


@dataclass(frozen=True)
class Detector:
    """Says of a prompt and of uint8 frames [frames, height, width, 3] which share of what the prompt names they show,
    from 0 to 1; None where it names nothing that this detector knows.
    """

    name: str
    agreement: Callable[[str, NDArray[np.uint8]], float | None]


DETECTORS: Mapping[str, Detector] = {
    detector.name: detector for detector in (Detector("moving-shapes", moving_shapes.agreement),)
}
