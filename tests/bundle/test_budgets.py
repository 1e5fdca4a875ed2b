"""A bundle that was built within a budget of memory: the same video in any, and nothing begun that cannot end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.true_scale.encoder import measured
from wanc.compiler.why import why
from wanc.recipe.load import load
from wanc.runtime.api import open as open_bundle
from wanc.runtime.errors import TargetError, UserError
from wanc.runtime.events import recording
from wanc.runtime.execute import run, run_selftest
from wanc.runtime.manifest import Manifest
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request

from .conftest import WITHIN, RunPy, Variant
from .test_cut import PROMPT

BUDGET = 160 * 2**20


def memory_of(bundle: Path) -> dict[str, Any]:
    memory: Any = Manifest.read(bundle).runtime["memory"]
    return memory


def least_of(bundle: Path, shape: str) -> int:
    return max(phase["least"] for phase in memory_of(bundle)["shapes"][shape].values())


def opened(bundle: Path, budget: int | None = None) -> Pipeline:
    return open_bundle(bundle, threads=1, device_budget=None if budget is None else str(budget))


def test_the_manifest_says_what_each_phase_takes_of_engines_as_they_were_built(within: Variant) -> None:
    manifest = Manifest.read(within.root)
    engines: Any = manifest.topology["engines"]
    memory = memory_of(within.root)
    assert memory["budgets"] == {"device": BUDGET}
    decoder = [file["memory"] for file in engines if file["component"] == "vae_decoder"]
    for phases in memory["shapes"].values():
        assert phases["decode"]["weights"] == sum(one["opened"] for one in decoder)
        assert phases["decode"]["least"] - phases["decode"]["values"] == max(one["opening"] for one in decoder)
        assert all(phase["least"] <= phase["peak"] <= BUDGET for phase in phases.values())
    weights = sum(file.size for file in manifest.files if Path(file.path).name.startswith("weights"))
    assert sum(file["memory"]["opened"] for file in engines) == pytest.approx(weights, rel=0.1)


def test_the_video_is_the_same_within_any_budget(within: Variant, tiny_bundle: Path) -> None:
    expected = open_bundle(tiny_bundle, threads=1).generate(PROMPT, seed=3, steps=4)
    least = least_of(within.root, "64p")
    for budget in (None, least + 8 * 2**20, least):
        pipeline = opened(within.root, budget)
        for _ in range(2):
            result = pipeline.generate(PROMPT, seed=3, steps=4)
            np.testing.assert_array_equal(result.latents, expected.latents)
            np.testing.assert_array_equal(result.frames, expected.frames)
        counters = pipeline.executor.residency.counters()
        assert counters["peak_bytes"] <= (BUDGET if budget is None else budget)
        assert (counters["evictions"] > 0) is (budget is not None)
    assert run_selftest(within.root).ok


def test_why_knows_how_its_model_was_cut(within: Variant, tiny_recipe: Path) -> None:
    (loaded,) = load(tiny_recipe, ["name=within", *WITHIN])
    assert [answer.stage for answer in why(loaded, within.root.parents[1]) if not answer.stored] == []


def test_a_bundle_without_a_budget_closes_nothing(tiny_bundle: Path) -> None:
    pipeline = opened(tiny_bundle)
    for _ in range(2):
        pipeline.generate(PROMPT, seed=3, steps=4, frames=5)
    counters = pipeline.executor.residency.counters()
    assert (counters["evictions"], counters["loads"] <= len(Manifest.read(tiny_bundle).files)) == (0, True)
    with pytest.raises(UserError, match="not planned within a budget"):
        opened(tiny_bundle, BUDGET)


def test_one_byte_under_the_least_budget_is_refused(within: Variant) -> None:
    least = least_of(within.root, "64p")
    with pytest.raises(TargetError, match=f"takes {least:,}: 1 are missing"):
        opened(within.root, least - 1)


def test_what_its_last_phase_has_no_room_for_is_not_begun(within: Variant) -> None:
    least, larger = least_of(within.root, "64p"), least_of(within.root, "96p-wide")
    assert least < larger
    pipeline = opened(within.root, larger - 1)
    with pytest.raises(TargetError, match="1 are missing"):
        pipeline.generate(PROMPT, shape="96p-wide", steps=4)
    with pytest.raises(TargetError, match="are missing"):
        pipeline.generate(PROMPT, frames=81, steps=4)
    assert pipeline.executor.counters() == {}
    assert pipeline.generate(PROMPT, steps=1).frames.shape[0] == 17


def test_the_command_line_takes_a_budget_and_refuses_what_is_none(
    within: Variant, tmp_path: Path, run_py: RunPy
) -> None:
    video = tmp_path / "video.npz"
    given = ("--prompt", PROMPT, "--steps", "1", "-o", video)
    assert run_py(within.root, *given, "--device-budget", "much").code == 2
    done = run_py(within.root, *given, "--device-budget", "1MiB")
    assert done.code == 69 and "are missing" in done.err
    assert not video.exists()
    done = run_py(within.root, *given, "--device-budget", "100MiB", "--json")
    assert json.loads(done.out)["frames"] == 17


def test_the_next_expert_and_the_decoder_are_opened_ahead(within: Variant) -> None:
    pipeline = opened(within.root)
    pipeline.generate(PROMPT, seed=3, steps=4)
    assert pipeline.executor.residency.counters()["prefetched"] > 0


@pytest.mark.parametrize(("budget", "fits"), [(BUDGET, True), (None, False)], ids=["all fit", "the least budget"])
def test_a_list_of_prompts_is_worked_on_side_by_side_where_all_phases_fit(
    within: Variant, tmp_path: Path, budget: int | None, fits: bool
) -> None:
    (tmp_path / "prompts.txt").write_text("A red circle moves left.\nA blue square moves up.\n")
    budget = budget or least_of(within.root, "64p")
    asked: dict[str, Any] = {"prompts": tmp_path / "prompts.txt", "frames": 5, "steps": 2}
    with recording() as recorder:
        run(within.root, tmp_path / "videos", asked, threads=1, device_budget=str(budget))
    phases = [span for span in recorder.spans if span.phase in ("text", "denoise", "decode")]
    threads = {span.track.name for span in phases if span.track is not None}
    assert threads == {"text-0", "denoise-0", "decode-0"}
    overlaps = any(one.start < other.start < one.end for one in phases for other in phases if one is not other)
    assert opened(within.root, budget).fits_side_by_side(Request("", frames=5)) is fits
    assert fits or not overlaps
    for number, prompt in enumerate(("A red circle moves left.", "A blue square moves up."), 1):
        result = opened(within.root).generate(prompt, frames=5, steps=2)
        result.save(tmp_path / "alone.mp4")
        assert (tmp_path / "videos" / f"{number:04d}.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()


def test_a_prompt_that_was_encoded_reads_nothing_again(within: Variant) -> None:
    """From disk: its files are put out of the cache before each request."""
    found = measured(within.root, [PROMPT, PROMPT, "A blue square."], least_of(within.root, "64p"))
    first, again, _ = found["requests"]
    assert first["loads"] > 0
    assert [again[name] for name in ("loads", "engine_bytes_read", "table_bytes_read")] == [0, 0, 0]
    assert found["peak_bytes"] <= found["budget"]
