"""How pictures are decoded: whole where they fit, else in the tiles with the least work that do, else refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from wanc.compiler.planner.decoding import OVERLAP, Decoder, Decoding
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.recipe_cluster import cluster_of
from wanc.compiler.planner.recipe_costs import decoder
from wanc.compiler.planner.recipe_plan import SurveyedModel, plan_recipe
from wanc.compiler.within_budget import within_budget
from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.tiling import Layout, Tiling
from wanc.runtime.video_facts import tile_fault

from ...conftest import Wanc
from .counted import A14B, PROJECT, sparse

RECIPES = PROJECT / "recipes"
MIB, GIB = 2**20, 2**30
MEASURED = {128: 1433, 192: 2323, 256: 3515}
"""Peak MiB of ONNX Runtime for the VAE of Wan 2.1, two latent frames, by the side of a square tile in pixels."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse(A14B, tmp_path_factory.mktemp("checkpoints"))


def traced(*_: object) -> Any:
    raise AssertionError("a survey of this model should ship")


def model_of(root: Path, *overrides: str) -> tuple[SurveyedModel, Device]:
    (loaded,) = load(RECIPES / f"{A14B}.yaml", [f"model.source={root}", "engine.kind=onnxruntime", *overrides])
    return SurveyedModel.of(loaded, traced), cluster_of(loaded).pools[0].device


def shape_of(model: SurveyedModel, name: str) -> ShapeSection:
    (found,) = [entry for entry in model.recipe.shapes or () if entry.name == name]
    return found


@cache
def decoder_of(root: Path, shape: str) -> Decoder:
    model, device = model_of(root)
    return decoder(model.recipe, model.checkpoint, model.surveys["vae_decoder"], shape_of(model, shape), device)


def decoding(root: Path, shape: str, budget: int | None, *overrides: str) -> Decoding:
    model, device = model_of(root, *overrides)
    return model.decoding(shape_of(model, shape), device, budget)


def named(high: int, wide: int) -> str:
    return f"runtime.decode.tile={{height: {high}, width: {wide}}}"


@pytest.mark.parametrize("side", MEASURED)
def test_what_tiles_take_is_what_was_measured(root: Path, side: int) -> None:
    tiled = decoding(root, "720p", None, named(side, side)).tiled
    assert tiled is not None and tiled.bytes / MIB == pytest.approx(MEASURED[side], rel=0.03)


@pytest.mark.parametrize(("side", "mib"), [(128, 2488), (192, 4285)])
def test_what_whole_pictures_take_is_what_was_measured(root: Path, side: int, mib: int) -> None:
    whole = replace(decoder_of(root, "720p"), height=side, width=side).whole()
    assert whole.bytes / MIB == pytest.approx(mib, rel=0.1)


def test_caches_are_what_they_are_known_to_be(root: Path) -> None:
    """8.72 GB at 720p in float32, and as much again while the next ones are written."""
    caches = sum(part.kept for part in decoder_of(root, "720p").costs_at(720, 1280).parts)
    assert caches == pytest.approx(2 * 8.72e9, rel=0.02)


def test_without_a_budget_both_ways_are_told_and_pictures_are_whole(root: Path) -> None:
    found = decoding(root, "720p", None)
    assert found.tiling is None and not found.is_tiled
    assert found.tiled is not None and found.tiled.tiling == Tiling((256, 256), (192, 192)), "those of diffusers"
    assert found.tiled.bytes < found.whole.bytes / 10
    assert found.tiled.seconds / found.whole.seconds == pytest.approx(found.tiled.work, rel=0.02)
    # Sums of the tiles' sides by the picture's: attention alone is less work in tiles.
    assert found.tiled.work == pytest.approx(114 * 208 / (90 * 160), rel=0.02)


def test_whole_pictures_are_decoded_where_they_just_fit(root: Path) -> None:
    needed = decoding(root, "480p", 2**50).whole.bytes
    assert decoding(root, "480p", needed).tiling is None
    assert decoding(root, "480p", needed - 1).tiling is not None


SLOW_BUDGETS = [pytest.param(gib * GIB, marks=pytest.mark.slow) for gib in (1, 4, 16, 32)]
"""Less than whole pictures take: where these fit, tiles are only shown beside them."""


