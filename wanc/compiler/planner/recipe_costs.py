"""What the videos of a recipe cost: surveys of its model, at the recipe's sizes and in its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from math import prod

from wanc.compiler.kv_cache import seen_tokens
from wanc.compiler.planner.costs import ComponentCosts, Format, VideoCosts
from wanc.compiler.planner.count import BYTES, Numbers, count_component, video_sizes
from wanc.compiler.planner.decoding import HELD, Decoder, HeldByDecoder
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.session_bytes import with_past
from wanc.compiler.planner.survey import LAYERS, Survey
from wanc.compiler.quantize.keep_patterns import fits
from wanc.models.wan.checkpoint import Checkpoint
from wanc.models.wan.facts import facts_of
from wanc.models.weights import Weight
from wanc.recipe.quantize import Scheme
from wanc.recipe.schema import KeyValueCacheSection, Recipe, SamplingSection
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.model import DECODER, HIGH, LOW, TEXT_ENCODER, Model
from wanc.runtime.solvers.create import create_schedule
from wanc.words import CPU

OF_TIMESTEP = ("condition_embedder.time_embedder.", "condition_embedder.time_proj.")
"""What the names of a denoiser's weights begin with that only a timestep meets."""
LINEARS: Mapping[Scheme, tuple[Format | None, float]] = {
    "int8": ("int8", 1.0),
    "int8-dynamic": ("int8", 1.0),
    "int8-weight": (None, 1.0),
    "int4-weight": (None, 0.5),
    "fp8": ("fp8", 1.0),
}
"""In what quantised Linears are multiplied, None for the compute type, and the bytes of an element of their weights."""
SCRATCH: Mapping[Format, float] = {"fp32": 2.89, "bf16": 1.19, "fp16": 1.19}
"""What a decoder's convolutions take in all, by what is alive between them: of TensorRT-RTX 1.7.1.116's build logs, of
480p and 720p alike. In float32 the kernels copy what they convolve."""


