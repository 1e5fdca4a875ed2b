"""Videos that are of use while they grow: on standard output, or in a partial file that stays if the run ends early."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import pytest
from av.error import FFmpegError

from wanc.runtime import mp4
from wanc.runtime.video_task import run_video

from .conftest import RunPy
from .test_endings import AS_AT_A_TERMINAL

PROMPT = "A red circle moves to the left."
FRAMES = 25
ASKED = ("--prompt", PROMPT, "--seed", "7", "--frames", str(FRAMES), "--threads", "1")
PARTIAL = "out.partial.mp4"
WRITES, WRITTEN = 4, 1 + 3 * 4
"""So many times latent frames were decoded and written when something happens, and frames: the first gives one."""


def command(bundle: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(bundle / "run.py"), *map(str, arguments)]


def scripted(script: str, bundle: Path, *arguments: object) -> list[str]:
    """A run in a process that does something to itself: it is told `sys.argv[2]` what."""
    return [sys.executable, "-c", AS_AT_A_TERMINAL + script + RUN, str(bundle), *map(str, arguments)]


RUN = """
from runtime.main import main

raise SystemExit(main(Path(sys.argv[1]), sys.argv[3:]))
"""


def played(video: bytes) -> int:
    """How many frames a player shows, up to where the file ends."""
    frames = 0
    try:
        with av.open(io.BytesIO(video)) as container:
            for _ in container.decode(video=0):
                frames += 1
    except FFmpegError:  # in the middle of a frame
        pass
    return frames


@pytest.fixture(scope="module")
def streamed(causal_bundle: Path) -> bytes:
    """A whole video, as standard output gets it."""
    finished = subprocess.run(
        command(causal_bundle, *ASKED, "--stream", "-o", "-"), capture_output=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


# Standard output

HELD = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runtime.session import Session

run, steps = Session.run, 0

def held(session, inputs):
    global steps
    if "denoiser_high/step." in session.shown:
        steps += 1
        if steps == int(sys.argv[2]):
            sys.stdin.buffer.read(1)  # until somebody has seen the first frame
    return run(session, inputs)

Session.run = held
"""
"""Denoising waits at a step of a later chunk for a byte on standard input."""
STEPS_OF_A_CHUNK = 2 * 2
"""Of the high-noise expert: a noisy pass and a clean one, of two branches each."""


def test_a_chunk_can_be_watched_while_later_ones_are_made(causal_bundle: Path, streamed: bytes) -> None:
    later = 4 * STEPS_OF_A_CHUNK + 1
    run = scripted(HELD, causal_bundle, later, *ASKED, "--stream", "-o", "-")
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        video = b""
        while not played(video):
            assert select.select([process.stdout], [], [], 60)[0], "nothing comes"
            arrived = os.read(process.stdout.fileno(), 2**16)
            assert arrived, "it has ended"
            video += arrived
        assert process.poll() is None and played(video) < FRAMES
        rest, errors = process.communicate(b".", timeout=60)
    assert (process.returncode, video + rest) == (0, streamed), errors
    assert played(streamed) == FRAMES


def test_a_model_that_makes_a_video_at_once_is_streamed_as_well(tiny_bundle: Path) -> None:
    options = ["--prompt", PROMPT, "--frames", "5", "--steps", "1", "--stream", "-o", "-"]
    finished = subprocess.run(command(tiny_bundle, *options), capture_output=True, timeout=60, check=False)
    assert (finished.returncode, played(finished.stdout)) == (0, 5), finished.stderr


def test_a_reader_that_goes_away_ends_the_run(causal_bundle: Path) -> None:
    run = scripted(HELD, causal_bundle, 4 * STEPS_OF_A_CHUNK + 1, *ASKED, "--stream", "-o", "-")
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 2**16)
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(b".", timeout=60)
    assert process.returncode == 74
    assert errors == b"error: -: the video cannot be written\ncaused by: Broken pipe\n"


# A partial file

STRUCK_WRITING = f"""
import os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from runtime.mp4 import Mp4Writer

write, writes = Mp4Writer.write, 0

def struck(writer, frames):
    global writes
    write(writer, frames)
    writes += 1
    if writes == {WRITES}:
        os.kill(os.getpid(), int(sys.argv[2]))

Mp4Writer.write = struck
"""
"""The process strikes itself when a part of the video is written, with the signal of this number."""


def struck(bundle: Path, path: Path, strike: signal.Signals, *options: str) -> int:
    run = scripted(STRUCK_WRITING, bundle, int(strike), *ASKED, *options, "-o", path)
    return subprocess.run(run, capture_output=True, timeout=60, check=False).returncode


