"""Latents → frames, one latent frame at a time: memory does not grow with the length of the video.

Where a whole picture is too large for memory, it is decoded in tiles: each of them through all latent frames, with
caches of its own, and what is seen of it waits in a scratch file for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import TargetError
from .executor import Executor
from .interface import Interface, carried
from .model import DECODER, Model
from .pool import Empty, copied
from .scratch import Scratch
from .tiling import Layout, Tile, Tiling, blend
from .value import Given, Value, expect, is_finite

FIRST, STEADY = "first", "steady"
DOWN, ACROSS = 3, 4
"""The axes of a picture in float32 [1, 3, frames, height, width]."""

Frames = NDArray[np.uint8]


class Runs(Protocol):
    """What executes graphs: an Executor, or what stands in its place where a model is built."""

    @property
    def empty(self) -> Empty: ...

    def run(self, component: str, graph: str, inputs: Mapping[str, Given]) -> Mapping[str, Value]: ...


def decode(
    latents: Iterable[NDArray[np.float32]],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    executor: Executor,
    graphs: Mapping[str, Interface],
) -> Generator[Frames]:
    """Yield the frames of each latent frame in turn, uint8 [frames, height, width, 3]; `latents` come piece by piece.

    The first latent frame gives one video frame and the decoder's caches, each later one gives the next frames and
    the next caches, which `graphs` tells apart. `mean` and `std` are the latent statistics per channel. Raises
    TargetError where a NaN or an infinity turns up: no picture shows it.
    """
    for frames in decoded(latents, mean, std, executor, graphs):
        yield to_pixels(frames, executor.empty)
        executor.give_back(DECODER)


def decode_tiled(
    latents: NDArray[np.float32],
    model: Model,
    tiling: Tiling,
    executor: Executor,
    graphs: Mapping[str, Interface],
    on_tile: Callable[[int], None] = lambda _: None,
) -> Generator[Frames]:
    """The same, tile by tile: memory grows neither with the length of the video nor with the size of the picture.

    All tiles are decoded before the first frames come; `on_tile` is told how many latent frames of tiles are done. What
    is seen of them lies on disk meanwhile, see `scratch_bytes`. Raises UserError besides, where there is no room.
    """
    layout = _layout(latents.shape, model, tiling)
    done = 0
    with closing(Scratch(layout.bytes, executor.empty)) as scratch:
        for tile in layout.tiles:
            first = 0
            for frames in decoded([_cut(latents, tile, model)], model.latent_mean, model.latent_std, executor, graphs):
                _expect_size(frames, tile, model.temporal_stride if first else 1)
                blended = _blended(frames, tile, first, layout, scratch, executor.empty)
                _keep(blended, tile, first, layout, scratch, executor.empty)
                first, done = first + frames.shape[2], done + 1
                executor.pool.trim()  # results fill it as they are computed, see `give_back`
                on_tile(done)
        for start, stop in _chunks(layout.frames, model.temporal_stride):
            yield _picture(start, stop, layout, scratch, executor.empty)


def scratch_bytes(latents: tuple[int, ...], model: Model, tiling: Tiling) -> int:
    """The bytes of disk that `decode_tiled` takes for latents of this shape."""
    return _layout(latents, model, tiling).bytes


def to_pixels(frames: NDArray[np.float32], empty: Empty = np.empty) -> Frames:
    """float32 [1, 3, frames, height, width], of which -1..1 is seen → uint8 [frames, height, width, 3], rounded."""
    channels, *size = frames.shape[1:]
    pixels = empty((*size, channels), np.uint8)
    scaled = empty(tuple(size[1:]), np.float32)
    # A picture of one colour at a time stays in the processor's caches.
    for channel in range(channels):
        for frame in range(size[0]):
            np.multiply(frames[0, channel, frame], np.float32(127.5), out=scaled)
            scaled += np.float32(127.5)
            np.rint(np.clip(scaled, 0.0, 255.0, out=scaled), out=scaled)
            pixels[frame, :, :, channel] = scaled
    return pixels


def decoded(
    latents: Iterable[NDArray[np.float32]],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    executor: Runs,
    graphs: Mapping[str, Interface],
) -> Iterator[NDArray[np.float32]]:
    """What the decoder gives for each latent frame in turn: float32 [1, 3, frames, height, width]; see `decode`."""
    per_channel = (1, -1, 1, 1, 1)
    scale, offset = np.array(std, np.float32).reshape(per_channel), np.array(mean, np.float32).reshape(per_channel)
    caches: dict[str, Value] = {}
    done = 0
    for latent in _one_by_one(latents, executor.empty):
        latent *= scale
        latent += offset
        graph = STEADY if done else FIRST
        outputs = executor.run(DECODER, graph, {"latent": latent, **caches})
        caches = carried(graphs[graph].outputs, outputs)
        frames = expect(outputs["frames"], "frames", (1, 3, None, None, None))
        _check_finite(frames, graph, done)
        done += frames.shape[2]
        yield frames


def _one_by_one(latents: Iterable[NDArray[np.float32]], empty: Empty) -> Iterator[NDArray[np.float32]]:
    """A copy of each latent frame."""
    for piece in latents:
        for index in range(piece.shape[2]):
            yield copied(piece[:, :, index : index + 1], empty)


def _check_finite(frames: NDArray[np.float32], graph: str, done: int) -> None:
    """Of float32 [1, 3, frames, height, width]; `done` frames came before."""
    if not is_finite(frames):
        finite = np.isfinite(frames).all(axis=(0, 1, 3, 4))
        raise TargetError(
            f"{DECODER}/{graph} gave values that are not finite in frame {done + int(np.argmin(finite))}, from 0",
            hint="run the bundle's --selftest: this machine may not compute what the build machine did",
        )


def _layout(latents: tuple[int, ...], model: Model, tiling: Tiling) -> Layout:
    frames, height, width = latents[2:]
    space, time = model.spatial_stride, model.temporal_stride
    return Layout(tiling, height * space, width * space, (frames - 1) * time + 1)


def _cut(latents: NDArray[np.float32], tile: Tile, model: Model) -> NDArray[np.float32]:
    """The latents of a tile."""
    rows, columns = (
        slice(span.start // model.spatial_stride, span.stop // model.spatial_stride)
        for span in (tile.rows, tile.columns)
    )
    return latents[:, :, :, rows, columns]


def _expect_size(frames: NDArray[np.float32], tile: Tile, count: int) -> None:
    if frames.shape[2:] != (wanted := (count, tile.rows.size, tile.columns.size)):
        raise TargetError(f"an engine gives frames of {list(frames.shape[2:])}, and {list(wanted)} was expected")


def _blended(
    frames: NDArray[np.float32], tile: Tile, first: int, layout: Layout, scratch: Scratch, empty: Empty
) -> NDArray[np.float32]:
    """A tile into which those above and beside it fade; `frames` begin with the video's frame `first`."""
    count, height, width = frames.shape[2:]
    blended = copied(frames, empty)
    if tile.rows.before:
        above = scratch.read(layout.below(tile, first), (1, 3, count, tile.rows.before, width), np.float32)
        blend(above, blended, DOWN)
    if tile.columns.before:
        beside = scratch.read(layout.beside(first), (1, 3, count, height, tile.columns.before), np.float32)
        blend(beside, blended, ACROSS)
    return blended


