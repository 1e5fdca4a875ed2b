"""What a bundle refuses, with the whole message, and without leaving anything behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from .conftest import RunPy, Variant

PROMPT = "A red circle moves to the left."
SHORT = ("--frames", "5", "--steps", "2")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ("--frames", "16"),
            2,
            "error: 16 frames cannot be made: the first latent frame gives one frame, each other one 4\n"
            "hint: ask for 13 or 17\n",
        ),
        (
            ("--frames", "0"),
            2,
            "error: 0 frames cannot be made: the first latent frame gives one frame, each other one 4\n"
            "hint: ask for 1 or 5\n",
        ),
        (("--frames", "4097"), 2, "error: 4097 frames cannot be made: the model has positions for 4093\n"),
        (("--shape", "720p"), 2, "error: this bundle has no shape '720p'\nhint: it has: 64p, 96p-wide\n"),
        (("--steps", "0"), 2, "error: 0 sampling steps\nhint: ask for 1 to 1000 steps\n"),
        (("--steps", "1001"), 2, "error: 1001 sampling steps\nhint: ask for 1 to 1000 steps\n"),
        (("--steps", "two"), 2, "error: argument --steps: invalid int value: 'two'\nhint: python run.py --help\n"),
        (("--seed", "-1"), 2, "error: the seed is -1\nhint: give a whole number from 0 to 9223372036854775807\n"),
        (("--threads", "-2"), 2, "error: -2 threads\nhint: ask for 1 or more, or 0 for every core\n"),
        (("--prompt", "a" * 70_000), 2, "error: prompt has 70000 bytes, more than the 65536 allowed\n"),
        (
            ("--negative-prompt", "a" * 70_000),
            2,
            "error: negative_prompt has 70000 bytes, more than the 65536 allowed\n",
        ),
        (("--speed", "9"), 2, "error: unrecognized arguments: --speed 9\nhint: python run.py --help\n"),
        (
            ("--latents", "absent.npy"),
            66,
            "error: absent.npy: no such file\ncaused by: No such file or directory\n",
        ),
        (
            ("--prompt", "broken \udcff"),
            2,
            "error: the prompt is not valid Unicode\ncaused by: 'utf-8' codec can't encode "
            "character '\\udcff' in position 7: surrogates not allowed\n",
        ),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode()[:40] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said(
    tiny_bundle: Path,
    run_py: RunPy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = run_py(tiny_bundle, "--prompt", PROMPT, "-o", "out.mp4", *options)
    assert (finished.code, finished.out, finished.err) == (code, "", message)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("what", [("--prompt", PROMPT, "-o", "out.mp4"), ("--selftest",)], ids=["run", "selftest"])
def test_more_threads_than_there_are(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wanc.runtime.cores.available_cores", lambda: 4)
    finished = run_py(tiny_bundle, *what, "--threads", "100000")
    hint = "this machine has 4: ask for 1 to 4, or 0 for every core"
    assert (finished.code, finished.out, finished.err) == (2, "", f"error: 100000 threads\nhint: {hint}\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (
            np.zeros((1, 16, 2, 8, 9), np.float32),
            "error: the latents are float32 [1, 16, 2, 8, 9]; 64x64, 5 frames needs float32 [1, 16, 2, 8, 8]\n",
        ),
        (
            np.zeros((1, 16, 2, 8, 8), np.float64),
            "error: the latents are float64 [1, 16, 2, 8, 8]; 64x64, 5 frames needs float32 [1, 16, 2, 8, 8]\n",
        ),
        (np.full((1, 16, 2, 8, 8), np.nan, np.float32), "error: the latents hold values that are not finite\n"),
    ],
    ids=["shape", "dtype", "nan"],
)
def test_latents_that_do_not_fit_are_refused(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, latents: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "noise.npy", latents)
    finished = run_py(
        tiny_bundle, "--prompt", PROMPT, *SHORT, "--latents", tmp_path / "noise.npy", "-o", tmp_path / "out.mp4"
    )
    assert (finished.code, finished.out, finished.err) == (2, "", message)
    assert os.listdir(tmp_path) == ["noise.npy"]


def _save_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, noise=np.zeros(3, np.float32))


def _save_objects(path: Path) -> None:
    """A pickle, which is code: it must not even be looked into."""
    np.save(path, np.array([{}], object), allow_pickle=True)


@pytest.mark.parametrize(
    "save",
    [
        Path.touch,
        lambda path: path.write_bytes(b"noise"),
        lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
        _save_archive,
        _save_objects,
        Path.mkdir,
    ],
    ids=["empty", "text", "cut", "npz", "pickle", "folder"],
)
def test_a_file_that_holds_no_latents_is_refused(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, save: Callable[[Path], object]
) -> None:
    path = tmp_path / "noise.npy"
    save(path)
    finished = run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "--latents", path, "-o", tmp_path / "out.mp4")
    assert finished.code == 2
    assert finished.err.startswith(f"error: {path}: not a .npy file of latents\ncaused by: ")
    assert os.listdir(tmp_path) == ["noise.npy"]


def test_steps_cannot_be_chosen_where_timesteps_are_fixed(few_step: Variant, run_py: RunPy, tmp_path: Path) -> None:
    finished = run_py(few_step.root, "--prompt", PROMPT, "--steps", "4", "-o", tmp_path / "out.mp4")
    assert (finished.code, finished.err) == (
        2,
        "error: this bundle samples at fixed timesteps; the number of steps cannot be chosen\n"
        "hint: its timesteps are 1000, 750, 500, 250\n",
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "-o FILE is needed\nhint: python run.py --help"),
        (("--prompt", PROMPT), "-o FILE is needed\nhint: python run.py --help"),
        (("-o", "out.mp4"), "this bundle makes videos: give --prompt TEXT"),
        (
            ("--inputs", "in.npz", "-o", "out.mp4"),
            "--inputs does not apply: this bundle makes videos\nhint: give --prompt TEXT",
        ),
        (
            ("--inputs", "in.npz", "--prompt", PROMPT, "-o", "out.mp4"),
            "--inputs does not apply: this bundle makes videos",
        ),
    ],
    ids=["nothing", "prompt", "output", "inputs", "both"],
)
def test_what_a_video_is_asked_for_with(tiny_bundle: Path, run_py: RunPy, given: tuple[str, ...], message: str) -> None:
    finished = run_py(tiny_bundle, *given)
    assert (finished.code, finished.err) == (2, f"error: {message}\n")


def test_a_video_is_never_written_into_the_bundle(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cd bundle; python run.py … -o out.mp4` would break the seal, and with it the next run."""
    (tmp_path / "link").symlink_to(tiny_bundle / "golden")
    monkeypatch.chdir(tiny_bundle)
    before = sorted(tiny_bundle.rglob("*"))
    for output in ("out.mp4", tmp_path / "link" / "out.mp4", tiny_bundle / "new" / "out.mp4"):
        finished = run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "-o", output)
        assert (finished.code, finished.err) == (
            2,
            f"error: {output}: the output would lie inside the bundle, which is never written to\n"
            "hint: name a file elsewhere\n",
        )
    assert sorted(tiny_bundle.rglob("*")) == before


@pytest.mark.parametrize("output", ["", ".", "/"])
def test_an_output_without_a_name_is_refused(tiny_bundle: Path, run_py: RunPy, output: str) -> None:
    finished = run_py(tiny_bundle, "--prompt", PROMPT, "-o", output)
    assert (finished.code, finished.err) == (2, f"error: {Path(output)}: -o does not name a file\n")


def test_a_missing_folder_is_an_io_error(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    video = tmp_path / "absent" / "out.mp4"
    finished = run_py(tiny_bundle, "--prompt", PROMPT, *SHORT, "-o", video)
    assert (finished.code, finished.err) == (
        74,
        f"error: {video}: the video cannot be written\ncaused by: No such file or directory\n",
    )
