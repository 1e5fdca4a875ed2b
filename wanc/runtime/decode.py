"""Latents → frames, one latent frame at a time: memory does not grow with the length of the video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from .errors import TargetError
from .executor import Executor
from .interface import Interface, carried
from .value import Value, expect

COMPONENT, FIRST, STEADY = "vae_decoder", "first", "steady"


def decode(
    latents: NDArray[np.float32],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    executor: Executor,
    graphs: Mapping[str, Interface],
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of each latent frame in turn, uint8 [frames, height, width, 3].

    The first latent frame gives one video frame and the decoder's caches, each later one gives the next frames and
    the next caches, which `graphs` tells apart. `mean` and `std` are the latent statistics per channel. Raises
    TargetError where a NaN or an infinity turns up: no picture shows it.
    """
    per_channel = (1, -1, 1, 1, 1)
    scaled = latents * np.array(std, np.float32).reshape(per_channel) + np.array(mean, np.float32).reshape(per_channel)
    caches: dict[str, Value] = {}
    done = 0
    for index in range(scaled.shape[2]):
        latent = np.ascontiguousarray(scaled[:, :, index : index + 1])
        graph = STEADY if index else FIRST
        outputs = executor.run(COMPONENT, graph, {"latent": latent, **caches})
        caches = carried(graphs[graph].outputs, outputs)
        frames = expect(outputs["frames"], "frames", (1, 3, None, None, None))
        _check_finite(frames, graph, done)
        done += frames.shape[2]
        yield to_pixels(frames)


def _check_finite(frames: NDArray[np.float32], graph: str, done: int) -> None:
    """Of float32 [1, 3, frames, height, width]; `done` frames came before."""
    finite = np.isfinite(frames).all(axis=(0, 1, 3, 4))
    if not finite.all():
        raise TargetError(
            f"{COMPONENT}/{graph} gave values that are not finite in frame {done + int(np.argmin(finite))}, from 0",
            hint="run the bundle's --selftest: this machine may not compute what the build machine did",
        )


def to_pixels(frames: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 [1, 3, frames, height, width] in -1..1 → uint8 [frames, height, width, 3], rounded."""
    scaled = np.clip(frames[0] * 127.5 + 127.5, 0.0, 255.0)
    return np.rint(scaled).astype(np.uint8).transpose(1, 2, 3, 0)
