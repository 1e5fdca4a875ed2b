"""Makes a causal denoiser of an expert: every chunk of a clip is trained at once, each behind the clean ones.

A clip goes in twice, clean and noisy: what is clean sees what is clean up to itself, and a noisy chunk sees the clean
ones before it and itself (teacher forcing, as CausVid begins, https://arxiv.org/abs/2412.07772). A sampler is given its
own chunks and not clean ones, with faults that add up from chunk to chunk. So part of the clips are given a past with a
little noise, part what the model itself makes of them, and part one that has begun to take on another colour: what is
to be seen has to be taken from the text, and what is past only goes on. In part of the clips what is past is of another
clip altogether, as behind a prompt that has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wanc.models.wan.untouched_sequence import MaskedAttention
from wanc.report.detectors.drawn_shapes import Attributes

from . import configuration, training
from .flow_phase import random_prompt, shifted
from .texts import Texts

LENGTHS = {5: 24, 9: 14, 17: 8}
"""Latent frames of a training clip, and how many clips of it fill a step."""
RECENT = configuration.CAUSAL_WINDOW
CONTEXTS = ("clean", "noisy", "own")
CONTEXT_CHANCES = (0.25, 0.35, 0.4)
RECOLOURED_CHANCE, MOST_RECOLOURED = 0.5, 0.6
"""How often a past is given in another colour, and how much of that is mixed in."""
SPLICED_CHANCE = 0.5
"""How often a clip begins as another one, of another prompt."""
MOST_CONTEXT_NOISE = 0.2
OWN_LEVELS = (0.1, 0.8)
"""Noise levels from which the model makes the chunks that it is then given as the past."""
AVERAGE_DECAY = 0.998


class TeacherForced(WanTransformer3DModel):
    """Clean and noisy chunks side by side, [batch, 16, 2 * frames, height, width]; the result is of the noisy ones."""

    def train_on(
        self, context: torch.Tensor, noisy: torch.Tensor, level: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        """The velocity of chunks of one frame each; ``level`` is [batch, frames]."""
        batch, _, frames, height, width = noisy.shape
        size = height * width // 4
        mask = visible(frames).repeat_interleave(size, 0).repeat_interleave(size, 1)
        for block in cast(Any, self.blocks):
            block.attn1.processor = MaskedAttention(mask)
        levels = torch.cat([torch.zeros(batch, frames), level], dim=1) * configuration.TRAIN_TIMESTEPS
        timestep = levels.repeat_interleave(size, 1)
        (velocity,) = self(torch.cat([context, noisy], dim=2), timestep, text, return_dict=False)
        return velocity[:, :, frames:]


class PositionsTwice(WanRotaryPosEmbed):
    """The second half of the frames has the positions of the first."""

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        cos, sin = super().forward(hidden_states[:, :, : hidden_states.shape[2] // 2])
        return torch.cat([cos, cos], dim=1), torch.cat([sin, sin], dim=1)


def visible(frames: int) -> torch.Tensor:
    """Which frame sees which, bool [2 * frames, 2 * frames]: clean ones first, and the noisy ones behind them."""
    query, key = torch.meshgrid(torch.arange(frames), torch.arange(frames), indexing="ij")
    past = (key < query) & (key >= query - RECENT)
    itself = key == query
    clean, noisy = torch.cat([past | itself, torch.zeros_like(past)], 1), torch.cat([past, itself], 1)
    return torch.cat([clean, noisy])


def build(expert: WanTransformer3DModel) -> TeacherForced:
    """The expert's weights, to be trained on."""
    model = TeacherForced(**configuration.EXPERT)
    model.load_state_dict(expert.state_dict())
    parts = cast(Any, model)
    parts.rope = PositionsTwice(
        configuration.EXPERT["attention_head_dim"],
        tuple(configuration.EXPERT["patch_size"]),
        configuration.EXPERT["rope_max_seq_len"],
    )
    return model


@dataclass(frozen=True)
class Clips:
    """``clean`` and ``recoloured``, the same in another colour, are float32 [clips, 16, frames, 8, 8], normalised."""

    clean: torch.Tensor
    recoloured: torch.Tensor
    shown: Sequence[Attributes]


