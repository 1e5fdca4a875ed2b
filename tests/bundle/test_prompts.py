"""Many prompts in one process: each gives the video that it would give alone, and what can be shared is done once."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from wanc.runtime import bundle as bundle_module
from wanc.runtime import session as session_module
from wanc.runtime.directory import BundleDirectory
from wanc.runtime.session import Session

from ..conftest import Wanc
from .conftest import RunPy

RED, BLUE = "A red circle moves to the left.", "一个蓝色的正方形向上移动。"
SHORT = ("--frames", "5", "--steps", "2", "--seed", "7")
LIST = f"# three, of which two are equal\n\n{RED}\n  {BLUE}\n{RED}\n"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(LIST, "utf-8")
    return path


def test_each_video_is_the_one_that_its_prompt_gives_alone(
    tiny_bundle: Path, run_py: RunPy, prompts: Path, tmp_path: Path
) -> None:
    finished = run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", tmp_path / "videos")
    assert (finished.code, finished.err) == (0, "")
    assert sorted(os.listdir(tmp_path / "videos")) == ["0001.mp4", "0002.mp4", "0003.mp4"]
    lines = finished.out.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        *(f"{tmp_path / 'videos'}/000{number}.mp4: 5 frames" for number in (1, 2, 3)),
        "3 videos",
    ]
    for number, prompt in enumerate((RED, BLUE, RED), 1):
        alone = tmp_path / "alone.mp4"
        assert run_py(tiny_bundle, "--prompt", prompt, *SHORT, "-o", alone).code == 0
        assert (tmp_path / "videos" / f"000{number}.mp4").read_bytes() == alone.read_bytes()


def test_json_has_an_object_for_each_video_and_totals(
    tiny_bundle: Path, run_py: RunPy, prompts: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    finished = run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", folder, "--json")
    assert (finished.code, finished.err) == (0, "")
    report = json.loads(finished.out)
    assert set(report) == {"videos", "seconds", "peak_rss_bytes", "counters"}
    described = [(entry["video"], entry["prompt"], entry["frames"]) for entry in report["videos"]]
    assert described == [(f"{folder}/000{n}.mp4", prompt, 5) for n, prompt in enumerate((RED, BLUE, RED), 1)]
    for phase in ("text", "denoise", "decode", "video"):
        parts = [entry["seconds"][phase] for entry in report["videos"]]
        assert report["seconds"][phase] == pytest.approx(sum(parts))
    assert set(report["seconds"]) == {"verify", "text", "denoise", "decode", "video"}
    assert report["peak_rss_bytes"] > 2**20
    # Two prompts that differ, and the negative one.
    assert report["counters"]["text_encoder/encode.executions"] == 3
    assert report["counters"]["vae_decoder/first.executions"] == 3
    assert (
        report["counters"]["denoiser_high/step.executions"] + report["counters"].get("denoiser_low/step.executions", 0)
        == 3 * 2 * 2
    )


def test_a_bundle_is_verified_once_and_its_engines_are_opened_once(
    tiny_bundle: Path, run_py: RunPy, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[Path] = []
    opened: Counter[str] = Counter()
    verify, open_backend = bundle_module.verified, session_module.open_backend

    def counting_verify(root: BundleDirectory, *arguments: Any) -> Any:
        verified.append(root.shown)
        return verify(root, *arguments)

    def counting_open(engine: str, path: Path, *arguments: Any) -> Any:
        opened["/".join(path.parts[-2:])] += 1
        return open_backend(engine, path, *arguments)

    monkeypatch.setattr(bundle_module, "verified", counting_verify)
    monkeypatch.setattr(session_module, "open_backend", counting_open)
    assert run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", tmp_path / "videos").code == 0
    assert verified == [tiny_bundle]
    assert len(opened) >= 4 and set(opened.values()) == {1}


def test_wanc_run_takes_a_list_as_well(tiny_bundle: Path, wanc: Wanc, prompts: Path, tmp_path: Path) -> None:
    finished = wanc("run", tiny_bundle, "--prompts", prompts, *SHORT, "-o", tmp_path / "videos", "--json")
    assert (finished.code, finished.err) == (0, "")
    assert [Path(entry["video"]).name for entry in json.loads(finished.out)["videos"]] == [
        "0001.mp4",
        "0002.mp4",
        "0003.mp4",
    ]


class _Failure(Exception):
    """Something that went wrong inside the engine."""


@pytest.mark.parametrize("fault", [_Failure, KeyboardInterrupt])
def test_what_is_finished_stays_when_a_later_one_fails(
    tiny_bundle: Path,
    run_py: RunPy,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[BaseException],
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "0002.mp4").write_bytes(b"an older video")
    run, decoded = Session.run, 0

    def failing(session: Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal decoded
        decoded += "/steady." in session.shown
        if decoded > 1:  # each video has one of these; the first may still be written
            raise fault
        return run(session, inputs)

    monkeypatch.setattr(Session, "run", failing)
    if fault is KeyboardInterrupt:
        finished = run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", folder)
        assert (finished.code, finished.out, finished.err) == (130, "", "interrupted\n")
    else:
        with pytest.raises(fault):
            run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", folder)
    assert sorted(os.listdir(folder)) == ["0001.mp4", "0002.mp4"]
    assert (folder / "0001.mp4").stat().st_size > 1000
    assert (folder / "0002.mp4").read_bytes() == b"an older video"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ("--prompt", RED, "--prompts", "prompts.txt"),
            2,
            "error: --prompt and --prompts exclude each other\nhint: give one of them\n",
        ),
        (("--prompts", "absent.txt"), 2, "error: absent.txt: there is no file absent.txt\nhint: check the path\n"),
        (
            ("--prompts", "empty.txt"),
            2,
            "error: empty.txt: it holds no prompt\nhint: write a prompt in each line\n",
        ),
        (
            ("--prompts", "latin.txt"),
            2,
            "error: latin.txt:1:4: the byte 0xe9 is not UTF-8 text\nhint: save it as UTF-8\n",
        ),
        (("--prompts", "prompts.txt", "--steps", "0"), 2, "error: 0 sampling steps\nhint: ask for 1 to 1000 steps\n"),
        (
            ("--prompts", "prompts.txt", "--shape", "720p"),
            2,
            "error: this bundle has no shape '720p'\nhint: it has: 64p, 96p-wide\n",
        ),
    ],
    ids=["both", "absent", "empty", "not UTF-8", "steps", "shape"],
)
def test_what_cannot_be_done_leaves_nothing_behind(
    tiny_bundle: Path,
    run_py: RunPy,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    finished = run_py(tiny_bundle, *options, "-o", "videos")
    assert (finished.code, finished.out, finished.err) == (code, "", message)
    assert sorted(os.listdir(tmp_path)) == before


def test_videos_are_never_written_into_the_bundle(tiny_bundle: Path, run_py: RunPy, prompts: Path) -> None:
    for folder in (tiny_bundle, tiny_bundle / "videos"):
        finished = run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", folder)
        assert (finished.code, finished.err) == (
            2,
            f"error: {folder}: the output would lie inside the bundle, which is never written to\n"
            "hint: name a folder elsewhere\n",
        )
    assert not (tiny_bundle / "videos").exists()


@pytest.mark.parametrize(("place", "cause"), [("prompts.txt", "File exists"), ("absent/videos", "No such file or")])
def test_a_folder_that_cannot_be_made_is_an_io_error(
    tiny_bundle: Path, run_py: RunPy, prompts: Path, tmp_path: Path, place: str, cause: str
) -> None:
    finished = run_py(tiny_bundle, "--prompts", prompts, *SHORT, "-o", tmp_path / place)
    assert finished.code == 74
    assert finished.err.startswith(
        f"error: {tmp_path / place}: the folder for the videos cannot be made\ncaused by: {cause}"
    )
    assert prompts.read_text("utf-8") == LIST
