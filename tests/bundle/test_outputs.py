"""What a run writes: where, as what, and what is left when it does not come to its end."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

import wanc as package
from wanc.errors import UserError
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.request import Result

from ..conftest import ROOT, Wanc
from ..in_the_way import IN_THE_WAY, needs_root
from .conftest import RunPy
from .test_runtime import STRUCK
from .test_standalone import WITHOUT_PRIVILEGE

PROMPT = "A red circle moves to the left."
ONE = ("--prompt", PROMPT, "--frames", "1", "--steps", "1", "--seed", "7")
SHORT = ("--prompt", PROMPT, "--frames", "5", "--steps", "2", "--seed", "7")
SUFFIXES = (".mp4", ".png", ".npz")


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return package.open(tiny_bundle)


@pytest.fixture(scope="module")
def picture(pipeline: Pipeline) -> Result:
    return pipeline.generate(PROMPT, frames=1, steps=1, seed=7)


def command(bundle: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(bundle / "run.py"), *map(str, arguments)]


def read_texts(png: bytes) -> dict[str, str]:
    """The iTXt chunks of a picture, whose checksums are looked at."""
    texts: dict[str, str] = {}
    position = 8
    while position < len(png):
        (size,) = struct.unpack_from(">I", png, position)
        kind, data = png[position + 4 : position + 8], png[position + 8 : position + 8 + size]
        assert struct.unpack_from(">I", png, position + 8 + size)[0] == zlib.crc32(kind + data)
        if kind == b"iTXt":
            name, _, rest = data.partition(b"\0")
            assert rest[:4] == b"\0\0\0\0"
            texts[name.decode()] = rest[4:].decode()
        position += 12 + size
    return texts


# What is in the way


@pytest.mark.parametrize("suffix", [".mp4", ""], ids=["mp4", "none"])
@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_in_the_way_is_refused_before_the_work(
    tiny_bundle: Path,
    run_py: RunPy,
    wanc: Wanc,
    picture: Result,
    tmp_path: Path,
    kind: str,
    suffix: str,
    unworked: None,
) -> None:
    path = tmp_path / f"out{suffix}"
    words = IN_THE_WAY[kind](path)
    before = sorted((name, os.lstat(tmp_path / name).st_ino) for name in os.listdir(tmp_path))
    for finished in (run_py(tiny_bundle, *ONE, "-o", path), wanc("run", tiny_bundle, *ONE, "-o", path)):
        assert (finished.code, finished.out) == (74, "")
        assert finished.err.startswith(f"error: {path}: ") and words in finished.err
    with pytest.raises(UserError) as caught:
        picture.save(path)
    assert caught.value.exit_code == 74
    assert sorted((name, os.lstat(tmp_path / name).st_ino) for name in os.listdir(tmp_path)) == before


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_in_a_folder_of_videos_as_well(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, kind: str, unworked: None
) -> None:
    prompts, folder = tmp_path / "prompts.txt", tmp_path / "videos"
    prompts.write_text("a\nb\nc\n")
    folder.mkdir()
    words = IN_THE_WAY[kind](folder / "0003.mp4")
    before = sorted(os.listdir(folder))
    finished = run_py(tiny_bundle, "--prompts", prompts, "-o", folder)
    assert finished.code == 74
    assert finished.err.startswith(f"error: {folder / '0003.mp4'}: ") and words in finished.err
    assert sorted(os.listdir(folder)) == before


def test_a_fifo_and_a_device_survive_a_real_run(tiny_bundle: Path, tmp_path: Path) -> None:
    for kind in ("fifo", "device") if "device" in IN_THE_WAY else ("fifo",):
        path = tmp_path / f"{kind}.mp4"
        words = IN_THE_WAY[kind](path)
        before = path.lstat()
        finished = subprocess.run(
            command(tiny_bundle, *ONE, "-o", path), capture_output=True, text=True, timeout=60, check=False
        )
        assert (finished.returncode, finished.stdout) == (74, "")
        assert words in finished.stderr and "Traceback" not in finished.stderr
        assert (path.lstat().st_mode, path.lstat().st_rdev) == (before.st_mode, before.st_rdev)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("absent/out.mp4", "No such file or directory"),
        ("file/out.mp4", "Not a directory"),
        ("round/out.mp4", "Too many levels of symbolic links"),
        (f"{'x' * 252}.mp4", "File name too long"),
    ],
    ids=["absent", "file", "round", "long"],
)
def test_where_no_file_can_be_is_said_before_the_work(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, name: str, cause: str, unworked: None
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to("round")
    finished = run_py(tiny_bundle, *ONE, "-o", tmp_path / name)
    assert (finished.code, finished.err) == (
        74,
        f"error: {tmp_path / name}: the video cannot be written\ncaused by: {cause}\n",
    )
    assert sorted(os.listdir(tmp_path)) == ["file", "round"]


def test_a_folder_that_may_not_be_written_to(tiny_bundle: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_PRIVILEGE, *command(tiny_bundle, *ONE, "-o", tmp_path / "out.mp4")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    tmp_path.chmod(0o755)
    assert (finished.returncode, finished.stderr) == (
        74,
        f"error: {tmp_path / 'out.mp4'}: the video cannot be written\ncaused by: Permission denied\n",
    )


def test_a_folder_that_is_a_link_is_ordinary(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "prompts.txt").write_text("a\n")
    assert run_py(tiny_bundle, *ONE, "-o", tmp_path / "link" / "out.png").code == 0
    few = ("--frames", "1", "--steps", "1")
    assert run_py(tiny_bundle, "--prompts", tmp_path / "prompts.txt", *few, "-o", tmp_path / "link").code == 0
    assert sorted(os.listdir(tmp_path / "real")) == ["0001.mp4", "out.png"]


@needs_root
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_gets_full_in_the_middle(tiny_bundle: Path, run_py: RunPy, tmp_path: Path, suffix: str) -> None:
    """At every size, down to nothing: there is the whole file or what was there before, and no half one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    outcomes: list[int] = []
    for size in (0, 1, 2, 3, 4, 6, 16):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * (size + 1)}k,nr_inodes=8", "none", disk], check=True)
        try:
            path = disk / f"out{suffix}"
            path.write_bytes(b"old")
            finished = run_py(tiny_bundle, *ONE, "-o", path)
            outcomes.append(finished.code)
            assert os.listdir(disk) == [path.name]
            if finished.code:
                assert (finished.code, path.read_bytes()) == (74, b"old")
                assert finished.err == (
                    f"error: {path}: the video cannot be written\ncaused by: No space left on device\n"
                )
            else:
                whole = path.read_bytes()
        finally:
            subprocess.run(["umount", disk], check=True)
    assert outcomes[0] == 74 and outcomes[-1] == 0
    (tmp_path / f"whole{suffix}").write_bytes(whole)
    assert run_py(tiny_bundle, *ONE, "-o", tmp_path / f"again{suffix}").code == 0
    assert (tmp_path / f"again{suffix}").read_bytes() == whole


