"""Videos written and read back with PyAV."""

from __future__ import annotations

import fcntl
import io
import os
import resource
import select
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

from wanc.runtime import mp4
from wanc.runtime.errors import EXIT_IO, UserError
from wanc.runtime.video import create_video

TAGS = {"prompt": "一只猫 & a dog;\n#2 = 'x'", "seed": "7", "bundle": "sha256:" + "0" * 64}


def moving_gradient(frames: int, height: int, width: int) -> np.ndarray:
    """Smooth in space and time, so that compression loses little."""
    row, column = np.meshgrid(np.linspace(0, 200, height), np.linspace(0, 200, width), indexing="ij")
    return np.stack([np.stack([row + 2 * time, column, 128 + 0 * row], -1) for time in range(frames)]).astype(np.uint8)


def read_back(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write_video(path: Path, frames: np.ndarray, fps: int = 16, metadata: dict[str, str] | None = None) -> None:
    with create_video(path, height=frames.shape[1], width=frames.shape[2], fps=fps, metadata=metadata) as video:
        video.write(frames)


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    frames = moving_gradient(9, 48, 64)
    write_video(tmp_path / "clip.mp4", frames)
    decoded = read_back(tmp_path / "clip.mp4")
    assert decoded.shape == frames.shape
    # Chroma at half resolution and CRF 17 cost about 2 levels here; a neighbour in time is 2 levels of red further.
    assert np.abs(decoded.astype(int) - frames).mean() < 3
    red = decoded[..., 0].mean(axis=(1, 2))
    assert np.all(np.diff(red) > 1)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)])
def test_colours_are_kept_and_tagged_as_bt709(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    """The wrong matrix, BT.601, is off by up to 30 levels on primaries; 8-bit YCbCr rounds by up to 3."""
    write_video(tmp_path / "clip.mp4", np.full((2, 32, 32, 3), colour, np.uint8))
    assert np.abs(read_back(tmp_path / "clip.mp4").astype(int) - colour).max() <= 3
    with av.open(str(tmp_path / "clip.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (1, 1, 1, 1)


def test_the_stream_is_what_players_expect(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_gradient(24, 32, 32), fps=24)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.frames) == (24, 24)
        assert container.duration == av.time_base
    content = (tmp_path / "clip.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # playable before it is all there


def test_chunks_and_single_frames_give_the_same_file(tmp_path: Path) -> None:
    frames = moving_gradient(9, 32, 48)
    write_video(tmp_path / "whole.mp4", frames)
    with create_video(tmp_path / "parts.mp4", height=32, width=48, fps=16) as video:
        video.write(frames[0])
        video.write(frames[1:5])
        video.write(frames[5:5])
        video.write(frames[5:])
    assert (tmp_path / "parts.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, metadata=TAGS)
    write_video(tmp_path / "b.mp4", frames, metadata=TAGS)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


WRITE = """
import sys
import numpy as np
from wanc.runtime.video import create_video
frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
with create_video(__import__("pathlib").Path(sys.argv[1]), height=64, width=64, fps=16, metadata={}) as video:
    video.write(frames)
"""


def test_the_bytes_do_not_depend_on_what_memory_held_before(tmp_path: Path) -> None:
    """glibc fills what it hands out with a value of ours: what is read without being written shows."""
    found = set()
    for value in ("0", "1", "85"):
        path = tmp_path / f"{value}.mp4"
        environment = {**os.environ, "MALLOC_PERTURB_": value}
        subprocess.run([sys.executable, "-c", WRITE, path], env=environment, check=True)
        found.add(path.read_bytes())
    assert len(found) == 1


def test_the_bytes_do_not_depend_on_the_number_of_cores(tmp_path: Path) -> None:
    """x264 notes its settings in the stream. On small frames it takes one thread in any case."""
    write_video(tmp_path / "clip.mp4", np.zeros((2, 512, 512, 3), np.uint8))
    assert b" threads=1 " in (tmp_path / "clip.mp4").read_bytes()


def test_metadata_is_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_gradient(1, 16, 16), metadata=TAGS)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert TAGS.items() <= container.metadata.items()
        assert not {"creation_time", "encoder"} & set(container.metadata)


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 65), (47, 65)])
def test_odd_sizes_gain_a_repeated_line(tmp_path: Path, height: int, width: int) -> None:
    frames = moving_gradient(3, height, width)
    write_video(tmp_path / "clip.mp4", frames)
    decoded = read_back(tmp_path / "clip.mp4").astype(int)
    assert decoded.shape == (3, height + height % 2, width + width % 2, 3)
    assert np.abs(decoded[:, :height, :width] - frames).mean() < 3
    assert np.abs(decoded[:, -1] - decoded[:, height - 1]).mean() < 8
    assert np.abs(decoded[:, :, -1] - decoded[:, :, width - 1]).mean() < 8