def video_costs(
    recipe: Recipe,
    checkpoint: Checkpoint,
    surveys: Mapping[str, Survey],
    shape: ShapeSection,
    scheme: Scheme | None = None,
) -> VideoCosts:
    """The costs of one of the recipe's sizes of video; with another `scheme` than the recipe's if one is given."""
    sampling = recipe.sampling
    assert sampling is not None
    facts = facts_of(checkpoint)
    strides = (facts.model.temporal_stride, facts.model.spatial_stride)
    sizes = video_sizes(
        shape.height, shape.width, shape.frames,
        strides=strides, patch=facts.patch, text_length=facts.model.text_length,
    )  # fmt: skip
    steps = steps_by_expert(sampling, facts.model)

    def counted(
        name: str, numbers: Numbers, executions: int, branches: int, sizes: Mapping[str, int] = sizes
    ) -> ComponentCosts:
        blocks = checkpoint.components[name].config.get(LAYERS)
        return count_component(name, surveys[name], blocks, sizes, numbers, executions=executions, branches=branches)

    asked, cache = scheme or recipe.quantize.scheme, recipe.runtime.kv_cache
    denoised = _of_a_chunk(cache, checkpoint, shape, sizes) if cache else sizes
    chunks = -(-sizes["frames"] // cache.chunk) if cache else 1

    def expert(name: str) -> ComponentCosts:
        # Behind each chunk of a causal model its clean latents are gone through once more.
        executions = chunks * (steps[name] + (cache is not None))
        branches = guidance_branches(sampling, name)
        costs = counted(name, _numbers(recipe, name, asked), executions, branches, denoised)
        if cache is not None:
            costs = with_past(costs, checkpoint.components[name].config, cache, facts, shape)
        return replace(costs, timed=_timed(checkpoint.components[name].weights))

    experts = tuple(expert(name) for name in (HIGH, LOW) if steps.get(name))
    branches = max(expert.branches for expert in experts)
    text_encoder = counted(TEXT_ENCODER, _numbers(recipe, TEXT_ENCODER, recipe.quantize.text_encoder), 1, branches)
    frames = counted(DECODER, _decoder_numbers(recipe), sizes["frames"], 1)
    return VideoCosts(shape.name, text_encoder, experts, _decoder(frames, _decoder_format(recipe)))


def _of_a_chunk(
    cache: KeyValueCacheSection, checkpoint: Checkpoint, shape: ShapeSection, video: Mapping[str, int]
) -> dict[str, int]:
    """The sizes at which a causal denoiser is executed: those of a chunk, and what it sees when the ring is full."""
    frames = min(cache.chunk, video["frames"])
    return {**video, "frames": frames, "past": seen_tokens(cache, facts_of(checkpoint), shape)}


def decoder(recipe: Recipe, checkpoint: Checkpoint, survey: Survey, shape: ShapeSection, device: Device) -> Decoder:
    """What decoding pictures of a size takes on a device, by the decoder's `survey`."""
    facts, compute = facts_of(checkpoint), _decoder_format(recipe)
    strides = (facts.model.temporal_stride, facts.model.spatial_stride)

    @cache
    def costs_at(height: int, width: int) -> ComponentCosts:
        sizes = video_sizes(height, width, shape.frames, strides=strides, patch=facts.patch, text_length=0)
        return count_component(DECODER, survey, None, sizes, _decoder_numbers(recipe), executions=sizes["frames"])

    held = HELD.get(recipe.engine.kind) or HeldByDecoder(1.0, SCRATCH[compute], SCRATCH[compute])
    return Decoder(costs_at, held, device, shape.height, shape.width, shape.frames, facts.model.spatial_stride)


def _decoder_format(recipe: Recipe) -> Format:
    return "fp32" if "vae" in recipe.islands else recipe.precision.compute


def _decoder_numbers(recipe: Recipe) -> Numbers:
    return _numbers(recipe, DECODER, recipe.quantize.vae_decoder, _decoder_format(recipe))


def steps_by_expert(sampling: SamplingSection, model: Model) -> dict[str, int]:
    """How many of the steps each expert makes."""
    schedule = create_schedule(
        sampling.solver, shift=sampling.shift, steps=sampling.steps, timesteps=sampling.timesteps
    )
    known = replace(model, boundary=sampling.boundary) if sampling.boundary is not None else model
    names = [known.component_at(timestep) for timestep in schedule.timesteps.tolist()]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def guidance_branches(sampling: SamplingSection, expert: str) -> int:
    """How many branches an expert executes: guidance of 1 asks for no second one."""
    scale = sampling.guidance.high if expert == HIGH else sampling.guidance.low
    return 1 if scale == 1 else 2


def _float(recipe: Recipe, compute: Format) -> Numbers:
    return Numbers(_between(recipe, compute), compute, lambda _: compute, lambda _: BYTES[compute])


def _between(recipe: Recipe, compute: Format) -> Format:
    """In which numbers values lie between products: on a CPU in fp32, whatever it multiplies in."""
    return "fp32" if recipe.targets == CPU else compute


def _numbers(recipe: Recipe, component: str, scheme: Scheme, compute: Format | None = None) -> Numbers:
    """As the recipe asks for; what else sensitivity keeps in float is only known when it has been measured."""
    compute = compute or recipe.precision.compute
    if scheme == "none" or (scheme == "fp8" and recipe.quantize.emulate):
        return _float(recipe, compute)
    found, stored = LINEARS[scheme]
    attention = "fp8" if scheme == recipe.quantize.attention == "fp8" else compute
    patterns = recipe.quantize.patterns_of(component)

    def is_kept(linear: str) -> bool:
        return any(fits(pattern, component, linear) for pattern in patterns)

    return Numbers(
        _between(recipe, compute),
        attention,
        lambda linear: compute if found is None or is_kept(linear) else found,
        lambda linear: BYTES[compute] if is_kept(linear) else stored,
        convolves=component == DECODER,
    )


def _timed(weights: Mapping[str, Weight]) -> int:
    """Bytes of what embeds the timestep, in float32."""
    return BYTES["fp32"] * sum(prod(weight.shape) for name, weight in weights.items() if name.startswith(OF_TIMESTEP))


def _decoder(counted: ComponentCosts, compute: Format) -> ComponentCosts:
    """A decoder is executed whole: the caches of all its parts are there while one of them works."""
    caches = sum(part.kept for part in counted.parts)
    parts = tuple(
        replace(part, activation=round(part.activation * SCRATCH[compute]) + caches, kept=0) for part in counted.parts
    )
    return replace(counted, parts=parts)
