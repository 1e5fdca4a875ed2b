"""The initial noise of a sampling run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrays import CheckHeader, any_header, read_array
from .errors import UserError
from .interface import InputError
from .pool import Empty
from .video_limits import LARGEST_SEED, MOST_STEPS

STREAMS_OF_A_CHUNK = MOST_STEPS + 1
"""What a chunk of a causal video begins with, and what its steps may add."""


def initial_noise(
    shape: tuple[int, ...], seed: int, empty: Empty = np.empty, *, stream: int = 0
) -> NDArray[np.float32]:
    """Standard normal float32 noise from the counter-based Philox generator (Salmon et al., SC 2011).

    A seed gives the same noise whatever engine and device run the model: it is made on the host, by numpy alone. Each
    `stream` of it is independent of the others, which need not be made for it.

    Raises:
        UserError: a seed outside 0 to 2^63 - 1, or more noise than this machine can hold.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"the seed is {seed}", hint=f"give a whole number from 0 to {LARGEST_SEED}")
    try:
        noise = empty(shape, np.float32)
        return np.random.Generator(np.random.Philox(seed).jumped(stream)).standard_normal(dtype=np.float32, out=noise)
    except MemoryError:
        size = 4 * math.prod(shape)
        message = f"the latents take {size} bytes, which this machine does not have"
        raise UserError(message, hint="take a smaller shape or fewer frames") from None


def chunk_stream(chunk: int, step: int | None = None) -> int:
    """The stream that a chunk of a causal video begins with, or that is taken from behind one of its steps."""
    return chunk * STREAMS_OF_A_CHUNK + (0 if step is None else step + 1)


def load_latents(path: Path, check: CheckHeader = any_header) -> NDArray[np.float32]:
    """Initial noise from a `.npy` file; `check` is told dtype and shape before anything is read.

    Raises UserError where it cannot be read, and what `check` raises.
    """
    try:
        return read_array(path, check)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise
        raise UserError("not a .npy file of latents", where=str(path)) from error
