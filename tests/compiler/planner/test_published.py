"""The cost model against the published times of Wan2.2-T2V-A14B: one number is fitted, all others follow."""

from __future__ import annotations

import pytest

from wanc.compiler.planner.cluster import Cluster, Pool
from wanc.compiler.planner.fit import fitted_efficiency, one_device_seconds
from wanc.compiler.planner.known_devices import DEVICES
from wanc.compiler.planner.links import link_of
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.plan import plan_video

from .counted import a14b

# Seconds on 1, 4 and 8 cards: Ulysses over all of them, branches one behind the other, text and frames on one card.
PUBLISHED = {
    ("a100-80g", "480p"): (785.7, 215.2, 119.9),
    ("a100-80g", "720p"): (2735.7, 725.3, 386.7),
    ("h100", "480p"): (326.9, 91.7, 51.5),
    ("h100", "720p"): (1041.5, 288.7, 155.1),
}


@pytest.mark.parametrize("kind", ["a100-80g", "h100"])
def test_the_efficiency_in_the_table_is_that_which_fits_one_card_at_480p(kind: str) -> None:
    seconds = PUBLISHED[kind, "480p"][0]
    fitted = fitted_efficiency(a14b("480p"), DEVICES[kind], seconds)
    assert fitted == pytest.approx(DEVICES[kind].efficiencies["bf16"].value, abs=1e-4)
    assert DEVICES[kind].efficiencies["bf16"].source.startswith("fitted")
    exact = DEVICES[kind].with_efficiencies({"bf16": fitted}, "fitted")
    assert one_device_seconds(a14b("480p"), exact) == pytest.approx(seconds)


@pytest.mark.parametrize(("kind", "size"), PUBLISHED)
@pytest.mark.parametrize(("cards", "tolerance"), [(1, 0.25), (4, 0.20), (8, 0.20)])
def test_other_sizes_and_numbers_of_cards_follow(kind: str, size: str, cards: int, tolerance: float) -> None:
    device = DEVICES[kind]
    cluster = Cluster.of([Pool(device, cards, link_of("nvlink", device))])
    options = PlanOptions("latency", ulysses=cards, branches="serial", experts="swap", compare=False)
    plan = plan_video(a14b(size), cluster, options)
    published = PUBLISHED[kind, size][(1, 4, 8).index(cards)]
    assert plan.video_seconds == pytest.approx(published, rel=tolerance)


def test_a_device_that_is_too_slow_whatever_it_reaches_is_fitted_to_all_of_its_peak() -> None:
    assert fitted_efficiency(a14b(), DEVICES["a100-80g"], 1.0) == pytest.approx(1.0)
