"""Videos and strips of clips: what people see is what was made."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from wanc.report.media import GAIN, difference, strip, write_media

from .example import FRAMES, clip


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(64, 64, (256, 256)), (64, 96, (256, 384)), (63, 65, (316, 326)), (301, 303, (302, 304))],
)
def test_small_frames_are_enlarged_by_a_whole_factor(
    height: int, width: int, shown: tuple[int, int], tmp_path: Path
) -> None:
    frames = clip(1, height=height, width=width)
    media = write_media(tmp_path, "new-0", frames, 16)
    assert (media.video, media.strip) == ("media/new-0.mp4", "media/new-0.png")
    found = frames_of(tmp_path / media.video)
    assert found.shape == (FRAMES, *shown, 3)
    factor = max(1, -(-256 // min(height, width)))
    expected = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    apart = np.abs(found[:, : height * factor, : width * factor].astype(int) - expected)
    assert apart.mean() < 3, "no more than H.264 takes"


def test_a_strip_has_the_reference_the_bundle_and_their_difference() -> None:
    reference, frames = clip(0), clip(0)
    frames[-1, 10, 20] = reference[-1, 10, 20] ^ 4
    picture = strip(frames, reference)
    rows = np.split(picture, 3)
    assert rows[0].shape == (128, 9 * 128, 3), "nine of 17 frames, each twice as large"
    assert (rows[0][::2, ::2] == np.concatenate(list(reference[::2]), axis=1)).all()
    assert (rows[1][::2, ::2] == np.concatenate(list(frames[::2]), axis=1)).all()
    apart = np.argwhere(rows[2][::2, ::2, 0])
    assert apart.tolist() == [[10, 8 * 64 + 20]] and rows[2].max() == 4 * GAIN


def test_a_difference_ends_where_a_byte_does() -> None:
    dark, light = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 200, np.uint8)
    assert (difference(dark, light) == 255).all() and (difference(light, dark) == 255).all()
    assert (difference(dark, dark + 3) == 24).all()


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (2, 2), (9, 9), (81, 9)])
def test_a_strip_has_at_most_nine_frames(count: int, shown: int) -> None:
    frames = np.zeros((count, 32, 32, 3), np.uint8)
    frames[:, :, :, 0] = np.arange(count)[:, None, None]
    picture = strip(frames)
    assert picture.shape[1] == shown * 160
    assert picture[0, 0, 0] == 0 and picture[0, -1, 0] == count - 1, "the first and the last are among them"


def test_large_frames_are_made_smaller_in_a_strip(tmp_path: Path) -> None:
    frames = np.full((3, 480, 832, 3), 77, np.uint8)
    media = write_media(tmp_path, "large", frames, 16, frames)
    with av.open(str(tmp_path / media.strip)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape == (3 * 160, 3 * 277, 3)
    assert (picture[:320] == 77).all() and (picture[320:] == 0).all()
    assert frames_of(tmp_path / media.video).shape == (3, 480, 832, 3)


def test_the_same_frames_are_the_same_files(tmp_path: Path) -> None:
    frames = clip(1, 2.0)
    media = [write_media(tmp_path / name, "a", frames, 16, clip(1)) for name in "xy"]
    assert media[0] == media[1]
    for name in (media[0].video, media[0].strip):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
