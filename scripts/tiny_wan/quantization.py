"""The tiny model's experts in torch, and their quantisation after training: where quantisation-aware training starts.

Quantised are all Linears of the blocks. The embeddings, the modulation and the projection to latents stay in float.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import UMT5EncoderModel

from scripts.tiny_wan import captions, configuration, evaluation, flow_phase, scenes
from wanc.calibration.decision import Decision
from wanc.calibration.fake_quantize import ACTIVATION_LEVELS, quantize_module
from wanc.calibration.gptq import Moments, round_by_moments
from wanc.calibration.histogram import Histogram
from wanc.calibration.smoothing import ChannelStatistics, best_alpha, channel_scales
from wanc.calibration.thresholds import threshold
from wanc.calibration.trajectories import Requests, TrajectorySampling
from wanc.calibration.weights import GROUP, LEVELS, Codes, round_to_nearest
from wanc.models.wan.transformer import StepModule
from wanc.runtime.solvers.create import create_solver
from wanc.runtime.solvers.schedule import TRAINING_TIMESTEPS, count_high_noise_steps
from wanc.words import Observer

Scheme = Literal["int8", "int4-weight"]
BITS = {"int8": "int8", "int4-weight": "int4"}
EXPERTS = ("transformer", "transformer_2")
# Of a block: Linears that share their input, and with it its smoothing and its scale.
SHARING = (
    ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    ("attn1.to_out.0",),
    ("attn2.to_q",),
    ("attn2.to_k", "attn2.to_v"),
    ("attn2.to_out.0",),
    ("ffn.net.0.proj",),
    ("ffn.net.2",),
)


@dataclass(frozen=True)
class Method:
    """How weights are rounded, and for int8 how far activations reach."""

    rounding: Literal["nearest", "moments"]
    reach: Observer | None = None

    def __str__(self) -> str:
        return self.rounding if self.reach is None else f"{self.rounding}, {self.reach}"


METHODS: Mapping[Scheme, tuple[Method, ...]] = {
    "int8": (Method("nearest", "absmax"), Method("moments", "absmax"), Method("moments", "mse")),
    "int4-weight": (Method("nearest"), Method("moments")),
}


def levels(scheme: Scheme) -> int:
    """The largest code of a weight."""
    return LEVELS[BITS[scheme]]


def load_experts(model: Path) -> list[torch.nn.Module]:
    """The high- and the low-noise expert, in float32."""
    experts = (StepModule.from_pretrained(model / name, torch_dtype=torch.float32) for name in EXPERTS)
    return [cast(torch.nn.Module, expert).eval().requires_grad_(False) for expert in experts]


def sampling() -> TrajectorySampling:
    """As the model's recipe says."""

    solver = partial(create_solver, "unipc", shift=configuration.FLOW_SHIFT, steps=configuration.STEPS)

    high = count_high_noise_steps(solver().timesteps, configuration.BOUNDARY_RATIO)
    assert configuration.TRAIN_TIMESTEPS == TRAINING_TIMESTEPS
    return TrajectorySampling(solver, (configuration.GUIDANCE_SCALE, configuration.GUIDANCE_SCALE), high)


class Texts:
    """The text encoder and its tokenizer."""

    def __init__(self, model: Path) -> None:
        self._encoder = UMT5EncoderModel.from_pretrained(model / "text_encoder", torch_dtype=torch.float32).eval()
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer" / "tokenizer.json"))

    def held_out(self, count: int) -> Requests:
        """About combinations that the model has never seen: what everything is judged by."""
        cases = evaluation.cases(count)
        return self._requests([case.prompt for case in cases], [case.seed for case in cases])

    def training(self, count: int, first_seed: int) -> Requests:
        """Random captions of combinations that the model was trained on."""
        random = np.random.default_rng(first_seed)
        chosen = random.integers(len(scenes.TRAINING), size=count)
        prompts = [captions.random_caption(scenes.TRAINING[index], random) for index in chosen]
        return self._requests(prompts, list(range(first_seed, first_seed + count)))

    def _requests(self, prompts: list[str], seeds: list[int]) -> Requests:
        noise = torch.from_numpy(np.concatenate([evaluation.noise(seed) for seed in seeds]))
        negative = self._embed([configuration.NEGATIVE_PROMPT]).expand(len(prompts), -1, -1)
        return Requests(noise, self._embed(prompts), negative, torch.tensor(seeds))

    @torch.no_grad()
    def _embed(self, prompts: list[str]) -> torch.Tensor:
        identifiers, mask = flow_phase.tokenise(prompts, self._tokenizer)
        states = self._encoder(identifiers, mask).last_hidden_state * mask[..., None]
        return torch.nn.functional.pad(states, (0, 0, 0, configuration.MAX_TEXT_TOKENS - states.shape[1]))


