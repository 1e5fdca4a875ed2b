"""What a run tells of its request, and what it refuses of it: what has no effect, and what cannot be shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import wanc as package
from wanc.errors import TargetError, UserError
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Request
from wanc.runtime.session import Session

from ..conftest import Wanc
from .conftest import RunPy, Variant

PROMPT = "A red circle moves to the left."
SHORT = ("--prompt", PROMPT, "--frames", "5", "--steps", "2", "--seed", "7")
BRANDS = {"major_brand", "minor_version", "compatible_brands"}


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return package.open(tiny_bundle)


def read_tags(video: Path) -> dict[str, str]:
    with av.open(str(video)) as container:
        return {name: value for name, value in container.metadata.items() if name not in BRANDS}


# What no picture shows


@pytest.mark.parametrize(("graph", "frame"), [("first", 0), ("steady", 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_frames_that_are_not_finite_are_refused(
    tiny_bundle: Path,
    run_py: RunPy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    graph: str,
    frame: int,
    value: float,
) -> None:
    run = Session.run

    def wrong(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = run(session, inputs)
        if f"/{graph}." in session.shown:
            frames = outputs["frames"].copy()
            frames[0, 1, -1, 3, 3] = value
            return {**outputs, "frames": frames}
        return outputs

    monkeypatch.setattr(Session, "run", wrong)
    finished = run_py(tiny_bundle, *SHORT, "-o", tmp_path / "out.mp4")
    last = frame if graph == "first" else frame + 3
    assert (finished.code, finished.err) == (
        TargetError.exit_code,
        f"error: vae_decoder/{graph} gave values that are not finite in frame {last}, from 0\n"
        "hint: run the bundle's --selftest: this machine may not compute what the build machine did\n",
    )
    assert os.listdir(tmp_path) == []


# Options without effect


def test_a_negative_prompt_needs_guidance(few_step: Variant, run_py: RunPy, tmp_path: Path) -> None:
    message = "the negative prompt has no effect: this bundle samples without guidance"
    for text in ("blurred", ""):
        finished = run_py(
            few_step.root, "--prompt", PROMPT, "--frames", "1", "--negative-prompt", text, "-o", tmp_path / "out.mp4"
        )
        assert (finished.code, finished.err) == (2, f"error: {message}\n")
    with pytest.raises(UserError, match=message):
        package.open(few_step.root).generate(PROMPT, negative_prompt="blurred", frames=1)
    assert os.listdir(tmp_path) == []


def test_latents_need_no_seed(tiny_bundle: Path, run_py: RunPy, tmp_path: Path, unworked: None) -> None:
    np.save(tmp_path / "noise.npy", np.zeros((1, 16, 1, 8, 8), np.float32))
    for seed in ("0", "7"):
        options = ("--seed", seed, "--latents", tmp_path / "noise.npy")
        finished = run_py(tiny_bundle, "--prompt", PROMPT, *options, "-o", tmp_path / "out.mp4")
        assert (finished.code, finished.err) == (
            2,
            "error: --seed and --latents exclude each other\nhint: give one of them\n",
        )
    with pytest.raises(UserError, match="the seed has no effect"):
        Request(PROMPT, seed=7, latents=np.zeros((1, 16, 1, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("-o", "out.mp4"), "--output"),
        (("--prompt", PROMPT, "--negative-prompt", ""), "--prompt and --negative-prompt"),
        (("--seed", "0"), "--seed"),
    ],
    ids=["output", "prompts", "seed"],
)
def test_the_self_test_takes_threads_alone(
    tiny_bundle: Path, run_py: RunPy, options: tuple[str, ...], named: str, unworked: None
) -> None:
    finished = run_py(tiny_bundle, "--selftest", *options, "--threads", "1")
    assert (finished.code, finished.err) == (
        2,
        f"error: --selftest and {named} exclude each other\nhint: give one of them\n",
    )


@pytest.mark.parametrize("options", [("--inputs", "in.npz"), ("--prompts", "prompts.txt"), ()], ids=" ".join)
def test_what_is_no_bundle_is_said_whatever_else_is_asked(
    wanc: Wanc, run_py: RunPy, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "folder").mkdir()
    for finished in (
        run_py(tmp_path / "folder", *options, "-o", tmp_path / "out.npz"),
        wanc("run", tmp_path / "folder", *options, "-o", tmp_path / "out.npz"),
    ):
        assert finished.code == 66
        assert "WANC: is missing" in finished.err


# Texts that are cut


def words(pipeline: Pipeline, tokens: int) -> str:
    """A text of so many tokens, end mark included."""
    tokenizer = pipeline._tokenizer
    count = 1
    while tokenizer.count("red " * count) < tokens:
        count += 1
    text = ("red " * count).strip()
    assert tokenizer.count(text) == tokens
    return text


def test_a_text_that_fits_is_not_cut(pipeline: Pipeline) -> None:
    length = pipeline.bundle.model.text_length
    for over in (0, 1):
        request = Request(words(pipeline, length + over), negative_prompt=words(pipeline, length + over))
        expected = {"prompt": (length, length + 1), "negative_prompt": (length, length + 1)} if over else {}
        assert pipeline.cut(request) == expected


def test_a_text_that_is_cut_is_told(tiny_bundle: Path, pipeline: Pipeline, run_py: RunPy, tmp_path: Path) -> None:
    length = pipeline.bundle.model.text_length
    long = words(pipeline, length + 5)
    path = tmp_path / "out.mp4"
    options = ("--prompt", long, "--negative-prompt", f"{long} red", "--frames", "1", "--steps", "1")
    told = (
        f"note: {path}: the model reads {length} of the {length + 5} tokens of the prompt\n"
        f"note: {path}: the model reads {length} of the {length + 6} tokens of the negative prompt\n"
    )
    cut = {"prompt": [length, length + 5], "negative_prompt": [length, length + 6]}
    finished = run_py(tiny_bundle, *options, "-o", path)
    assert (finished.code, finished.err) == (0, told)
    finished = run_py(tiny_bundle, *options, "-o", path, "--json")
    assert (finished.code, finished.err, json.loads(finished.out)["cut"]) == (0, told, cut)
    tags = read_tags(path)
    assert (tags["prompt"], tags["prompt_cut"]) == (long, f"{length} of {length + 5} tokens")
    result = pipeline.generate(long, negative_prompt=f"{long} red", frames=1, steps=1)
    assert {name: list(counts) for name, counts in result.cut.items()} == cut


def test_in_a_list_the_one_that_is_cut_is_told(
    tiny_bundle: Path, pipeline: Pipeline, run_py: RunPy, tmp_path: Path
) -> None:
    length = pipeline.bundle.model.text_length
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n{words(pipeline, length + 2)}\n")
    folder = tmp_path / "videos"
    options = ("--prompts", tmp_path / "prompts.txt", "--frames", "1", "--steps", "1", "-o", folder, "--json")
    finished = run_py(tiny_bundle, *options)
    assert finished.err == (
        f"note: {folder / '0002.mp4'}: the model reads {length} of the {length + 2} tokens of the prompt\n"
    )
    videos = json.loads(finished.out)["videos"]
    assert [video.get("cut") for video in videos] == [None, {"prompt": [length, length + 2]}]


def test_a_text_that_no_tag_can_hold_is_refused_before_the_work(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(Session, "run", never)
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\na red\0circle\n")
    finished = run_py(tiny_bundle, "--prompts", tmp_path / "prompts.txt", "-o", tmp_path / "videos")
    assert (finished.code, finished.err) == (2, "error: the prompt holds a null character\n")
    assert os.listdir(tmp_path) == ["prompts.txt"]


def test_names_of_files_need_not_be_texts(tiny_bundle: Path, tmp_path: Path) -> None:
    noise, path = tmp_path / "noise\udcff.npy", tmp_path / "out\udcff.mp4"
    np.save(noise, np.zeros((1, 16, 1, 8, 8), np.float32))
    options = ("--prompt", PROMPT, "--frames", "1", "--steps", "1", "--latents", noise, "-o", path)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    script = [sys.executable, tiny_bundle / "run.py", *options]
    finished = subprocess.run(script, env=strict, capture_output=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert b"out\\udcff.mp4: 1 frames" in finished.stdout
    assert read_tags(path)["seed"] == "latents from noise\\udcff.npy"


# What a file tells about itself


def test_the_tags_tell_all_that_it_takes_to_make_it_again(
    tiny_bundle: Path, pipeline: Pipeline, few_step: Variant, run_py: RunPy, tmp_path: Path
) -> None:
    path = tmp_path / "out.mp4"
    options = ("--negative-prompt", "blurred", "--shape", "96p-wide", "--frames", "5", "--steps", "2", "--seed", "7")
    assert run_py(tiny_bundle, "--prompt", "一个红色的圆。", *options, "-o", path).code == 0
    assert read_tags(path) == {
        "prompt": "一个红色的圆。",
        "negative_prompt": "blurred",
        "seed": "7",
        "steps": "2",
        "shape": "96p-wide, 96x64",
        "frames": "5",
        "solver": "unipc, shift 4",
        "guidance": "high 3, low 3",
        "bundle": pipeline.bundle.manifest.id,
        "wanc": package.__version__,
    }
    assert run_py(few_step.root, "--prompt", PROMPT, "--frames", "1", "-o", path).code == 0
    tags = read_tags(path)
    assert "negative_prompt" not in tags
    assert (tags["steps"], tags["guidance"], tags["seed"]) == ("4", "high 1, low 1", "0")