def test_no_file_takes_the_place_of_a_closed_stream(tiny_bundle: Path, picture: Result, tmp_path: Path) -> None:
    """What is printed would end up in it."""

    def run(closed: str, output: object) -> subprocess.CompletedProcess[bytes]:
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
        return subprocess.run(
            [*shell, *command(tiny_bundle, *ONE, "-o", output)], capture_output=True, timeout=60, check=False
        )

    picture.save(tmp_path / "plain.mp4")
    plain = (tmp_path / "plain.mp4").read_bytes()
    for closed in ("<&- >&- 2>&-", "2>&-", ">&-"):
        for output in (tmp_path / "out.mp4", "-"):
            assert run(closed, output).returncode == 74
    assert os.listdir(tmp_path) == ["plain.mp4"]
    assert run("<&-", tmp_path / "out.mp4").returncode == 0
    assert (tmp_path / "out.mp4").read_bytes() == plain


# What it is written as


def test_a_picture_holds_the_frame_and_the_tags(
    tiny_bundle: Path, run_py: RunPy, picture: Result, tmp_path: Path
) -> None:
    path = tmp_path / "out.PNG"
    assert run_py(tiny_bundle, *ONE, "-o", path).code == 0
    with av.open(str(path)) as container:
        (frame,) = container.decode(video=0)
    np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), picture.frames[0])
    assert read_texts(path.read_bytes()) == dict(picture.tags)
    picture.save(tmp_path / "saved.png")
    assert (tmp_path / "saved.png").read_bytes() == path.read_bytes()


