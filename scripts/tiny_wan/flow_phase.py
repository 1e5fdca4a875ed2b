"""Trains the text encoder and both experts together, by flow matching on latents.

A noisy latent is ``(1 - s) * clean + s * noise`` and the target is ``noise - clean``, for a noise level ``s`` in
(0, 1). The high-noise expert sees levels above the boundary of the pipeline and the low-noise expert those below, each
with a little overlap. Levels are drawn with the shift of the sampler, so that effort goes where the sampler steps.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from tokenizers import Tokenizer
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import UMT5Config, UMT5EncoderModel

from wanc.report.detectors.drawn_shapes import Attributes

from . import configuration, tokenizer, training
from .captions import random_caption
from .latents_phase import Latents
from .scenes import TRAINING

EMPTY_PROMPT_CHANCE = 0.1
OVERLAP = 0.03  # of the unshifted noise level, on each side of the boundary
AVERAGE_DECAY = 0.998


class Denoiser(nn.Module):
    """Text encoder and experts in one module, so that one optimiser and one average hold them all."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.text_encoder = UMT5EncoderModel(UMT5Config(vocab_size=vocabulary_size, **configuration.TEXT_ENCODER))
        self.high = WanTransformer3DModel(**configuration.EXPERT)
        self.low = WanTransformer3DModel(**configuration.EXPERT)

    def embed(self, identifiers: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As the pipeline does: encode with the mask, zero what is padding, and pad with zeros to 64 tokens.

        ``identifiers`` and ``mask`` are int64 [batch, tokens]; the result is float32 [batch, 64, width].
        """
        states = self.text_encoder(identifiers, mask).last_hidden_state * mask[..., None]
        return nn.functional.pad(states, (0, 0, 0, configuration.MAX_TEXT_TOKENS - states.shape[1]))


def shifted(level: torch.Tensor) -> torch.Tensor:
    """The sampler's time shift: uniform noise levels become the levels that it visits."""
    return configuration.FLOW_SHIFT * level / (1 + (configuration.FLOW_SHIFT - 1) * level)


def boundary_level() -> float:
    """The unshifted noise level at which the experts change over."""
    ratio, shift = configuration.BOUNDARY_RATIO, configuration.FLOW_SHIFT
    return ratio / (shift - (shift - 1) * ratio)


def tokenise(prompts: list[str], built: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Identifiers and mask, int64 [batch, longest]."""
    rows = [built.encode(prompt).ids for prompt in prompts]
    longest = max(map(len, rows))
    identifiers = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return identifiers, mask


def random_prompt(shown: Attributes, random: np.random.Generator) -> str:
    """A caption, or the empty prompt that guidance needs. Half of the captions are cleaned as the pipeline cleans."""
    if random.random() < EMPTY_PROMPT_CHANCE:
        return ""
    caption = random_caption(shown, random)
    return prompt_clean(caption) if random.random() < 0.5 else caption


def train(latents: Latents, plan: training.Plan, batch: int) -> Denoiser:
    """Train from scratch or from the checkpoint, and return the averaged weights."""
    built = tokenizer.build()
    torch.manual_seed(plan.seed)
    model = Denoiser(built.get_vocab_size())
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY))
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    boundary = boundary_level()
    shares = ((boundary - OVERLAP, 1.0, model.high), (0.0, boundary + OVERLAP, model.low))

    def expert_loss(
        clean: torch.Tensor, text: torch.Tensor, random: np.random.Generator, share: tuple[float, float, nn.Module]
    ) -> float:
        """Loss and gradients of one expert; the gradient of the text ends at ``text``, a leaf."""
        lowest, highest, expert = share
        # Stratified: one level from each of `batch` equal parts of the range.
        uniform = (torch.arange(batch) + torch.from_numpy(random.random(batch, dtype=np.float32))) / batch
        level = shifted(lowest + (highest - lowest) * uniform).view(-1, 1, 1, 1, 1)
        noise = torch.from_numpy(random.standard_normal(clean.shape, dtype=np.float32))
        noisy = (1 - level) * clean + level * noise
        predicted = expert(noisy, level.flatten() * configuration.TRAIN_TIMESTEPS, text).sample
        loss = (predicted - (noise - clean)).square().mean()
        loss.backward()
        return float(loss.detach())

    # The experts share nothing but the text, so each has a thread of its own. That beats two threads inside of every
    # small operation, above all on a machine that does other work too.
    torch.set_num_threads(1)
    workers = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))

    def step_function(_step: int, random: np.random.Generator) -> float:
        chosen = random.integers(len(latents.values), size=2 * batch)
        prompts = [random_prompt(TRAINING[latents.combinations[index]], random) for index in chosen]
        text = model.embed(*tokenise(prompts, built))
        clean = latents.values[torch.from_numpy(chosen)]
        leaf = text.detach().requires_grad_()
        losses = list(workers.map(expert_loss, clean.split(batch), leaf.split(batch), random.spawn(2), shares))
        text.backward(leaf.grad)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update_parameters(model)
        return sum(losses)

    training.run(plan, {"model": model, "average": average, "optimiser": optimiser}, optimiser, step_function)
    averaged: Any = average.module
    return averaged