def test_it_is_renamed_when_it_is_complete(causal_bundle: Path, run_py: RunPy, streamed: bytes, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"an older video")
    (tmp_path / PARTIAL).write_bytes(b"what an earlier run has left")
    assert run_py(causal_bundle, *ASKED, "--keep-partial", "-o", tmp_path / "out.mp4").code == 0
    assert os.listdir(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == streamed


@pytest.mark.parametrize("strike", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_stays_where_a_run_is_ended(
    causal_bundle: Path, streamed: bytes, tmp_path: Path, strike: signal.Signals
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"an older video")
    code = struck(causal_bundle, tmp_path / "out.mp4", strike, "--keep-partial")
    assert code == (-strike if strike == signal.SIGKILL else 128 + strike)
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", PARTIAL]
    assert (tmp_path / "out.mp4").read_bytes() == b"an older video"
    # The last frame is written when the next one is there, or the file is closed.
    assert played((tmp_path / PARTIAL).read_bytes()) in ((WRITTEN - 1,) if code < 0 else (WRITTEN - 1, WRITTEN))


@pytest.mark.parametrize("strike", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_stays_unless_it_is_asked_for(causal_bundle: Path, tmp_path: Path, strike: signal.Signals) -> None:
    assert struck(causal_bundle, tmp_path / "out.mp4", strike) != 0
    left = os.listdir(tmp_path)
    if strike == signal.SIGKILL:
        assert len(left) == 1 and left[0].endswith(".part"), "the next run to the folder removes it"
    else:
        assert left == []


@pytest.mark.parametrize("keep", [True, False], ids=["partial", "whole"])
def test_it_stays_where_a_caller_is_interrupted(
    causal_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    write, writes = mp4.Mp4Writer.write, 0

    def interrupted(writer: mp4.Mp4Writer, frames: object) -> None:
        nonlocal writes
        write(writer, frames)  # type: ignore[arg-type]
        writes += 1
        if writes == WRITES:
            raise KeyboardInterrupt

    monkeypatch.setattr(mp4.Mp4Writer, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_video(
            causal_bundle, tmp_path / "out.mp4", prompt=PROMPT, seed=7, frames=FRAMES, threads=1, keep_partial=keep
        )
    assert os.listdir(tmp_path) == ([PARTIAL] if keep else [])
    if keep:
        assert played((tmp_path / PARTIAL).read_bytes()) >= WRITTEN - 1


FULL = """
import resource, sys
from pathlib import Path

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
sys.path.insert(0, sys.argv[1])
"""
"""No file may be larger, as on a disk that is full."""


@pytest.mark.parametrize("options", [("--keep-partial",), ()], ids=["partial", "whole"])
def test_a_disk_that_gets_full(causal_bundle: Path, streamed: bytes, tmp_path: Path, options: Sequence[str]) -> None:
    room, path = len(streamed) // 2, tmp_path / "out.mp4"
    run = scripted(FULL, causal_bundle, room, *ASKED, *options, "-o", path)
    finished = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    grown = tmp_path / PARTIAL
    assert (finished.returncode, finished.stderr) == (
        74,
        f"error: {path}: the video cannot be written\ncaused by: File too large\n",
    )
    assert os.listdir(tmp_path) == ([PARTIAL] if options else [])
    if options:
        assert grown.read_bytes() == streamed[:room]
        assert 4 < played(grown.read_bytes()) < FRAMES


# What cannot be


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--stream", "-o", "out.mp4"), "out.mp4: --stream writes to standard output alone", "write `-o -`, or take"),
        (("--stream", "--keep-partial", "-o", "-"), "--stream and --keep-partial exclude each other", "give one"),
        (("--keep-partial", "-o", "-"), "-: --keep-partial is for an .mp4", "name it out.mp4"),
        (("--keep-partial", "-o", "out.npz"), "out.npz: --keep-partial is for an .mp4", "name it out.mp4"),
        (("--keep-partial", "-o", "out.png"), "out.png: --keep-partial is for an .mp4", "name it out.mp4"),
    ],
)
def test_what_does_not_go_together(
    causal_bundle: Path,
    run_py: RunPy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unworked: None,
    options: Sequence[str],
    message: str,
    hint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    finished = run_py(causal_bundle, "--prompt", PROMPT, *options)
    assert (finished.code, finished.out) == (2, "")
    assert finished.err.startswith(f"error: {message}\nhint: {hint}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["--stream", "--keep-partial"])
def test_a_list_of_prompts_has_whole_files(
    causal_bundle: Path, run_py: RunPy, tmp_path: Path, unworked: None, option: str
) -> None:
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    finished = run_py(causal_bundle, "--prompts", tmp_path / "prompts.txt", option, "-o", tmp_path / "videos")
    assert (finished.code, finished.err) == (
        2,
        f"error: {option} is for a single video\nhint: give --prompt in place of --prompts\n",
    )
    assert os.listdir(tmp_path) == ["prompts.txt"]


def test_no_video_is_streamed_to_a_terminal(causal_bundle: Path) -> None:
    ours, terminal = pty.openpty()
    finished = subprocess.run(
        command(causal_bundle, *ASKED, "--stream", "-o", "-"), stdout=terminal, stderr=-1, timeout=60, check=False
    )
    os.close(terminal)
    os.close(ours)
    assert finished.returncode == 2
    assert b"error: the video would be written to a terminal\nhint: redirect standard output, or name a file\n" in (
        finished.stderr
    )


def test_what_already_lies_where_it_would_grow(
    causal_bundle: Path, run_py: RunPy, tmp_path: Path, unworked: None
) -> None:
    """It is refused before the work."""
    (tmp_path / PARTIAL).mkdir()
    finished = run_py(causal_bundle, *ASKED, "--keep-partial", "-o", tmp_path / "out.mp4")
    assert (finished.code, finished.err) == (
        74,
        f"error: {tmp_path / PARTIAL}: the video cannot be written\ncaused by: Is a directory\n",
    )
