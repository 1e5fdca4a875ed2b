"""How much attention a cache saves is counted as a real run of a causal bundle has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.causal import BIG, attention_work
from wanc.runtime.kvcache import BIAS
from wanc.runtime.parts import Parts
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.timer import Timer

TOKENS, FRAMES, SEEN, STEPS = 16, 7, 3, 2
"""Of a latent frame of 64 x 64 pixels; the bundle's ring has room for three chunks of one."""


def test_work_is_counted_as_a_run_has_it(causal_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, counted = Pipeline.open(causal_bundle), dict[float, int]()
    run = Parts.run_branches

    def noting(self: Parts, graph: str, given: Mapping[str, Mapping[str, Any]]) -> Any:
        arrays = given["conditional"]
        seen = TOKENS + int(np.isfinite(arrays[BIAS]).sum())
        timestep = float(arrays["timestep"][0])
        if timestep or self.component == "denoiser_high":  # the clean pass of a second expert is its own
            counted[timestep] = counted.get(timestep, 0) + TOKENS * seen
        return run(self, graph, given)

    monkeypatch.setattr(Parts, "run_branches", noting)
    request = Request("A red circle moves to the left.", steps=STEPS, frames=4 * FRAMES - 3)
    for _ in pipeline.chunks(request, pipeline.encode(request, Timer()), Timer()):
        pass
    behind_the_last = TOKENS * (SEEN + 1) * TOKENS  # a clean pass that nobody needs
    wanted = attention_work(tokens=TOKENS, frames=FRAMES, chunk=1, window=SEEN, steps=STEPS)["cached"]
    assert sum(counted.values()) == wanted - behind_the_last


def test_at_720p_and_30_seconds_more_than_nine_tenths_are_saved() -> None:
    assert attention_work(**BIG)["saved"] > 0.9