@pytest.mark.parametrize("budget", [2 * GIB, 6 * GIB, *SLOW_BUDGETS])
def test_no_tiles_that_fit_are_less_work(root: Path, budget: int) -> None:
    """Against all tiles that there can be of the same overlap, one by one."""
    way = decoding(root, "720p", budget)
    chosen = way.tiled
    assert way.is_tiled and chosen is not None and chosen.tiling is not None and chosen.bytes <= budget
    (height, width), (down, across) = chosen.tiling.tile, chosen.tiling.stride
    overlaps = {tile - stride for tile, stride in ((height, down), (width, across))} - {0}
    assert len(overlaps) == 1 and (overlaps == {OVERLAP}) is (budget >= 4 * GIB)
    (overlap,) = overlaps
    counted = decoder_of(root, "720p")
    for tall, wide in [(high, wide) for high in range(32, 721, 56) for wide in range(32, 1281, 96)]:
        strides = (tall - overlap if tall < 720 else tall, wide - overlap if wide < 1280 else wide)
        sides = ((720, tall, strides[0]), (1280, wide, strides[1]))
        if (tall, wide) == (720, 1280) or any(tile_fault(*side, 8) for side in sides):
            continue
        other = counted.tiled(Tiling((tall, wide), strides))
        assert other.bytes > budget or other.work >= chosen.work - 1e-9, (tall, wide)


def test_less_memory_is_never_less_work_of_the_same_overlap(root: Path) -> None:
    ways = [decoding(root, "720p", budget * GIB).tiled for budget in (32, 16, 8, 6, 4)]
    work = [way.work for way in ways if way is not None]
    assert work == sorted(work) and len(set(work)) == 5
    for way in ways:
        assert way is not None and way.tiling is not None
        layout = Layout(way.tiling, 720, 1280, 81)
        assert way.disk_bytes == layout.bytes <= 4 * 3 * 81 * 720 * 1280


def test_one_byte_too_few_is_refused_and_the_least_budget_named(root: Path) -> None:
    with pytest.raises(RecipeError, match=r"decoding 720p in tiles of 32 x 32 pixels takes [0-9,]+ bytes") as caught:
        decoding(root, "720p", 256 * MIB)
    assert caught.value.hint is not None and caught.value.hint.startswith("set runtime.budgets.device to at least")
    least = int(caught.value.hint.removesuffix("MiB").rpartition(" ")[2]) * MIB
    assert decoding(root, "720p", least).is_tiled
    with pytest.raises(RecipeError) as again:
        decoding(root, "720p", least - MIB)
    needed = int(again.value.message.split(" takes ")[1].split(" bytes")[0].replace(",", ""))
    assert f" {needed - (least - MIB):,} more than there are" in again.value.message
    assert decoding(root, "720p", needed).is_tiled
    with pytest.raises(RecipeError, match="1 more than there are"):
        decoding(root, "720p", needed - 1)


def test_what_a_recipe_says_is_done_or_refused(root: Path) -> None:
    whole = decoding(root, "480p", 2**50).whole.bytes
    with pytest.raises(RecipeError, match="decoding 480p whole takes"):
        decoding(root, "480p", whole - 1, "runtime.decode.tile=off")
    own = decoding(root, "480p", 64 * GIB, named(160, 832))
    assert own.tiling == Tiling((160, 832), (120, 832)), "a side that one tile covers is not cut"
    assert own.tiled is not None
    with pytest.raises(RecipeError, match="in tiles of 832 x 160 pixels"):
        decoding(root, "480p", own.tiled.bytes - 1, named(160, 832))
    assert decoding(root, "480p", None, named(480, 832)).tiling is None


def test_programs_and_people_are_told_both_ways(root: Path, wanc: Wanc) -> None:
    (loaded,) = load(RECIPES / f"{A14B}.yaml", [f"model.source={root}", "engine.kind=onnxruntime"])
    for size in plan_recipe(loaded, traced).as_json()["shapes"].values():
        whole, tiled = size["decode"]["whole"], size["decode"]["tiled"]
        assert whole.keys() == tiled.keys() == {"tiling", "bytes", "values", "disk_bytes", "seconds", "work"}
        assert whole["tiling"] is None and tiled["tiling"] == {"tile": (256, 256), "stride": (192, 192)}
        assert size["decode"]["is_tiled"] is False
    finished = wanc("plan", RECIPES / f"{A14B}.yaml", "--set", f"model.source={root}", "--set", named(256, 256))
    assert finished.code == 0, finished.err
    rows = [" ".join(line.split()) for line in finished.out.splitlines()]
    assert any(row.startswith("in whole pictures 8") and "as it is done" not in row for row in rows)
    assert any(row.startswith("in tiles 3.") and "× the work" in row and row.endswith("as it is done") for row in rows)


def test_nothing_is_surveyed_without_a_budget() -> None:
    (without,) = load(RECIPES / "tiny-wan.yaml")
    assert within_budget(without, traced) is None
    (loaded,) = load(RECIPES / "tiny-wan.yaml", ["runtime.budgets.device=1024GiB"])
    within = within_budget(loaded, traced)
    assert within is not None and within.tilings == {}
