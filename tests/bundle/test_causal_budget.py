"""A causal bundle within a budget of memory: the same video in any, what it keeps counted in, nobody beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wanc as package
from wanc.artifacts.store import Store
from wanc.compiler.planner import session_bytes as planned_bytes
from wanc.compiler.planner.recipe_plan import RecipePlan, plan_recipe
from wanc.compiler.stages.runner import Runner
from wanc.recipe.load import load
from wanc.runtime.crew import Quota
from wanc.runtime.errors import TargetError
from wanc.runtime.manifest import Manifest
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Result
from wanc.runtime.service import STAGES, Service

from .conftest import CAUSAL_WITHIN, RunPy
from .test_service import BLUE, RED

pytestmark = pytest.mark.slow
BUDGET = 160 * 2**20
ASKED: dict[str, Any] = {"seed": 7, "frames": 25}
"""So long that chunks are given up."""
SECONDS = 120
"""After which a test that waits has failed."""


def phases_of(bundle: Path) -> dict[str, dict[str, int]]:
    memory: Any = Manifest.read(bundle).runtime["memory"]
    assert memory["budgets"] == {"device": BUDGET}
    return memory["shapes"]["64p"]


def least_of(bundle: Path) -> int:
    return max(phase["least"] for phase in phases_of(bundle).values())


def opened(bundle: Path, budget: int | None = None) -> Pipeline:
    return package.open(bundle, threads=1, device_budget=None if budget is None else str(budget))


def assert_same(found: Result, wanted: Result) -> None:
    np.testing.assert_array_equal(found.latents, wanted.latents)
    np.testing.assert_array_equal(found.frames, wanted.frames)


@pytest.fixture(scope="module")
def wanted(causal_bundle: Path) -> dict[str, Result]:
    """Without a budget."""
    pipeline = package.open(causal_bundle, threads=1)
    return {prompt: pipeline.generate(prompt, **ASKED) for prompt in (RED, BLUE)}


def test_the_manifest_says_what_a_video_takes_of_engines_as_they_were_built(causal_within: Path) -> None:
    phases, engines = phases_of(causal_within), Manifest.read(causal_within).topology["engines"]
    assert phases.keys() == {"text", "video"}, "pictures are decoded while later chunks are made"
    own: list[Any] = [one for one in engines if one["component"] != "text_encoder"]  # type: ignore[union-attr]
    assert phases["video"]["weights"] == sum(one["memory"]["opened"] for one in own)
    assert phases["video"]["least"] - phases["video"]["values"] == max(one["memory"]["opening"] for one in own)
    assert all(phase["least"] <= phase["peak"] <= BUDGET for phase in phases.values())


@pytest.mark.parametrize("more", [None, 8 * 2**20, 0])
def test_the_video_is_the_same_within_any_budget(
    causal_within: Path, wanted: dict[str, Result], more: int | None
) -> None:
    budget = None if more is None else least_of(causal_within) + more
    pipeline = opened(causal_within, budget)
    assert_same(pipeline.generate(RED, **ASKED), wanted[RED])
    counters = pipeline.executor.residency.counters()
    assert counters["peak_bytes"] <= (budget or BUDGET)
    assert (counters["evictions"] > 0) is (budget is not None)
    arrays = pipeline.executor.pool.counts()
    assert arrays.most_out <= phases_of(causal_within)["video"]["values"], "what there was lay within what was planned"


def test_as_a_file_while_it_is_made(
    causal_within: Path, wanted: dict[str, Result], tmp_path: Path, run_py: RunPy
) -> None:
    given = ["--prompt", RED, "--seed", 7, "--frames", 25, "--threads", 1, "-o", tmp_path / "out.npz"]
    assert run_py(causal_within, *given, "--device-budget", least_of(causal_within)).code == 0
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["frames"], wanted[RED].frames)


def test_one_byte_under_the_least_budget_is_refused(causal_within: Path) -> None:
    least = least_of(causal_within)
    with pytest.raises(TargetError, match=f"takes {least:,}: 1 are missing"):
        opened(causal_within, least - 1)


def test_a_prompt_that_changes_on_the_way_has_room_for_its_encoder(causal_within: Path, causal_bundle: Path) -> None:
    changed: dict[str, Any] = {**ASKED, "changes": {3: BLUE}}
    without = package.open(causal_bundle, threads=1).generate(RED, **changed)
    video, text = (phases_of(causal_within)[phase] for phase in ("video", "text"))
    whole = video["values"] + text["values"] + max(entry["least"] - entry["values"] for entry in (video, text))
    pipeline = opened(causal_within, whole - 1 if whole - 1 >= least_of(causal_within) else None)
    if pipeline.executor.residency.budget == whole - 1:
        with pytest.raises(TargetError, match="1 are missing"):
            pipeline.generate(RED, **changed)
        assert pipeline.executor.counters() == {}
    pipeline = opened(causal_within, whole)
    assert_same(pipeline.generate(RED, **changed), without)
    assert pipeline.executor.residency.counters()["peak_bytes"] <= whole


@pytest.mark.parametrize("side_by_side", [True, False])
def test_two_where_one_has_room(causal_within: Path, wanted: dict[str, Result], side_by_side: bool) -> None:
    budget = least_of(causal_within)
    pipeline = opened(causal_within, budget)
    with Service(pipeline, quotas={name: Quota(workers=2) for name in STAGES}, side_by_side=side_by_side) as service:
        tickets = [service.submit(prompt, **ASKED) for prompt in (RED, BLUE, RED)]
        for ticket, prompt in zip(tickets, (RED, BLUE, RED), strict=True):
            assert_same(ticket.result(SECONDS), wanted[prompt])
    assert pipeline.executor.residency.counters()["peak_bytes"] <= budget


# What a plan says


@pytest.fixture(scope="module")
def plan(causal_within: Path, causal_recipe: Path) -> RecipePlan:
    return planned(causal_within, causal_recipe)


def planned(bundle: Path, recipe: Path) -> RecipePlan:
    """Its survey is in the store since it was built."""
    (loaded,) = load(recipe, ["name=causal-within", *CAUSAL_WITHIN])
    store = Store.open(bundle.parents[1] / "store")
    with store.session():
        return plan_recipe(loaded, Runner(store, progress=False).run)


def kept_by_a_run(bundle: Path) -> int:
    pipeline = opened(bundle)
    return sum(pipeline._causal.session_bytes(pipeline.bundle.shapes[0]).values())


def test_a_plan_counts_to_the_byte_what_a_run_reserves(causal_within: Path, plan: RecipePlan) -> None:
    (entry,) = plan.shapes
    assert entry.sessions is not None and entry.resident is not None
    assert list(entry.sessions.bytes_per_session.values()) == [kept_by_a_run(causal_within)]
    planned_values, text = (entry.resident.phases[phase].values for phase in ("video", "text"))
    assert phases_of(causal_within)["video"]["values"] == planned_values > kept_by_a_run(causal_within)
    assert phases_of(causal_within)["text"]["values"] == text


def test_a_plan_of_one_slot_too_few_is_seen(
    causal_within: Path, causal_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted fault."""
    seen = planned_bytes.seen_tokens
    monkeypatch.setattr(
        planned_bytes, "seen_tokens", lambda cache, *rest: seen(cache.model_copy(update={"window": 1}), *rest)
    )
    sessions = planned(causal_within, causal_recipe).largest.sessions
    assert sessions is not None
    assert sum(sessions.bytes_per_session.values()) < kept_by_a_run(causal_within)