def test_nothing_appears_before_the_end_and_nothing_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the old one")
    with pytest.raises(KeyError), create_video(path, height=16, width=16, fps=16) as video:
        video.write(moving_gradient(3, 16, 16))
        assert path.read_bytes() == b"the old one"
        raise KeyError
    assert path.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["clip.mp4"]
    write_video(path, moving_gradient(3, 16, 16))
    assert len(read_back(path)) == 3
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_the_file_has_ordinary_permissions(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_gradient(1, 16, 16))
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "clip.mp4").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def assert_io_error(path: Path, cause: str) -> None:
    with pytest.raises(UserError, match="the video cannot be written") as caught:
        write_video(path, moving_gradient(2, 16, 16))
    assert (caught.value.exit_code, caught.value.where) == (EXIT_IO, str(path))
    assert cause in str(caught.value.__cause__)


def test_a_missing_folder_is_a_user_error(tmp_path: Path) -> None:
    assert_io_error(tmp_path / "absent" / "clip.mp4", "No such file or directory")


def test_a_folder_that_is_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_io_error(tmp_path / "file" / "clip.mp4", "Not a directory")


def test_a_target_that_is_a_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()
    assert_io_error(tmp_path / "clip.mp4", "Is a directory")
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_a_folder_without_write_permission_is_a_user_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("root may write anywhere")
    assert_io_error(tmp_path / "clip.mp4", "Permission denied")


def test_a_full_disk_is_a_user_error_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands in for the full disk: the write fails in FFmpeg, not in Python."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match="the video cannot be written") as caught:
            write_video(tmp_path / "clip.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == EXIT_IO
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((16, 16, 3), np.float32),
        np.zeros((16, 17, 3), np.uint8),
        np.zeros((16, 16), np.uint8),
        np.zeros((2, 16, 16, 4), np.uint8),
    ],
    ids=["float", "size", "grey", "alpha"],
)
def test_frames_of_another_kind_are_a_bug(tmp_path: Path, frames: np.ndarray) -> None:
    with (
        pytest.raises(ValueError, match="for a video of"),
        create_video(tmp_path / "clip.mp4", height=16, width=16, fps=16) as video,
    ):
        video.write(frames)
    assert os.listdir(tmp_path) == []


def test_a_full_pipe_that_does_not_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a parent may have made it; without, each try would be made again at once."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    is_full, waits, wait = Event(), 0, select.select

    def waited(*descriptors: Any) -> Any:
        nonlocal waits
        waits += 1
        is_full.set()
        return wait(*descriptors, 60)

    def read() -> bytes:
        assert is_full.wait(60)
        with open(reading, "rb") as pipe:
            return pipe.read()

    monkeypatch.setattr(mp4.select, "select", waited)
    frames = np.random.default_rng(3).integers(0, 255, (9, 64, 64, 3), np.uint8)
    with ThreadPoolExecutor(1) as pool, open(writing, "wb", buffering=0) as file:
        video = pool.submit(read)
        writer = mp4.Mp4Writer(file, 64, 64, 16, {}, in_fragments=True)
        writer.write(frames)
        writer.finish()
        file.close()
        with av.open(io.BytesIO(video.result(60))) as container:
            assert sum(1 for _ in container.decode(video=0)) == 9
    assert 1 <= waits < 1000
