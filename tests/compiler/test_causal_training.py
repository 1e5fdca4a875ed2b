"""What the train stage has causal runs begin with: as long as a clip, of the noise that the runtime has."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch, an extra")

from wanc.compiler.quantize.train import TRAINING_SEED, Train
from wanc.compiler.trajectory import Trajectory
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.model import Model
from wanc.runtime.noise import chunk_stream, initial_noise

MODEL = Model(512, None, 1000, (0.0,) * 16, (1.0,) * 16, spatial_stride=8, temporal_stride=4)
CACHE = CacheFacts(2, KeyValueWindow(1, 2), "fp32")
TRAIN = Train(
    component="denoiser_high",
    experts=("denoiser_high",),
    scheme="int8",
    keep=(),
    trajectory=Trajectory("lcm", 4, None, 5.0, 1.0, 1.0, None),
    shape=(64, 64, 17),
    seed=5,
    learning_rate=1e-3,
    rounds=1,
    requests=3,
    validation=1,
    cache=CACHE,
)


def test_runs_begin_as_the_runtimes_do() -> None:
    texts = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 4, 2), np.float32)
    asked = TRAIN._requests(texts, MODEL, 3, TRAINING_SEED)
    assert asked.seeds.tolist() == [5 + TRAINING_SEED + number for number in range(3)]
    assert asked.noise.shape == (3, 16, 10, 8, 8), "five chunks: the fifth is the first not to see all of the past"
    for chunk in (0, 3):
        wanted = initial_noise((1, 16, 2, 8, 8), int(asked.seeds[1]), stream=chunk_stream(chunk))
        np.testing.assert_array_equal(asked.noise[1:2, :, 2 * chunk : 2 * chunk + 2].numpy(), wanted)
    assert asked.text[:, 0, 0].tolist() == [0, 1, 0] and asked.negative[:, 0, 0].tolist() == [2, 2, 2]
