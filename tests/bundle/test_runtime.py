"""What a bundle does with what it is asked: options, counters, the experts, the file that it writes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from wanc.runtime.manifest import Manifest
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline, choose_expert
from wanc.runtime.selftest import TEXT, selftest
from wanc.runtime.session import Session
from wanc.runtime.video_bundle import Sampling, VideoBundle
from wanc.runtime.video_task import run_video

from .conftest import RunPy, Variant

PROMPT = "A red circle moves to the left."
SHORT = ("--frames", "5", "--steps", "2")
FEW_FRAMES = {"frames": 5, "steps": 2}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> VideoBundle:
    return VideoBundle.open(tiny_bundle)


@pytest.fixture(scope="module")
def pipeline(bundle: VideoBundle) -> Pipeline:
    return Pipeline(bundle)


def decoded(video: Path) -> np.ndarray:
    """The frames of a file, uint8 [frames, height, width, 3]."""
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# Options


def test_the_video_has_the_recipes_size_length_and_rate(
    tiny_bundle: Path, bundle: VideoBundle, run_py: RunPy, tmp_path: Path
) -> None:
    video = tmp_path / "out.mp4"
    finished = run_py(tiny_bundle, "--prompt", PROMPT, "--seed", "7", "--steps", "1", "-o", video)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.startswith(f"{video}: 17 frames (verify ")
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (64, 64, 17)
        assert stream.average_rate == 16
        tags = {name: container.metadata[name] for name in ("prompt", "seed", "bundle")}
    assert tags == {"prompt": PROMPT, "seed": "7", "bundle": bundle.manifest.id}
    assert bundle.manifest.id == f"sha256:{hashlib.sha256((tiny_bundle / 'manifest.json').read_bytes()).hexdigest()}"


@pytest.mark.parametrize(
    ("options", "frames", "height", "width"),
    [
        (("--shape", "96p-wide", "--frames", "5"), 5, 64, 96),
        (("--shape", "64p", "--frames", "9"), 9, 64, 64),
        (("--frames", "1"), 1, 64, 64),
    ],
)
def test_shape_and_frames_set_the_videos_size(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, options: tuple[str, ...], frames: int, height: int, width: int
) -> None:
    video = tmp_path / "out.mp4"
    finished = run_py(tiny_bundle, "--prompt", PROMPT, "--steps", "1", *options, "-o", video, "--json")
    assert finished.code == 0
    assert json.loads(finished.out)["frames"] == frames
    assert decoded(video).shape == (frames, height, width, 3)


def test_json_has_the_documented_fields(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    finished = run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "-o", video, "--json")
    assert (finished.code, finished.err) == (0, "")
    report = json.loads(finished.out)
    assert set(report) == {"video", "frames", "seconds", "peak_rss_bytes", "counters"}
    assert (report["video"], report["frames"]) == (str(video), 5)
    assert set(report["seconds"]) == {"verify", "text", "denoise", "decode", "video"}
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert report["peak_rss_bytes"] > 2**20
    graphs = {"text_encoder/encode", "denoiser_high/step", "vae_decoder/first", "vae_decoder/steady"}
    assert {name.rpartition(".")[0] for name in report["counters"]} >= graphs
    assert {name.rpartition(".")[2] for name in report["counters"]} == {"executions", "bytes", "seconds"}


def test_a_seed_gives_the_same_file_again(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    """The whole file: no date, no version and no order of threads may show in it."""
    files = []
    for seed, name in (("1", "first"), ("1", "again"), ("2", "other")):
        video = tmp_path / f"{name}.mp4"
        assert run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "--seed", seed, "-o", video).code == 0
        files.append(video)
    first, again, other = (video.read_bytes() for video in files)
    assert first == again
    assert not np.array_equal(decoded(files[0]), decoded(files[2]))
    assert first != other


def test_latents_replace_the_seed(tiny_bundle: Path, bundle: VideoBundle, run_py: RunPy, tmp_path: Path) -> None:
    noise = tmp_path / "noise.npy"
    np.save(noise, initial_noise(bundle.latent_shape(bundle.shape(None, 5)), 11))
    seeded, given = tmp_path / "seeded.mp4", tmp_path / "given.mp4"
    assert run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "--seed", "11", "-o", seeded).code == 0
    assert run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "--latents", noise, "-o", given).code == 0
    np.testing.assert_array_equal(decoded(given), decoded(seeded))
    with av.open(str(given)) as container:
        assert container.metadata["seed"] == "latents from noise.npy"


def test_prompt_and_negative_prompt_matter(pipeline: Pipeline) -> None:
    plain = pipeline.generate(PROMPT, **FEW_FRAMES).latents
    recipes_own = pipeline.generate(PROMPT, negative_prompt="", **FEW_FRAMES).latents
    np.testing.assert_array_equal(plain, recipes_own)
    for other in (
        pipeline.generate("一个蓝色的正方形向上移动。", **FEW_FRAMES).latents,
        pipeline.generate(PROMPT, negative_prompt="A blue square.", **FEW_FRAMES).latents,
    ):
        assert not np.array_equal(plain, other)


def test_white_space_and_entities_of_a_prompt_do_not_matter(pipeline: Pipeline) -> None:
    plain = pipeline.generate("red & blue", **FEW_FRAMES).latents
    np.testing.assert_array_equal(plain, pipeline.generate("  red \n &amp;amp;  blue ", **FEW_FRAMES).latents)


def test_a_prompt_longer_than_the_model_reads_is_cut(pipeline: Pipeline) -> None:
    result = pipeline.generate("A red circle moves. " * 100, **FEW_FRAMES)
    assert np.isfinite(result.latents).all()


def test_the_number_of_threads_hardly_changes_the_result(bundle: VideoBundle) -> None:
    one, two = (Pipeline(bundle, threads=threads).generate(PROMPT, **FEW_FRAMES).latents for threads in (1, 2))
    # Two threads sum in another order than one: single float32 roundings, over two steps.
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5 * float(np.abs(one).max()))


def test_help_has_an_example(tiny_bundle: Path, run_py: RunPy) -> None:
    finished = run_py(tiny_bundle, "--help")
    assert (finished.code, finished.err) == (0, "")
    assert "examples:\n  python run.py --prompt" in finished.out


# Counters


def executions(pipeline: Pipeline) -> dict[str, int]:
    return {graph: int(counter["executions"]) for graph, counter in pipeline.executor.counters().items()}


def denoised(component: str, *, timesteps: int, branches: int, known: int = 0) -> dict[str, int]:
    """What an expert executes in one request of which `known` timesteps stand in its table."""
    return {
        **({f"{component}/time": timesteps - known} if timesteps > known else {}),
        f"{component}/shape": 1,
        f"{component}/request": branches,
        f"{component}/step": timesteps * branches,
    }


@pytest.fixture(scope="module")
def counted(bundle: VideoBundle) -> VideoBundle:
    """The bundle with sampling of the tests' own: 20 steps at shift 5, of which 9 have timesteps of 875 and more."""
    sampling = replace(bundle.sampling, solver="unipc", steps=20, shift=5.0, guidance_high=4.0, guidance_low=3.0)
    return replace(bundle, sampling=sampling, model=replace(bundle.model, boundary=0.875))


