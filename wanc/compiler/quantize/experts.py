"""What quantising a recipe's model takes, stage by stage: the text encoder, texts, for each expert trajectories,
decisions, and training where that was asked for, and the decoder.

What comes later never meets what the float model would have given it, but what the quantised one before it gives, which
is what ships: denoisers are calibrated on texts behind the encoder, the low-noise one behind the high-noise one, and
the decoder behind both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from wanc.compiler.kv_cache import cache_facts
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.calibrate import Calibrate
from wanc.compiler.quantize.decoder import QuantizeDecoder
from wanc.compiler.quantize.keep_patterns import check_patterns
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.text_encoder import QuantizeTextEncoder
from wanc.compiler.quantize.texts import Texts
from wanc.compiler.quantize.train import Train
from wanc.compiler.resolve import Resolved
from wanc.compiler.stages.running import Run
from wanc.compiler.stages.stage import Tree
from wanc.compiler.trajectory import Trajectory
from wanc.recipe.quantize import CalibrateSection, QuantizeSection
from wanc.recipe.schema import SamplingSection
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.model import DECODER, HIGH, LOW, TEXT_ENCODER

EXPERTS = (HIGH, LOW)
LEARNING_RATES = {"int8": 5e-5, "int4-weight": 3e-4}
"""At which tiny-wan learns best, by scheme: the coarser the codes, the farther weights have to go."""
Size = tuple[int, int, int]
"""Of a video: height, width, frames."""


class DecoderStages(NamedTuple):
    """The stages of the decoder, in their order."""

    calibrate: Calibrate
    quantize: QuantizeDecoder


class ExpertStages(NamedTuple):
    """The stages of one expert, in their order."""

    calibrate: Calibrate
    quantize: Quantize
    train: Train | None


@dataclass(frozen=True)
class QuantizeStages:
    """The stages between fuse and engine, of a recipe that quantises; `experts` in the order in which they work.

    What stays in float has none: `text_encoder` or `decoder` is None then, or there are no experts. Where there are
    neither experts nor a decoder, nobody reads `texts`.
    """

    text_encoder: QuantizeTextEncoder | None
    texts: Texts
    experts: tuple[ExpertStages, ...]
    decoder: DecoderStages | None

    @classmethod
    def of(cls, resolved: Resolved) -> QuantizeStages | None:
        """None where the recipe quantises nothing."""
        asked, sampling = resolved.recipe.quantize, resolved.recipe.sampling
        shapes = asked.calibrate.shapes or resolved.recipe.shapes
        if not asked.schemes:
            return None
        assert sampling is not None and shapes is not None, "the recipe's schema lets only videos be quantised"
        assert resolved.tokenizer is not None, "a text-to-video model has a tokenizer"
        prompts = resolved.prompts[: asked.calibrate.clips]
        texts = Texts((*prompts, sampling.negative_prompt), resolved.tokenizer)
        trajectory, cache = trajectory_of(sampling, resolved.boundary), cache_facts(resolved.recipe)
        sizes = tuple((shape.height, shape.width, shape.frames) for shape in shapes)
        components = tuple(name for name in quantized_components(resolved) if name in EXPERTS)
        experts = [
            ExpertStages(
                calibrate=_calibrate(component, asked.calibrate, trajectory, sizes, cache),
                quantize=_quantize(component, asked, trajectory, resolved.model.zeros, cache),
                train=_train(component, components, asked, trajectory, sizes[0], cache),
            )
            for component in components
        ]
        decoder = _decoder(resolved, trajectory, sizes) if asked.vae_decoder != "none" else None
        return cls(_text_encoder(resolved, sampling), texts, tuple(experts), decoder)

    @property
    def tools(self) -> tuple[str, ...]:
        behind = (stage for each in (*self.experts, self.decoder) if each for stage in (self.texts, *each))
        return tuple(tool for stage in (self.text_encoder, *behind) if stage is not None for tool in stage.tools)

    def run(self, run: Run, program: Tree, exported: Tree, source: Tree) -> Tree:
        """The program with all quantised that is to be; `run` yields the result of one stage.

        Raises RecipeError for a keep pattern that fits nothing, before anything is sampled.
        """
        self._check_patterns(program)
        inputs = {"exported": exported, "source": source}
        if self.text_encoder is not None:
            program = program.joined(run(self.text_encoder, {"program": program, **inputs}))
        if not self.experts and self.decoder is None:
            return program
        texts = run(self.texts, {"program": program, **inputs})
        for expert in self.experts:
            fused = program
            inputs |= {"program": program, "texts": texts}
            samples = run(expert.calibrate, inputs)
            program = program.joined(run(expert.quantize, {**inputs, "samples": samples}))
            if expert.train is not None:
                program = program.joined(run(expert.train, {**inputs, "program": program, "fused": fused}))
        if self.decoder is not None:
            inputs |= {"program": program, "texts": texts}
            samples = run(self.decoder.calibrate, inputs)
            program = program.joined(run(self.decoder.quantize, {**inputs, "samples": samples}))
        return program

    def _check_patterns(self, program: Tree) -> None:
        components = Program.read(program.locate()[FILE]).components
        stages = [*filter(None, [self.text_encoder]), *(expert.quantize for expert in self.experts)]
        stages += [self.decoder.quantize] if self.decoder else []
        parameters = {stage.component: components[stage.component].weights for stage in stages}
        check_patterns(parameters, [*dict.fromkeys(pattern for stage in stages for pattern in stage.keep)])


def quantized_components(resolved: Resolved) -> tuple[str, ...]:
    """The components that a recipe quantises, in the order in which they work."""
    return resolved.recipe.quantize.components(resolved.model.components)


def _text_encoder(resolved: Resolved, sampling: SamplingSection) -> QuantizeTextEncoder | None:
    asked = resolved.recipe.quantize
    if asked.text_encoder == "none":
        return None
    assert resolved.tokenizer is not None, "a text-to-video model has a tokenizer"
    rule = asked.keep.sensitivity
    return QuantizeTextEncoder(
        prompts=(*resolved.prompts, sampling.negative_prompt),
        tokenizer=resolved.tokenizer,
        scheme=asked.text_encoder,
        observer=asked.calibrate.observer,
        alpha=asked.smooth.alpha,
        keep=asked.patterns_of(TEXT_ENCODER),
        max_drop_db=rule and rule.max_drop_db,
        int8_share=rule and rule.int8_share,
        zeros=resolved.model.zeros,
    )


def _decoder(resolved: Resolved, trajectory: Trajectory, sizes: tuple[Size, ...]) -> DecoderStages:
    asked = resolved.recipe.quantize
    quantize = QuantizeDecoder(
        scheme=asked.vae_decoder,
        observer=asked.calibrate.observer,
        keep=asked.patterns_of(DECODER),
        zeros=resolved.model.zeros,
    )
    calibrate = _calibrate(DECODER, asked.calibrate, trajectory, sizes, cache_facts(resolved.recipe))
    return DecoderStages(calibrate, quantize)


def trajectory_of(sampling: SamplingSection, boundary: float | None) -> Trajectory:
    """How a recipe samples; `boundary` is the noise level from which up the high-noise expert works."""
    return Trajectory(
        solver=sampling.solver,
        steps=sampling.steps,
        timesteps=sampling.timesteps,
        shift=sampling.shift,
        guidance_high=sampling.guidance.high,
        guidance_low=sampling.guidance.low,
        boundary=boundary,
    )


def _calibrate(
    component: str,
    asked: CalibrateSection,
    trajectory: Trajectory,
    sizes: tuple[Size, ...],
    cache: CacheFacts | None,
) -> Calibrate:
    return Calibrate(
        component=component,
        trajectory=trajectory,
        shapes=sizes,
        clips=asked.clips,
        timestep_bins=asked.timestep_bins,
        seed=asked.seed,
        cache=cache,
    )


def _quantize(
    component: str,
    asked: QuantizeSection,
    trajectory: Trajectory,
    zeros: tuple[str, ...],
    cache: CacheFacts | None,
) -> Quantize:
    rule = asked.keep.sensitivity
    return Quantize(
        component=component,
        scheme=asked.scheme,
        observer=asked.calibrate.observer,
        alpha=asked.smooth.alpha,
        keep=asked.patterns_of(component),
        max_drop_db=rule and rule.max_drop_db,
        int8_share=rule and rule.int8_share,
        trajectory=trajectory,
        is_trained=asked.method == "qat",
        zeros=zeros,
        attention=asked.attention,
        cache=cache,
    )


def _train(
    component: str,
    experts: tuple[str, ...],
    asked: QuantizeSection,
    trajectory: Trajectory,
    size: Size,
    cache: CacheFacts | None,
) -> Train | None:
    if asked.method != "qat":
        return None
    return Train(
        component=component,
        experts=experts,
        scheme=asked.scheme,
        keep=asked.patterns_of(component),
        trajectory=trajectory,
        shape=size,
        seed=asked.calibrate.seed,
        learning_rate=LEARNING_RATES[asked.scheme],
        rounds=asked.train.rounds,
        requests=asked.train.requests,
        validation=asked.train.validation,
        cache=cache,
    )
