"""The comparison of quantised models sees each fault that is planted, and nothing where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts import compare_tiny_wan
from scripts.tiny_wan import comparison, evaluation, scenes
from scripts.tiny_wan.comparison import Clip
from wanc.report.detectors import moving_shapes

COUNT = 20
CASES = {case.seed: case for case in evaluation.cases(COUNT)}
FLOAT, INT8 = "tiny-wan", "tiny-wan-int8"

Spoil = Callable[[Clip, int], Clip]


def perfect(prompt: str, seed: int) -> Clip:
    """A model that does exactly what the prompts say, without a model."""
    case = CASES[seed]
    assert case.prompt == prompt
    frames = scenes.render(scenes.random_scene(np.random.default_rng(seed), case.attributes))
    return Clip(frames, evaluation.noise(seed))


def spoilt(spoil: Spoil) -> comparison.Make:
    return lambda prompt, seed: spoil(perfect(prompt, seed), seed)


def figures_of(make: comparison.Make, count: int = COUNT) -> comparison.Figures:
    return comparison.figures(compare_tiny_wan.measure(perfect, {INT8: make}, count)[INT8])


# faults, each of which only one figure is to see


def brighter(clip: Clip, seed: int) -> Clip:
    """Eight grey levels: 30.07 dB, and the same shape, colours and motion."""
    return replace(clip, frames=clip.frames + np.uint8(8))


def turned(clip: Clip, seed: int) -> Clip:
    """Latents at an angle whose cosine is 0.99, with the same frames."""
    other = evaluation.noise(seed + 10_000)
    other -= clip.latents * np.float32((other * clip.latents).sum() / np.square(clip.latents).sum())
    other *= np.linalg.norm(clip.latents) / np.linalg.norm(other)
    return replace(clip, latents=np.float32(0.99) * clip.latents + np.float32((1 - 0.99**2) ** 0.5) * other)


def backwards(clip: Clip, seed: int) -> Clip:
    """One of the 20 clips runs backwards: five points of direction."""
    return replace(clip, frames=clip.frames[::-1]) if seed == evaluation.FIRST_SEED + 3 else clip


def flickering(clip: Clip, seed: int) -> Clip:
    """Two grey levels in every second frame: 45 dB, and far more motion."""
    return replace(clip, frames=clip.frames + 2 * (np.arange(17, dtype=np.uint8) % 2)[:, None, None, None])


PLANTED: dict[str, tuple[Spoil, str]] = {
    "PSNR": (brighter, "tiny-wan-int8: the mean PSNR is 30.07 dB, less than 32 dB"),
    "cosine": (turned, "tiny-wan-int8: the mean cosine of latents is 0.99000, less than 0.995"),
    "agreement": (backwards, "tiny-wan-int8: direction agrees by -5.0 points, not within 2"),
    "motion": (flickering, "tiny-wan-int8: there is 274.1% of the motion, not within 3% of all"),
}


@pytest.mark.parametrize("bound", PLANTED)
def test_each_bound_sees_the_fault_that_is_planted_for_it(bound: str) -> None:
    spoil, sentence = PLANTED[bound]
    assert compare_tiny_wan.misses(INT8, figures_of(spoilt(spoil))) == [sentence]


def test_the_same_model_meets_all_bounds() -> None:
    figures = figures_of(perfect)
    assert (figures.psnr_db, figures.psnr_db_p5) == (comparison.IDENTICAL_DB, comparison.IDENTICAL_DB)
    assert figures.cosine == pytest.approx(1, abs=1e-12)
    assert (figures.motion_ratio, figures.travel_ratio) == (1, 1)
    assert set(figures.points.values()) == {0}
    assert compare_tiny_wan.misses(INT8, figures) == []


def test_what_lies_on_a_bound_meets_it() -> None:
    points = {"shape": 2.0, "colour": -2.0, "direction": 0.0}
    figures = replace(figures_of(perfect, 2), psnr_db=32.0, cosine=0.995, points=points, motion_ratio=1.029)
    assert compare_tiny_wan.misses(INT8, figures) == []


def test_less_motion_is_a_fault_as_well() -> None:
    (missed,) = compare_tiny_wan.misses(INT8, replace(figures_of(perfect, 2), motion_ratio=0.96))
    assert missed == "tiny-wan-int8: there is 96.0% of the motion, not within 3% of all"


def test_one_bad_video_in_ten_is_in_the_percentile_and_not_in_the_mean() -> None:
    figures = figures_of(spoilt(lambda clip, seed: brighter(clip, seed) if seed % 10 == 0 else clip))
    assert figures.psnr_db == pytest.approx(0.9 * 100 + 0.1 * 30.07, abs=0.01)
    assert figures.psnr_db_p5 == pytest.approx(30.07, abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_latents_without_a_direction_have_nothing_in_common_with_any(value: float) -> None:
    latents = evaluation.noise(0)
    assert comparison.cosine(latents, np.full_like(latents, value)) == 0


def test_a_model_that_shows_nothing_has_figures() -> None:
    figures = figures_of(spoilt(lambda clip, seed: replace(clip, frames=np.zeros_like(clip.frames))), 4)
    assert (figures.motion_ratio, figures.travel_ratio) == pytest.approx((0, 0), abs=1e-9)
    assert set(figures.agreement.values()) == {0}


def test_psnr_of_a_known_error() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert comparison.psnr(frames, frames + np.uint8(255)) == 0
    assert comparison.psnr(frames, frames + np.uint8(1)) == pytest.approx(48.13, abs=0.01)


def test_travel_is_what_the_scene_moves() -> None:
    scene = scenes.random_scene(np.random.default_rng(1), scenes.ALL_COMBINATIONS[0])
    clip = scenes.render(scene)
    assert moving_shapes.travel(clip) == pytest.approx(scene.speed * (scenes.FRAMES - 1), rel=0.02)
    assert moving_shapes.travel(np.repeat(clip[:1], scenes.FRAMES, axis=0)) == pytest.approx(0, abs=1e-3)
    assert moving_shapes.travel(np.zeros_like(clip)) == 0


# the command


Run = Callable[..., int]


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Spoil]:
    """Folders of bundles in the working directory; what each does to a perfect clip can be changed."""
    monkeypatch.chdir(tmp_path)
    known: dict[str, Spoil] = {FLOAT: lambda clip, seed: clip, INT8: lambda clip, seed: clip}
    for name in (FLOAT, INT8, "tiny-wan-fp8"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(compare_tiny_wan, "bundle_maker", lambda folder, steps: spoilt(known[folder.name]))
    return known


def run(*arguments: str) -> int:
    return compare_tiny_wan.main([FLOAT, *arguments, "--pairs", "4"])


def test_only_a_held_bundle_fails_the_run(bundles: dict[str, Spoil], capsys: pytest.CaptureFixture[str]) -> None:
    bundles["tiny-wan-fp8"] = brighter
    assert run(INT8, "tiny-wan-fp8", "--hold", INT8) == 0
    assert "warning: tiny-wan-fp8: the mean PSNR is 30.07 dB, less than 32 dB\n" in capsys.readouterr().err
    assert run(INT8, "tiny-wan-fp8", "--hold", INT8, "--hold", "./tiny-wan-fp8/") == 1
    assert "error: tiny-wan-fp8: the mean PSNR is 30.07 dB, less than 32 dB\n" in capsys.readouterr().err


def test_the_reference_is_generated_once(bundles: dict[str, Spoil]) -> None:
    seeds: list[int] = []

    def counted(clip: Clip, seed: int) -> Clip:
        seeds.append(seed)
        return clip

    bundles |= {FLOAT: counted, "tiny-wan-fp8": brighter}
    run(INT8, "tiny-wan-fp8")
    assert seeds == list(range(evaluation.FIRST_SEED, evaluation.FIRST_SEED + 4))


def test_json(bundles: dict[str, Spoil], capsys: pytest.CaptureFixture[str]) -> None:
    bundles[INT8] = brighter
    assert run(INT8, "--json", "--hold", INT8) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["pairs"], document["steps"], document["reference"]["bundle"]) == (4, 20, FLOAT)
    (bundle,) = document["bundles"]
    assert (bundle["bundle"], bundle["held"], len(bundle["missed"])) == (INT8, True, 1)
    assert bundle["psnr_db"] == pytest.approx(30.07, abs=0.01)
    assert bundle["points"] == {"shape": 0, "colour": 0, "direction": 0}


def test_the_table(bundles: dict[str, Spoil], capsys: pytest.CaptureFixture[str]) -> None:
    bundles["tiny-wan-fp8"] = brighter
    assert run(INT8, "tiny-wan-fp8", "-o", "table.md") == 0
    table = Path("table.md").read_text()
    assert capsys.readouterr().out == table
    assert table == (
        "4 pairs of prompt and seed, 20 steps, against tiny-wan:\n"
        "\n"
        "| bundle | PSNR, dB | 5th percentile | cosine | shape | colour | direction | motion | travel | bounds |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| tiny-wan |  |  |  | 100.0% | 100.0% | 100.0% |  |  |  |\n"
        "| tiny-wan-int8 | 100.00 | 100.00 | 1.00000 | 100.0% (+0.0) | 100.0% (+0.0) | 100.0% (+0.0) | 100.0% | 100.0% "
        "| met |\n"
        "| tiny-wan-fp8 | 30.07 | 30.07 | 1.00000 | 100.0% (+0.0) | 100.0% (+0.0) | 100.0% (+0.0) | 100.0% | 100.0% "
        "| missed |\n"
    )


# name: (the arguments after the reference, what is said)
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no such bundle": (("absent",), "there is no "),
    "the reference twice": ((FLOAT,), "two have the same"),
    "nothing to hold": ((INT8, "--hold", FLOAT), "which is none of the quantised bundles"),
    "no pairs": ((INT8, "--pairs", "0"), "--pairs has to be at least 1"),
    "nowhere to write": ((INT8, "-o", "absent/table.md"), "there is no absent"),
    "a folder to write over": ((INT8, "-o", "."), "the table cannot be written"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage(case: str, bundles: dict[str, Spoil], capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(SystemExit) as caught:
        compare_tiny_wan.main([FLOAT, *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