def test_every_execution_is_counted_and_there_are_no_others(counted: VideoBundle) -> None:
    """17 frames are 5 latent frames. Every schedule begins at 999, which the recipe's own has as well."""
    pipeline = Pipeline(counted)
    pipeline.generate(PROMPT)
    assert executions(pipeline) == {
        "text_encoder/encode": 2,
        **denoised("denoiser_high", timesteps=9, branches=2, known=1),
        **denoised("denoiser_low", timesteps=11, branches=2),
        "vae_decoder/first": 1,
        "vae_decoder/steady": 4,
    }


@pytest.mark.parametrize(
    ("high", "low", "texts", "high_branches", "low_branches"),
    [(1.0, 1.0, 1, 1, 1), (4.0, 1.0, 2, 2, 1), (1.0, 3.0, 2, 1, 2)],
)
def test_a_guidance_of_1_runs_one_branch(
    counted: VideoBundle, high: float, low: float, texts: int, high_branches: int, low_branches: int
) -> None:
    """Of 4 steps, 2 belong to each expert."""
    sampling = replace(counted.sampling, guidance_high=high, guidance_low=low)
    pipeline = Pipeline(replace(counted, sampling=sampling))
    pipeline.generate(PROMPT, frames=1, steps=4)
    assert executions(pipeline) == {
        "text_encoder/encode": texts,
        **denoised("denoiser_high", timesteps=2, branches=high_branches, known=1),
        **denoised("denoiser_low", timesteps=2, branches=low_branches),
        "vae_decoder/first": 1,
    }


def test_few_step_sampling_runs_one_branch_per_timestep(few_step: Variant) -> None:
    """At shift 5, raw timesteps 1000, 750 and 500 and 250 become 999, 937, 833 and 625."""
    pipeline = Pipeline.open(few_step.root)
    pipeline.generate(PROMPT, frames=1)
    assert executions(pipeline) == {
        "text_encoder/encode": 1,
        **denoised("denoiser_high", timesteps=2, branches=1, known=2),
        **denoised("denoiser_low", timesteps=2, branches=1, known=2),
        "vae_decoder/first": 1,
    }


def test_counters_add_up_over_requests_and_count_bytes(counted: VideoBundle) -> None:
    pipeline = Pipeline(counted)
    pipeline.generate(PROMPT, frames=1, steps=1)
    once = pipeline.executor.counters()["denoiser_high/step"]
    pipeline.generate(PROMPT, frames=1, steps=1)
    twice = pipeline.executor.counters()["denoiser_high/step"]
    latents = 4 * 16 * 8 * 8  # float32; in and out
    keys_and_values = 5 * 2 * 4 * 64 * 160  # of 5 blocks, for 64 tokens of text; the model's width is 160
    modulation = (5 * 6 + 2) * 4 * 160
    rope = 2 * 4 * 16 * 16  # cosines and sines of 16 tokens, in 16 halves of a head of 32
    assert once["bytes"] == 2 * (2 * latents + keys_and_values + modulation + rope)
    assert (twice["executions"], twice["bytes"]) == (2 * once["executions"], 2 * once["bytes"])
    assert twice["seconds"] > once["seconds"] > 0