def test_an_array_holds_the_frames(tiny_bundle: Path, pipeline: Pipeline, run_py: RunPy, tmp_path: Path) -> None:
    result = pipeline.generate(PROMPT, frames=5, steps=2, seed=7)
    assert run_py(tiny_bundle, *SHORT, "-o", tmp_path / "out.npz").code == 0
    with np.load(tmp_path / "out.npz") as file:
        assert file.files == ["frames"]
        np.testing.assert_array_equal(file["frames"], result.frames)
        assert file["frames"].dtype == np.uint8
    result.save(tmp_path / "saved.npz")
    assert (tmp_path / "saved.npz").read_bytes() == (tmp_path / "out.npz").read_bytes()


@pytest.mark.parametrize(
    ("name", "found", "hint"),
    [
        ("x.gif", "nothing is written as .gif", "x.mp4"),
        ("x.webm", "nothing is written as .webm", "x.mp4"),
        ("x.JPG", "nothing is written as .JPG", "x.mp4"),
        ("y", "the name has no suffix", "y.mp4"),
        (".mp4", "the name has no suffix", ".mp4.mp4"),
        ("a.mp4.part", "nothing is written as .part", "a.mp4.mp4"),
    ],
)
def test_a_suffix_means_something(
    tiny_bundle: Path, run_py: RunPy, picture: Result, tmp_path: Path, name: str, found: str, hint: str, unworked: None
) -> None:
    path = tmp_path / name
    message = (
        f"{found}; what can be written here: .mp4 (a video), .png (a picture, of a single frame), "
        ".npz (the array `frames`)"
    )
    finished = run_py(tiny_bundle, *ONE, "-o", path)
    assert (finished.code, finished.err) == (2, f"error: {path}: {message}\nhint: name it {hint}\n")
    with pytest.raises(UserError) as caught:
        picture.save(str(path))
    assert (caught.value.message, caught.value.where) == (message, str(path))
    assert os.listdir(tmp_path) == []


