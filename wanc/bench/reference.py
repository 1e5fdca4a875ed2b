"""diffusers' own pipeline: what a bundle is measured against, in float32, and beside."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from wanc.compiler.reference.last_place import Unit, one_place_off
from wanc.recipe.schema import SamplingSection


@dataclass(frozen=True)
class Video:
    """Final latents, float32 [1, channels, frames, height, width], and pixels, uint8 [frames, height, width, 3]."""

    latents: np.ndarray
    frames: np.ndarray


class DiffusersReference:
    """A checkpoint in diffusers."""

    def __init__(self, checkpoint: Path, text_length: int) -> None:
        pipeline: Any = WanPipeline.from_pretrained(checkpoint)
        # Weights are stored in float32 or bfloat16: widening them changes no value.
        self._pipeline = pipeline.to(torch.float32)
        self._pipeline.set_progress_bar_config(disable=True)
        self._text_length = text_length

    def generate(
        self,
        prompt: str,
        noise: np.ndarray,
        sampling: SamplingSection,
        *,
        is_autocast: bool = False,
        off: Unit | None = None,
    ) -> Video:
        """The video of a prompt from this noise, sampled as a recipe says.

        With products in bfloat16, as PyTorch's autocast has them; or with one GELU of each expert `off` by one unit in
        the last place that it has in a format.
        """
        with ExitStack() as stack:
            if is_autocast:
                stack.enter_context(_in_autocast(self._pipeline))
            for denoiser in (self._pipeline.transformer, self._pipeline.transformer_2):
                if off is not None and denoiser is not None:
                    stack.enter_context(one_place_off(denoiser, off, 0))
            return self._generate(prompt, noise, sampling)

    def _generate(self, prompt: str, noise: np.ndarray, sampling: SamplingSection) -> Video:
        pipeline = self._pipeline
        pipeline.scheduler = scheduler_of(sampling)
        if sampling.boundary is not None:
            pipeline.register_to_config(boundary_ratio=sampling.boundary)
        spatial, temporal = pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal
        _, _, frames, height, width = noise.shape
        final: dict[str, torch.Tensor] = {}

        def keep_latents(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict:
            final.update(tensors)
            return {}

        video = pipeline(
            prompt=prompt,
            negative_prompt=sampling.negative_prompt,
            height=height * spatial,
            width=width * spatial,
            num_frames=(frames - 1) * temporal + 1,
            num_inference_steps=sampling.steps or len(sampling.timesteps or ()),
            guidance_scale=sampling.guidance.high,
            # One expert has one scale; diffusers does not take a second one then.
            guidance_scale_2=sampling.guidance.low if pipeline.config.boundary_ratio is not None else None,
            max_sequence_length=self._text_length,
            latents=torch.from_numpy(noise.copy()),
            callback_on_step_end=keep_latents,
        ).frames[0]
        return Video(final["latents"].float().numpy(), np.rint(video * 255).astype(np.uint8))


@contextmanager
def _in_autocast(pipeline: Any) -> Generator[None]:
    """For the length of a `with`, models compute as PyTorch's autocast has it; what samples stays in float32."""
    denoisers = [model for model in (pipeline.transformer, pipeline.transformer_2) if model is not None]
    wrapped = [(model, "forward") for model in (pipeline.text_encoder, *denoisers)] + [(pipeline.vae, "decode")]
    hooks = [
        model.register_forward_hook(lambda _model, _inputs, outputs: (outputs[0].float(), *outputs[1:]))
        for model in denoisers
    ]
    for owner, name in wrapped:
        setattr(owner, name, torch.autocast("cpu", torch.bfloat16)(getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name in wrapped:
            delattr(owner, name)  # that of the class is there again
        for hook in hooks:
            hook.remove()


def scheduler_of(sampling: SamplingSection) -> Any:
    """diffusers' scheduler for a recipe's sampling."""
    if sampling.solver == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=sampling.shift)
    flow: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": sampling.shift}
    if sampling.solver == "dpm++":
        return DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **flow)
    scheduler: Any = UniPCMultistepScheduler(**flow)
    if sampling.timesteps is not None:
        _list_timesteps(scheduler, sampling.timesteps)
    return scheduler


def _list_timesteps(scheduler: Any, timesteps: Sequence[float]) -> None:
    """The pipeline only ever asks for a number of steps; the scheduler itself would take the noise levels."""
    set_timesteps = scheduler.set_timesteps
    sigmas = np.array(timesteps) / scheduler.config.num_train_timesteps
    scheduler.set_timesteps = lambda _steps, device: set_timesteps(sigmas=sigmas, device=device)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def psnr(actual: np.ndarray, expected: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 frames, in dB; infinite when they are equal."""
    assert actual.dtype == expected.dtype == np.uint8
    assert actual.shape == expected.shape
    mean_square = float(np.mean((actual.astype(np.float64) - expected) ** 2))
    return float("inf") if mean_square == 0.0 else float(10 * np.log10(255**2 / mean_square))