def context(
    model: TeacherForced, clean: torch.Tensor, other: torch.Tensor, text: torch.Tensor, random: np.random.Generator
) -> torch.Tensor:
    """What the chunks are given as their past; ``other`` is the same in another colour."""
    share = random.uniform(0, MOST_RECOLOURED, len(clean)) * (random.random(len(clean)) < RECOLOURED_CHANCE)
    clean = torch.lerp(clean, other, torch.from_numpy(share.astype(np.float32))[:, None, None, None, None])
    kind = CONTEXTS[random.choice(len(CONTEXTS), p=CONTEXT_CHANCES)]
    if kind == "clean":
        return clean
    most = (0.0, MOST_CONTEXT_NOISE) if kind == "noisy" else OWN_LEVELS
    level = torch.from_numpy(random.uniform(*most, size=(len(clean), clean.shape[2])).astype(np.float32))
    noisy = _noisy(clean, _noise(clean, random), level)
    if kind == "noisy":
        return noisy
    with torch.no_grad():
        return noisy - _wide(level) * model.train_on(clean, noisy, level, text)


def spliced(
    clean: torch.Tensor, other: torch.Tensor, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same, of which some begin as their neighbour does; and from where on each is itself, bool [batch, frames]."""
    batch, _, frames = clean.shape[:3]
    cut = random.integers(1, frames, batch) * (random.random(batch) < SPLICED_CHANCE)
    itself = torch.arange(frames) >= torch.from_numpy(cut)[:, None]
    chosen = itself[:, None, :, None, None]
    return torch.where(chosen, clean, clean.roll(1, 0)), torch.where(chosen, other, other.roll(1, 0)), itself


def loss(
    model: TeacherForced, clean: torch.Tensor, other: torch.Tensor, text: torch.Tensor, random: np.random.Generator
) -> torch.Tensor:
    """The mean square error of the velocity, over chunks with a noise level each, of what the text is about."""
    clean, other, itself = spliced(clean, other, random)
    past = context(model, clean, other, text, random)
    count = len(clean) * clean.shape[2]
    # Stratified: one level from each of as many equal parts of the range as there are chunks.
    uniform = (random.permutation(count) + random.random(count)) / count
    level = shifted(torch.from_numpy(uniform.astype(np.float32)).view(len(clean), -1))
    noise = _noise(clean, random)
    predicted = model.train_on(past, _noisy(clean, noise, level), level, text)
    return (predicted - (noise - clean)).square().mean(dim=(1, 3, 4))[itself].mean()


def train(clips: Clips, texts: Texts, expert: WanTransformer3DModel, plan: training.Plan) -> WanTransformer3DModel:
    """Train from the expert or from the checkpoint, and return the averaged weights."""
    torch.manual_seed(plan.seed)
    model = build(expert)
    threads = training.TwoThreads(model)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY))
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)

    def step_function(_step: int, random: np.random.Generator) -> float:
        frames = int(random.choice([*LENGTHS]))
        chosen = random.integers(len(clips.clean), size=LENGTHS[frames])
        text = texts.states([random_prompt(clips.shown[index], random) for index in chosen])
        clean, other = (values[torch.from_numpy(chosen), :, :frames] for values in (clips.clean, clips.recoloured))
        halves = zip(clean.chunk(2), other.chunk(2), text.chunk(2), random.spawn(2), strict=True)
        found = threads.backward(loss, *halves)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update_parameters(model)
        return found

    training.run(plan, {"model": model, "average": average, "optimiser": optimiser}, optimiser, step_function)
    averaged = cast(TeacherForced, average.module)
    saved = WanTransformer3DModel(**configuration.EXPERT)
    saved.load_state_dict({name: value for name, value in averaged.state_dict().items() if "rope." not in name})
    return saved


def _noise(clean: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(tuple(clean.shape), dtype=np.float32))


def _noisy(clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    return (1 - _wide(level)) * clean + _wide(level) * noise


def _wide(level: torch.Tensor) -> torch.Tensor:
    """[batch, frames] as it multiplies latents."""
    return level[:, None, :, None, None]