def test_a_picture_has_one_frame(tiny_bundle: Path, pipeline: Pipeline, run_py: RunPy, tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    for options, count in ((SHORT, 5), (("--prompt", PROMPT, "--steps", "1"), 17)):
        finished = run_py(tiny_bundle, *options, "-o", path)
        assert (finished.code, finished.err) == (
            2,
            f"error: {path}: a .png is one picture, and this video has {count} frames\n"
            "hint: ask for a single one: --frames 1, or name it out.mp4\n",
        )
    with pytest.raises(UserError, match="this video has 5 frames"):
        pipeline.generate(PROMPT, frames=5, steps=1).save(path)
    assert os.listdir(tmp_path) == []


# Standard output


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_standard_output_gets_the_file_and_nothing_else(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path, as_json: bool
) -> None:
    assert run_py(tiny_bundle, *SHORT, "-o", tmp_path / "out.mp4").code == 0
    options = [*SHORT, "-o", "-", *(["--json"] if as_json else [])]
    finished = subprocess.run(
        command(tiny_bundle, *options), capture_output=True, cwd=tmp_path, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == (tmp_path / "out.mp4").read_bytes()
    report = finished.stderr.decode()
    if as_json:
        assert json.loads(report)["video"] == "-"
    else:
        assert report.startswith("-: 5 frames (verify ")
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_list_of_prompts_needs_a_folder(tiny_bundle: Path, run_py: RunPy, tmp_path: Path, unworked: None) -> None:
    (tmp_path / "prompts.txt").write_text("a\n")
    finished = run_py(tiny_bundle, "--prompts", tmp_path / "prompts.txt", "-o", "-")
    assert (finished.code, finished.err) == (
        2,
        "error: the videos of --prompts go into a folder, not to standard output\nhint: name a folder\n",
    )


def test_nobody_reads_standard_output(tiny_bundle: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    message = "error: stdout is a pipe that nobody reads: let it lead somewhere, if only to /dev/null\n"
    for output in ("-", tmp_path / "out.png"):
        finished = subprocess.run(
            command(tiny_bundle, *ONE, "-o", output), stdout=writing, stderr=-1, text=True, timeout=60, check=False
        )
        assert (finished.returncode, finished.stderr) == (74, message)
    os.close(writing)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("verb", [("recipe", "schema"), ("recipe", "check", ROOT / "recipes" / "tiny-wan.yaml")])
def test_what_any_verb_prints_has_to_arrive(verb: tuple[str, ...]) -> None:
    """More than a buffer holds, and less."""
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [sys.executable, "-m", "wanc", *verb], cwd=ROOT, stdout=full, stderr=-1, text=True, check=False
        )
    assert (finished.returncode, finished.stderr) == (
        74,
        "error: stdout is a device that is full: let it lead somewhere, if only to /dev/null\n",
    )


# Who writes is killed


def struck(bundle: Path, path: Path, strike: signal.Signals, *options: str) -> int:
    script = [sys.executable, "-c", STRUCK, str(bundle), str(path), str(int(strike)), *options]
    return subprocess.run(script, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_nothing_behind(tiny_bundle: Path, tmp_path: Path, strike: signal.Signals, suffix: str) -> None:
    options = ONE if suffix == ".png" else SHORT
    assert struck(tiny_bundle, tmp_path / f"out{suffix}", strike, *options) == 128 + strike
    assert os.listdir(tmp_path) == []


def test_what_a_kill_leaves_is_removed_by_the_next_run_to_the_folder(
    tiny_bundle: Path, run_py: RunPy, tmp_path: Path
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"an older video")
    (tmp_path / ".film.part").write_bytes(b"somebody's")
    assert struck(tiny_bundle, tmp_path / "out.mp4", signal.SIGKILL, *SHORT) == -signal.SIGKILL
    left = set(os.listdir(tmp_path)) - {"out.mp4", ".film.part"}
    assert len(left) == 1, "there is something to remove"
    assert (tmp_path / "out.mp4").read_bytes() == b"an older video"
    assert run_py(tiny_bundle, *ONE, "-o", tmp_path / "other.png").code == 0
    assert sorted(os.listdir(tmp_path)) == [".film.part", "other.png", "out.mp4"]


def test_a_run_that_goes_on_loses_nothing_to_another(tiny_bundle: Path, run_py: RunPy, tmp_path: Path) -> None:
    """One run is stopped in the middle while another one writes into its folder; then it goes on."""
    script = [sys.executable, "-c", STRUCK, tiny_bundle, tmp_path / "out.mp4", str(int(signal.SIGSTOP)), *SHORT]
    with subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as slow:
        _, status = os.waitpid(slow.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert run_py(tiny_bundle, *ONE, "-o", tmp_path / "other.png").code == 0
        slow.send_signal(signal.SIGCONT)
        _, errors = slow.communicate(timeout=60)
    assert (slow.returncode, errors) == (0, b"")
    assert sorted(os.listdir(tmp_path)) == ["other.png", "out.mp4"]
    assert run_py(tiny_bundle, *SHORT, "-o", tmp_path / "again.mp4").code == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes()