# The two experts


@pytest.mark.parametrize(
    ("boundary", "timestep", "component"),
    [
        (0.875, 999.0, "denoiser_high"),
        (0.875, 875.0, "denoiser_high"),
        (0.875, 874.0, "denoiser_low"),
        (0.875, 874.9999, "denoiser_low"),
        (0.9, 900.0, "denoiser_high"),
        (0.0, 0.0, "denoiser_high"),
        (1.0, 999.0, "denoiser_low"),
        (None, 0.0, "denoiser_high"),
    ],
)
def test_the_boundary_belongs_to_the_high_noise_expert(
    bundle: VideoBundle, boundary: float | None, timestep: float, component: str
) -> None:
    sampling: Sampling = replace(bundle.sampling, guidance_high=4.0, guidance_low=3.0)
    expert = choose_expert(replace(bundle.model, boundary=boundary), sampling, timestep)
    assert (expert.component, expert.guidance) == (component, 4.0 if component == "denoiser_high" else 3.0)


# Failure and interruption


class _Failure(Exception):
    """Something that went wrong inside the engine."""


@pytest.mark.parametrize("fault", [_Failure, KeyboardInterrupt])
@pytest.mark.parametrize(
    "graph", ["text_encoder/encode", "denoiser_high/request", "denoiser_low/step", "vae_decoder/steady"]
)
@pytest.mark.parametrize("earlier", [None, b"an older video"], ids=["new", "over an older file"])
def test_nothing_half_written_stays(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[BaseException],
    graph: str,
    earlier: bytes | None,
) -> None:
    video = tmp_path / "out.mp4"
    if earlier is not None:
        video.write_bytes(earlier)
    run = Session.run

    def failing(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if f"/{graph}." in session.shown:
            raise fault
        return run(session, inputs)

    monkeypatch.setattr(Session, "run", failing)
    with pytest.raises(fault):
        run_video(tiny_bundle, video, prompt=PROMPT, **FEW_FRAMES)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({"out.mp4": earlier} if earlier else {})


STRUCK = """
import os, signal, sys
from pathlib import Path
from wanc.runtime import main, session

# A shell's background jobs, and so these tests, may have been told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

run, left = session.Session.run, 5

def struck(opened, inputs):
    global left
    left -= 1
    if not left:
        assert list(Path(sys.argv[2]).parent.glob(".*.part")), "there is nothing yet to clean up"
        os.kill(os.getpid(), int(sys.argv[3]))
    return run(opened, inputs)

session.Session.run = struck
raise SystemExit(main.main(Path(sys.argv[1]), [*sys.argv[4:], "-o", sys.argv[2]]))
"""
"""Runs a bundle, whose process strikes itself in the middle: BUNDLE OUTPUT SIGNAL OPTIONS…"""


@pytest.mark.parametrize(
    ("strike", "code", "message"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "")],
    ids=["interrupted", "terminated"],
)
def test_a_signal_leaves_nothing_behind(
    tiny_bundle: Path, tmp_path: Path, strike: signal.Signals, code: int, message: str
) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", STRUCK, tiny_bundle, tmp_path / "out.mp4", str(int(strike)), "--prompt", "x", *SHORT],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (code, "", message)
    assert os.listdir(tmp_path) == []


# Self-test


def test_selftest_replays_every_graph(tiny_bundle: Path, bundle: VideoBundle, run_py: RunPy) -> None:
    finished = run_py(tiny_bundle, "--selftest", "--json")
    assert (finished.code, finished.err) == (0, "")
    report = json.loads(finished.out)
    assert (report["ok"], report["id"]) == (True, Manifest.read(tiny_bundle).id)
    assert {check["graph"] for check in report["checks"]} == {
        *TEXT,
        *("/".join(key) for key in bundle.engines),
    }
    assert all(check["ok"] and check["relative_error"] <= check["tolerance"] for check in report["checks"])


def test_selftest_finds_an_engine_that_computes_something_else(bundle: VideoBundle) -> None:
    other = bundle.engines["denoiser_low", "step"]
    checks = selftest(replace(bundle, engines={**bundle.engines, ("denoiser_high", "step"): other}))
    assert [check.graph for check in checks if not check.ok] == ["denoiser_high/step"]


def test_selftest_prints_a_line_per_graph(tiny_bundle: Path, run_py: RunPy) -> None:
    lines = run_py(tiny_bundle, "--selftest").out.splitlines()
    assert lines[0].startswith("ok   text_encoder/tokenizer: ") and lines[1].startswith("ok   text_encoder/embedding: ")
    assert len(lines[2:]) == 4 + 4 + 1 + 2 + 1, "two experts in four graphs each, text encoder, decoder, the verdict"
    assert all(line.startswith("ok   ") for line in lines[:-1])
    assert lines[-1] == "selftest passed"