@dataclass
class Observed:
    """An input that Linears share, and what it was in the calibration runs."""

    linears: tuple[str, ...]
    weights: list[NDArray[np.float32]]
    statistics: ChannelStatistics
    moments: Moments
    smoothing: NDArray[np.float64] | None = None
    smoothed: Histogram | None = None

    @classmethod
    def of(cls, expert: torch.nn.Module, linears: tuple[str, ...]) -> Observed:
        weights = [cast(torch.nn.Linear, expert.get_submodule(name)).weight.numpy() for name in linears]
        width = weights[0].shape[1]
        return cls(linears, weights, ChannelStatistics.of_width(width), Moments(width))

    def measure(self, values: NDArray[np.float32]) -> None:
        """For the smoothing and the rounding of weights."""
        self.statistics.add(values)
        self.moments.add(values)

    def measure_smoothed(self, values: NDArray[np.float32]) -> None:
        """For the reach, once the smoothing is known."""
        assert self.smoothed is not None
        self.smoothed.add(values if self.smoothing is None else values / self.smoothing)


def observe(experts: list[torch.nn.Module], scheme: Scheme, calibrate: Callable[[], object]) -> list[list[Observed]]:
    """What goes into every expert's Linears while `calibrate` runs them, by shared input."""
    observed = [
        [
            Observed.of(expert, tuple(f"blocks.{block}.{name}" for name in linears))
            for block in range(configuration.EXPERT["num_layers"])
            for linears in SHARING
        ]
        for expert in experts
    ]
    _watch(experts, observed, Observed.measure, calibrate)
    if scheme == "int8":
        for each in (each for expert in observed for each in expert):
            alpha = best_alpha(each.statistics, each.weights)
            each.smoothing = None if alpha is None else channel_scales(each.statistics, each.weights, alpha)
            each.smoothed = Histogram()
        _watch(experts, observed, Observed.measure_smoothed, calibrate)
    return observed


def decide(observed: list[Observed], scheme: Scheme, method: Method) -> dict[str, Decision]:
    """Every Linear's decision, by its name."""
    decisions: dict[str, Decision] = {}
    for each in observed:
        scale = None
        if method.reach is not None:
            assert each.smoothed is not None
            scale = threshold(each.smoothed, method.reach) / ACTIVATION_LEVELS
        for name, weight in zip(each.linears, each.weights, strict=True):
            decisions[name] = Decision(_codes(weight, each, scheme, method), each.smoothing, scale)
    return decisions


def quantized(expert: torch.nn.Module, decisions: Mapping[str, Decision], scheme: Scheme) -> torch.nn.Module:
    """The expert as its decisions make it."""
    copied = copy.deepcopy(expert)
    quantize_module(copied, decisions, levels=levels(scheme))
    return copied.requires_grad_(False)


def _codes(weight: NDArray[np.float32], each: Observed, scheme: Scheme, method: Method) -> Codes:
    smoothing = np.ones(weight.shape[1]) if each.smoothing is None else each.smoothing
    smoothed = (weight * smoothing).astype(np.float32)
    group = GROUP[BITS[scheme]]
    if method.rounding == "nearest":
        return round_to_nearest(smoothed, levels=levels(scheme), group=group)
    moments = (each.moments.total / np.outer(smoothing, smoothing)).astype(np.float32)
    return round_by_moments(smoothed, moments, levels=levels(scheme), group=group)


def _watch(
    experts: list[torch.nn.Module],
    observed: list[list[Observed]],
    measure: Callable[[Observed, NDArray[np.float32]], None],
    calibrate: Callable[[], object],
) -> None:
    with ExitStack() as hooks:
        for expert, inputs in zip(experts, observed, strict=True):
            for each in inputs:

                def see(_module: Any, given: tuple[torch.Tensor, ...], each: Observed = each) -> None:
                    measure(each, given[0].numpy())

                handle = expert.get_submodule(each.linears[0]).register_forward_pre_hook(see)
                hooks.callback(handle.remove)
        calibrate()