def _keep(frames: NDArray[np.float32], tile: Tile, first: int, layout: Layout, scratch: Scratch, empty: Empty) -> None:
    """What is seen of a tile, and the edges that the next ones are blended with."""
    height, width = tile.shown
    scratch.write(layout.picture(tile, first), to_pixels(frames[..., :height, :width], empty))
    if tile.rows.behind:
        scratch.write(layout.below(tile, first), frames[..., -tile.rows.behind :, :])
    if tile.columns.behind:
        scratch.write(layout.beside(first), frames[..., -tile.columns.behind :])


def _chunks(frames: int, stride: int) -> Iterator[tuple[int, int]]:
    """The frames of each latent frame: the first alone, then `stride` at a time."""
    yield 0, 1
    for start in range(1, frames, stride):
        yield start, start + stride


def _picture(start: int, stop: int, layout: Layout, scratch: Scratch, empty: Empty) -> Frames:
    """Frames start … stop - 1, put together of all tiles."""
    picture = empty((stop - start, layout.height, layout.width, 3), np.uint8)
    for tile in layout.tiles:
        height, width = tile.shown
        rows, columns = tile.rows.start, tile.columns.start
        shown = scratch.read(layout.picture(tile, start), (stop - start, height, width, 3), np.uint8)
        picture[:, rows : rows + height, columns : columns + width] = shown
    return picture
