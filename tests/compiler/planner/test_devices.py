"""Devices, links and shares of clusters as data, and what a recipe may change of them."""

from __future__ import annotations

from typing import Any

import pytest

from wanc.compiler.planner.costs import Kernel, PartCosts
from wanc.compiler.planner.known_devices import DEVICES
from wanc.compiler.planner.links import REACHED, link_of
from wanc.compiler.planner.overrides import with_overrides
from wanc.compiler.planner.roofline import exchange_seconds, kernel_seconds, part_seconds
from wanc.errors import RecipeError

from .clusters import cluster, machines, pool

A100 = DEVICES["a100-80g"]


def test_every_kind_has_an_efficiency_with_its_source_for_every_format() -> None:
    assert set(DEVICES) == {"a100-80g", "h100", "h200", "b200", "l40s", "rtx4090", "rtx5090", "cpu"}
    for device in DEVICES.values():
        assert set(device.peaks) == set(device.efficiencies)
        for efficiency in device.efficiencies.values():
            assert 0 < efficiency.value <= 1
            assert efficiency.source.startswith(("fitted", "assumed"))


def test_a_format_without_units_is_refused() -> None:
    with pytest.raises(RecipeError, match="a100-80g does not multiply in fp8") as refused:
        kernel_seconds(Kernel("linear", "fp8", 1, 1), A100)
    assert "int8" in str(refused.value.hint)


def test_a_kernel_takes_as_long_as_its_products_or_its_bytes() -> None:
    products = Kernel("linear", "bf16", 10**15, 1)
    assert kernel_seconds(products, A100) == pytest.approx(1e15 / (312e12 * A100.efficiencies["bf16"].value))
    copies = Kernel("other", "fp32", 0, 10**12, 10**11, 2)
    assert kernel_seconds(copies, A100) == pytest.approx(2 * 1.1e12 / (0.8 * 2.039e12))
    assert kernel_seconds(copies, A100, 4) == pytest.approx(2 * (0.25e12 + 1e11) / (0.8 * 2.039e12))


def test_ranks_exchange_their_share_and_wait_for_four_messages() -> None:
    part = PartCosts("block", (Kernel("linear", "bf16", 10**14, 0),), 0, 0, 0, exchanged=16 * 10**9)
    link = link_of("nvlink", A100)
    assert exchange_seconds(part, 4, link) == pytest.approx(3e9 / (REACHED * 300e9) + 4 * link.latency)
    assert exchange_seconds(part, 1, link) == 0
    whole = PartCosts("whole", part.kernels, 0, 0, 0, is_split=False)
    assert part_seconds(whole, A100, 4, link) == part_seconds(whole, A100)


def test_links_are_those_that_a_device_has() -> None:
    assert link_of("pcie", A100).kind == "pcie-gen4"
    assert link_of("pcie", DEVICES["h100"]).kind == "pcie-gen5"
    with pytest.raises(RecipeError, match="rtx4090 has no NVLink"):
        link_of("nvlink", DEVICES["rtx4090"])
    with pytest.raises(RecipeError, match="'nvlnk' is no kind of link"):
        link_of("nvlnk", A100)


def test_a_recipe_changes_fields_and_adds_kinds() -> None:
    devices = with_overrides(
        {
            "a100-80g": {"memory": 40 * 2**30, "efficiencies": {"bf16": 0.5}},
            "h20": {"like": "h100", "peaks": {"bf16": 148e12, "fp8": None}, "bandwidth": 4e12},
        }
    )
    assert devices["a100-80g"].memory == 40 * 2**30
    assert devices["a100-80g"].efficiencies["bf16"].source == "recipe"
    assert devices["h20"].kind == "h20"
    assert devices["h20"].peaks["bf16"] == 148e12
    assert "fp8" not in devices["h20"].peaks
    assert devices["h20"].efficiencies["bf16"].source == "assumed from h100"
    assert DEVICES["a100-80g"].memory != 40 * 2**30


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("a100-80g", {"memry": 1}, "no field 'memry'"),
        ("a100-80g", {"memory": -1}, "memory of device 'a100-80g' is -1"),
        ("a100-80g", {"bandwidth": True}, "bandwidth"),
        ("a100-80g", {"peaks": {"fp7": 1}}, "'fp7' is no format"),
        ("a100-80g", {"efficiencies": {"fp8": 0.5}}, "'fp8' is no format that it multiplies in"),
        ("a100-80g", {"efficiencies": {"bf16": 1.5}}, "1.5"),
        ("a100-80g", {"pcie": "agp"}, "'agp'"),
        ("new", {"memory": 1}, "has no `like`"),
        ("new", {"like": "old"}, "'old'"),
    ],
)
def test_what_makes_no_sense_is_named(kind: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        with_overrides({kind: fields})
    assert refused.value.hint


def test_a_cluster_is_divided_into_equal_shares() -> None:
    ways = [[one.count for one in shares] for shares in cluster("a100-80g", 4).shares()]
    assert ways == [[4], [2, 2], [1, 1, 1, 1]]
    two = machines(pool("a100-80g", 2), pool("a100-80g", 2))
    firsts = [[tuple((one.first, one.count) for one in share.pools) for share in shares] for shares in two.shares()]
    # Whole machines are shared out before they are divided, but a share may also have half of each.
    assert firsts == [
        [((0, 2), (2, 2))],
        [((0, 1), (2, 1)), ((1, 1), (3, 1))],
        [((0, 2),), ((2, 2),)],
        [((0, 1),), ((1, 1),), ((2, 1),), ((3, 1),)],
    ]
    unequal = machines(pool("a100-80g", 2), pool("h100", 4))
    assert [len(shares) for shares in unequal.shares()] == [1, 2]
