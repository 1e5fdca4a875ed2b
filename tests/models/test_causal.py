"""The causal denoiser chunk by chunk is diffusers' own transformer over the whole sequence, with a mask by chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from tests.models.looking_back import LookingBack
from wanc.models.wan.causal import CausalStep, causal_step
from wanc.models.wan.untouched_sequence import MaskedAttention
from wanc.runtime.kvcache import BIAS, KeyValueRing, KeyValueWindow
from wanc.words import CacheFormat, CachePositions

CONFIG: dict[str, Any] = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 64,
    "num_layers": 3,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 64,
}
FRAMES, ROWS, COLUMNS, TEXT = 2, 2, 3, 5
TOKENS = FRAMES * ROWS * COLUMNS
CLEAN, NOISY = 0.0, 700.0
TOLERANCE = 1e-5
"""Relative; float32 sums in another order differ by about 1e-6."""


@pytest.fixture(scope="module")
def whole() -> WanTransformer3DModel:
    torch.manual_seed(3)
    model = WanTransformer3DModel.from_config(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def causal(whole: WanTransformer3DModel) -> CausalStep:
    return made(whole)


@pytest.fixture(scope="module")
def relative(whole: WanTransformer3DModel) -> CausalStep:
    return made(whole, positions="relative")


def made(
    whole: WanTransformer3DModel, precision: CacheFormat = "fp32", positions: CachePositions = "absolute"
) -> CausalStep:
    """A causal model of the same weights."""
    model = causal_step(CONFIG, precision, positions)
    model.load_state_dict(whole.state_dict())
    return model


def noise(chunk: int, name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * chunk + len(name))
    return torch.randn(1, 4, FRAMES, 2 * ROWS, 2 * COLUMNS, generator=generator)


def text(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, TEXT, 16, generator=torch.Generator().manual_seed(1000 + seed))


def expected(
    whole: WanTransformer3DModel, chunk: int, window: KeyValueWindow, positions: CachePositions = "absolute"
) -> torch.Tensor:
    """The velocity of a noisy chunk behind clean ones, of one forward pass over all of them.

    What a finished chunk computes sees what that chunk saw, so that the mask has a row of its own for each.
    """
    latents = torch.cat([*(noise(index, "clean") for index in range(chunk)), noise(chunk, "noisy")], dim=2)
    timestep = torch.tensor([[CLEAN] * (TOKENS * chunk) + [NOISY] * TOKENS])
    mask = torch.zeros(chunk + 1, chunk + 1, dtype=torch.bool)
    for row in range(chunk + 1):
        mask[row, [*window.seen(row), row]] = True
    mask = mask.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)[None, None]
    sees = [window.seen(row) for row in range(chunk + 1)]
    for block in whole.blocks:
        block.attn1.processor = (
            MaskedAttention(mask) if positions == "absolute" else LookingBack(sees, [TOKENS] * (chunk + 1))
        )
    with torch.no_grad():
        (velocity,) = whole(latents, timestep, text(), return_dict=False)
    return velocity[:, :, -FRAMES:]


@dataclass
class Caches:
    """Makes passes of one expert and branch, chunk by chunk."""

    model: CausalStep
    ring: KeyValueRing
    states: torch.Tensor
    window: KeyValueWindow
    first: int = 0
    """Where the video begins."""

    @classmethod
    def of(cls, model: CausalStep, window: KeyValueWindow, states: torch.Tensor | None = None) -> Caches:
        ring = KeyValueRing(window, dict.fromkeys(names(), (1, TOKENS, 2, 24)), precision=model.chunk.cache)
        return cls(model, ring, text() if states is None else states, window)

    def run(self, latents: torch.Tensor, timestep: float, chunk: int) -> list[torch.Tensor]:
        inputs = self.ring.inputs()
        bias = torch.from_numpy(inputs.pop(BIAS))
        turns = [*turned_in_time(self.model, self.window, chunk, self.first).values()]
        past = [torch.from_numpy(array) for array in inputs.values()]
        with torch.no_grad():
            return list(self.model(latents, torch.tensor([timestep]), self.states, *turns[:2], bias, *turns[2:], *past))

    def finish(self, chunk: int) -> None:
        _, *left = self.run(noise(chunk, "clean"), CLEAN, chunk)
        self.ring.finish(chunk, {name: array.numpy() for name, array in zip(names(), left, strict=True)})

    def velocity(self, chunk: int) -> torch.Tensor:
        return self.run(noise(chunk, "noisy"), NOISY, chunk)[0]


def names() -> list[str]:
    return [f"past.{block}.{what}" for block in range(CONFIG["num_layers"]) for what in ("key", "value")]


def turned_in_time(model: CausalStep, window: KeyValueWindow, chunk: int, first: int = 0) -> dict[str, torch.Tensor]:
    """What a causal graph is given of positions, by the names of its inputs."""
    if model.chunk.positions == "absolute":
        begin = first + FRAMES * chunk
        return dict(zip(("frame_cos", "frame_sin"), positions(range(begin, begin + FRAMES)), strict=True))
    seen = window.seen(chunk)
    own = range(FRAMES * len(seen), FRAMES * (len(seen) + 1))
    past = [
        FRAMES * place + frame
        for place in window.places(seen)
        for frame in range(FRAMES)
        for _ in range(TOKENS // FRAMES)
    ]
    names = ("frame_cos", "frame_sin", "past_cos", "past_sin")
    return dict(zip(names, (*positions(own), *positions(past)), strict=True))


def positions(frames: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    width = 24 - 2 * 2 * (24 // 6)
    angles = np.outer(frames, 10000.0 ** (-np.arange(0, width, 2) / width))
    return tuple(torch.from_numpy(table.astype(np.float32)) for table in (np.cos(angles), np.sin(angles)))  # type: ignore[return-value]


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("sink", "recent"), [(0, 8), (0, 2), (1, 2), (2, 1)])
def test_chunk_by_chunk(whole: WanTransformer3DModel, causal: CausalStep, sink: int, recent: int) -> None:
    """While the ring fills, and after the oldest chunks were given up."""
    window = KeyValueWindow(sink, recent)
    caches = Caches.of(causal, window)
    for chunk in range(6):
        caches.velocity(chunk)  # a noisy pass leaves nothing behind
        assert error(caches.velocity(chunk), expected(whole, chunk, window)) < TOLERANCE
        caches.finish(chunk)


@pytest.mark.parametrize(("sink", "recent"), [(0, 8), (0, 2), (1, 2), (2, 3)])
def test_positions_relative_to_what_is_in_sight(
    whole: WanTransformer3DModel, relative: CausalStep, sink: int, recent: int
) -> None:
    """Nothing is kept in the reference: it turns all keys anew for each chunk that looks at them."""
    window = KeyValueWindow(sink, recent)
    caches = Caches.of(relative, window)
    for chunk in range(8):
        assert error(caches.velocity(chunk), expected(whole, chunk, window, "relative")) < TOLERANCE
        caches.finish(chunk)


@pytest.mark.parametrize(("sink", "recent", "first"), [(2, 4, 0), (0, 2, 0), (0, 2, 5000)])
def test_both_kinds_of_positions_are_the_same_to_begin_with(
    causal: CausalStep, relative: CausalStep, sink: int, recent: int, first: int
) -> None:
    """As long as nothing is given up; and without a sink for ever, wherever a video begins: distances are the same."""
    window = KeyValueWindow(sink, recent)
    one, other = Caches.of(causal, window), Caches.of(relative, window)
    one.first = first
    differ: list[int] = []
    for chunk in range(9):
        if error(one.velocity(chunk), other.velocity(chunk)) > TOLERANCE:
            differ.append(chunk)
        one.finish(chunk)
        other.finish(chunk)
    assert differ == ([7, 8] if sink else [])


# A code has up to 1/254 or 1/14 of the largest of 24 numbers as its rounding, and fp16 1/2048 of each. Of this model's
# velocity the past makes out a few hundredths.
ROUNDED = {"fp16": (3e-6, 5e-5), "int8": (3e-5, 1e-3), "int4": (5e-4, 2e-2)}


@pytest.mark.parametrize("positions", ["absolute", "relative"])
@pytest.mark.parametrize("precision", ROUNDED)
def test_what_is_kept_in_fewer_bits(
    precision: CacheFormat, positions: CachePositions, whole: WanTransformer3DModel
) -> None:
    window = KeyValueWindow(1, 2)
    caches = Caches.of(made(whole, precision, positions), window)
    for chunk in range(5):
        found = error(caches.velocity(chunk), expected(whole, chunk, window, positions))
        least, most = ROUNDED[precision] if chunk else (0, TOLERANCE)
        assert least < found < most, chunk
        caches.finish(chunk)


def test_two_sessions_side_by_side_are_each_alone(causal: CausalStep) -> None:
    window = KeyValueWindow(0, 2)
    alone = Caches.of(causal, window)
    wanted = [_finished(alone, chunk) for chunk in range(4)]
    mine, other = Caches.of(causal, window), Caches.of(causal, window, text(1))
    for chunk in range(4):
        other.velocity(chunk)
        assert torch.equal(_finished(mine, chunk), wanted[chunk])
        other.finish(chunk)


def _finished(caches: Caches, chunk: int) -> torch.Tensor:
    velocity = caches.velocity(chunk)
    caches.finish(chunk)
    return velocity


@pytest.mark.parametrize("fault", ["stale slot", "late eviction", "no clean pass", "other positions"])
def test_a_fault_is_seen(
    fault: str, whole: WanTransformer3DModel, causal: CausalStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = KeyValueWindow(1, 2)
    caches = Caches.of(causal, window)
    if fault == "late eviction":
        caches = Caches.of(causal, KeyValueWindow(1, 3))
    if fault == "stale slot":
        monkeypatch.setattr(KeyValueWindow, "slot", lambda self, chunk: min(chunk, self.chunks - 1))
    if fault == "other positions":
        monkeypatch.setattr(f"{__name__}.positions", lambda frames, of=positions: of([0 for _ in frames]))
    for chunk in range(5):
        if fault == "no clean pass":
            _, *left = caches.run(noise(chunk, "noisy"), NOISY, chunk)
            caches.ring.finish(chunk, {name: array.numpy() for name, array in zip(names(), left, strict=True)})
        else:
            caches.finish(chunk)
    assert error(caches.velocity(5), expected(whole, 5, window)) > 100 * TOLERANCE


def one_off(window: KeyValueWindow, seen: Sequence[int]) -> list[int]:
    """Of the sink, which stands before all others."""
    return [place + (slot < window.sink) for slot, place in enumerate(PLACES(window, seen))]


PLACES = KeyValueWindow.places
MISPLACED: dict[str, Callable[[KeyValueWindow, Sequence[int]], list[int]]] = {
    "the sink one off": one_off,
    "the order of the ring": lambda window, _: [*range(window.chunks)],
    "the order reversed": lambda window, seen: [len(seen) - 1 - place for place in PLACES(window, seen)],
}


@pytest.mark.parametrize("fault", MISPLACED)
def test_a_fault_of_relative_positions_is_seen(
    fault: str, whole: WanTransformer3DModel, relative: CausalStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = KeyValueWindow(1, 2)
    caches = Caches.of(relative, window)
    monkeypatch.setattr(KeyValueWindow, "places", MISPLACED[fault])
    for chunk in range(6):
        caches.finish(chunk)
    assert error(caches.velocity(6), expected(whole, 6, window, "relative")) > 100 * TOLERANCE
