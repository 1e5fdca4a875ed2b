"""How much of what its prompt names a clip shows, as the detector sees it that the model's card names.

All other figures of a video are relative to the reference's; this one is relative to the prompt, so that the reference
has one as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wanc.report.detectors.registry import Detector
from wanc.report.document import Estimate
from wanc.report.reference import ReferenceClip, ReferenceRecord
from wanc.report.statistics import estimate

Array = np.ndarray[Any, Any]
PROMPT_AGREEMENT = "prompt_agreement"


def prompt_agreement(detector: Detector | None, clip: ReferenceClip, frames: Array) -> dict[str, float]:
    """The figure by its name; none where no detector looks, or the clip's prompt names nothing that it knows."""
    found = detector.agreement(clip.prompt, frames) if detector else None
    return {} if found is None else {PROMPT_AGREEMENT: found}


def kept_agreement(detector: Detector | None, clip: ReferenceClip, frames: Array) -> dict[str, float]:
    """How near the agreement of the reference's changed self is to its own, whatever that is: 1 where it is equal."""
    before, after = (prompt_agreement(detector, clip, shown) for shown in (clip.frames, frames))
    return {name: 1 - abs(value - before[name]) for name, value in after.items()}


def reference_agreement(detector: Detector | None, record: ReferenceRecord) -> Estimate | None:
    """Of the reference itself; None where no clip has a figure."""
    found = [value for clip in record.clips for value in prompt_agreement(detector, clip, clip.frames).values()]
    return estimate(found) if found else None
