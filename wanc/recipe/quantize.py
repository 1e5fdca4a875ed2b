"""The `quantize` part of a recipe: in which fewer bits Linears are stored, and what decides how."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from wanc.recipe.checks import alpha, fault, without_repeats
from wanc.recipe.model import SourcePath
from wanc.recipe.section import MODULE_GLOB, Section
from wanc.recipe.shapes import Shapes
from wanc.runtime.model import DECODER, HIGH, LOW, TEXT_ENCODER
from wanc.words import AttentionFormat, Observer

Scheme = Literal["none", "int8", "int8-dynamic", "int8-weight", "int4-weight", "fp8"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
WEIGHT_ONLY: tuple[Scheme, ...] = ("int8-weight", "int4-weight")
TRAINABLE: tuple[Scheme, ...] = ("int8", "int4-weight")
TextEncoderScheme = Literal["none", "int8-weight", "int8"]
TEXT_ENCODER_SCHEMES: tuple[TextEncoderScheme, ...] = get_args(TextEncoderScheme)
DecoderScheme = Literal["none", "int8"]
DECODER_ENDS = ("post_quant_conv", "decoder.conv_in", "decoder.conv_out")
"""What stays in float of a decoder unless a recipe says what does: next to no work, and errors that show at once."""
Method = Literal["ptq", "qat"]
ModuleGlob = Annotated[str, Field(pattern=MODULE_GLOB, max_length=256)]
Alpha = Annotated[Literal["search", "none"] | Annotated[float, Field(ge=0, le=1)], BeforeValidator(alpha)]


class CalibrateSection(Section):
    """The videos that are made with the unquantised model, to measure on."""

    prompts: SourcePath | None = None
    """A text file with a prompt in each line, relative to the file that this line is written in; # begins a comment."""
    clips: Annotated[int, Field(ge=1, le=1024)] = 16
    """How many videos; they take the prompts in turn, and go back to the first one after the last."""
    shapes: Shapes | None = None
    """The sizes of these videos, which they take in turn; the recipe's own unless given. Smaller ones are faster."""
    timestep_bins: Annotated[int, Field(ge=1, le=64)] = 4
    """Into how many ranges of timesteps the measurements are sorted, because activations change with the noise."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of the first video's noise; the next one's is one more."""
    observer: Observer = "absmax"
    """What chooses the range of codes: the largest value, a percentile, the least error, or the least entropy lost."""

    @model_validator(mode="after")
    def _every_shape_has_a_clip(self) -> Self:
        if self.shapes is not None and len(self.shapes) > self.clips:
            hint = f"raise clips to {len(self.shapes)}, or remove shapes"
            raise fault(f"{self.clips} clips cannot take {len(self.shapes)} shapes in turn", hint, ("shapes",))
        return self


class SmoothSection(Section):
    """Moving outliers of activations into weights, where schemes round activations as well."""

    alpha: Alpha = "search"
    """How much of an outlier moves, 0 to 1; search tries several for each input, none moves nothing."""


class SensitivitySection(Section):
    """Which Linears stay in float by what quantising them does to the result: one of the two rules."""

    max_drop_db: Annotated[float, Field(gt=0)] | None = None
    """A Linear stays in float if quantising it costs the final latents, or the text states, more than this, in dB."""
    int8_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The most sensitive Linears stay in float, as long as this share of the Linears' FLOPs is quantised."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.max_drop_db is not None and self.int8_share is not None:
            hint = "remove one of them; `max_drop_db: null` takes away an inherited one"
            raise fault("max_drop_db and int8_share exclude each other", hint, ("int8_share",))
        if self.max_drop_db is None and self.int8_share is None:
            raise fault("either max_drop_db or int8_share has to be given", "add one, such as `max_drop_db: 0.5`")
        return self


class KeepSection(Section):
    """Which Linears stay in float."""

    patterns: Annotated[tuple[ModuleGlob, ...], AfterValidator(without_repeats)] = (
        "patch_embedding",
        "condition_embedder",
        "proj_out",
    )
    """Globs over module paths, with or without `component/` before them, of Linears or of what these lie in."""
    sensitivity: SensitivitySection | None = None
    """Which others stay in float by what quantising them does to the result; none unless given."""


class TrainSection(Section):
    """How long a quantised model learns from the unquantised one, where the method is qat."""

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 4
    """At most so many rounds for each expert; one that brings nothing for ten rounds is the last."""
    requests: Annotated[int, Field(ge=2, le=100_000)] = 384
    """From how many runs of the prompts it learns, each with noise of its own."""
    validation: Annotated[int, Field(ge=1, le=10_000)] = 12
    """By how many other runs it is judged after every round."""


OF_DENOISERS = ("attention", "method", "train", "emulate")
OF_VIDEOS = ("clips", "shapes", "seed")
"""Keys of the section, and of calibrate, that say nothing of the text encoder."""
OF_STEPS = "timestep_bins"
"""The key of calibrate that is about denoisers alone."""
OF_LINEARS = (("smooth",), ("keep", "sensitivity"))
"""What there is to say of Linears, and not of the decoder's convolutions."""
ASKING = ("scheme", "text_encoder", "vae_decoder")
"""The keys that ask for a scheme."""


class QuantizeSection(Section):
    """Whether weights and activations are stored in fewer bits."""

    scheme: Scheme = "none"
    """The format of Linears: weights and activations, activations by each input's own range, or weights alone."""
    text_encoder: TextEncoderScheme = "none"
    """The format of the text encoder's Linears, whatever that of the denoisers' is."""
    vae_decoder: DecoderScheme = "none"
    """The format of the convolutions of the VAE's decoder."""
    attention: AttentionFormat = "float"
    """In what the products of the denoisers' attentions are multiplied: fp8 goes with the scheme fp8."""
    method: Method = "ptq"
    """How weights become codes: from the trained ones, by measuring (ptq), or by training on with rounding (qat)."""
    calibrate: CalibrateSection = CalibrateSection()
    smooth: SmoothSection = SmoothSection()
    keep: KeepSection = KeepSection()
    train: TrainSection = TrainSection()
    emulate: bool = False
    """Carry out in float what the engine has no kernels for: it shows the scheme's accuracy, and not its speed."""

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Those that are asked for, of denoisers first, each once; none where nothing is quantised."""
        asked: tuple[Scheme, ...] = (self.scheme, self.text_encoder, self.vae_decoder)
        return tuple(dict.fromkeys(scheme for scheme in asked if scheme != "none"))

    def components(self, of: Collection[str]) -> tuple[str, ...]:
        """Those of a model's components that are quantised, in the order in which they work."""
        schemes = {TEXT_ENCODER: self.text_encoder, HIGH: self.scheme, LOW: self.scheme, DECODER: self.vae_decoder}
        return tuple(name for name, scheme in schemes.items() if scheme != "none" and name in of)

    @property
    def asking(self) -> str:
        """The key that asks for a scheme, the denoisers' if several do."""
        return next(key for key in ASKING if getattr(self, key) != "none")

    @property
    def rounds_activations(self) -> bool:
        """Whether a scheme is about the inputs of Linears as well, so that there is something to smooth."""
        return any(scheme not in ("none", *WEIGHT_ONLY) for scheme in (self.scheme, self.text_encoder))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of what stays in float: what is written, or what is usual for all that is quantised."""
        own = (self.patterns_of(name) for name in (HIGH, DECODER))
        return tuple(dict.fromkeys(pattern for patterns in own for pattern in patterns))

    def patterns_of(self, component: str) -> tuple[str, ...]:
        """The patterns of what stays in float of a component: what is written, or what is usual for it."""
        if "patterns" in self.keep.model_fields_set:
            return self.keep.patterns
        if component == DECODER:
            return DECODER_ENDS if self.vae_decoder != "none" else ()
        return self.keep.patterns if self.scheme != "none" else ()

    @property
    def _unused_of_calibrate(self) -> tuple[str, ...]:
        """The keys of calibrate that say nothing of what is quantised."""
        if self.scheme != "none":
            return ()
        return (*(OF_VIDEOS if self.vae_decoder == "none" else ()), OF_STEPS)

    @model_validator(mode="after")
    def _nothing_without_a_scheme(self) -> Self:
        # What was written would be passed over, and the bundle would be larger and slower than its author thinks.
        given = [key for key in QuantizeSection.model_fields if key in self.model_fields_set]
        without_effect = [key for key in given if key not in ASKING]
        if not self.schemes and without_effect:
            hint = "choose a scheme, or remove it; `quantize: null` takes away all that is inherited"
            raise fault("it has no effect while scheme is none", hint, (without_effect[0],))
        return self

    @model_validator(mode="after")
    def _nothing_of_denoisers_without_their_scheme(self) -> Self:
        if self.scheme == "none" and self.schemes:
            given = [("calibrate", key) for key in self._unused_of_calibrate if key in self.calibrate.model_fields_set]
            given += [(key,) for key in OF_DENOISERS if key in self.model_fields_set]
            for path in given:
                hint = f"choose a scheme, or remove it; `{path[-1]}: null` takes away an inherited one"
                raise fault("it is about denoisers, and has no effect while scheme is none", hint, path)
        return self

    @model_validator(mode="after")
    def _nothing_of_linears_for_convolutions_alone(self) -> Self:
        if self.schemes and self.scheme == self.text_encoder == "none":
            for path in OF_LINEARS:
                section = self if len(path) == 1 else self.keep
                if path[-1] in section.model_fields_set:
                    hint = f"quantize Linears as well, or remove it; `{path[-1]}: null` takes away an inherited one"
                    raise fault("it is about Linears, and convolutions alone are quantised", hint, path)
        return self

    @model_validator(mode="after")
    def _measured_on_prompts(self) -> Self:
        if self.schemes and self.calibrate.prompts is None:
            hint = "add a line such as `calibrate: {prompts: prompts.txt}`, a text file with a prompt in each line"
            on_videos = self.scheme != "none" or self.vae_decoder != "none"
            what = "videos of your prompts" if on_videos else "your prompts"
            raise fault(f"{self.schemes[0]} is measured on {what}, and none are given", hint, ("calibrate", "prompts"))
        return self

    @model_validator(mode="after")
    def _attention_fits_the_scheme(self) -> Self:
        if self.attention == "fp8" and self.scheme != "fp8":
            hint = "set quantize.scheme to fp8, or remove it: attention stays in float then"
            raise fault(f"attention in fp8 does not go with Linears in {self.scheme}", hint, ("attention",))
        return self

    @model_validator(mode="after")
    def _method_knows_the_scheme(self) -> Self:
        if self.method == "qat" and self.scheme not in TRAINABLE:
            hint = f"set quantize.scheme to {' or '.join(TRAINABLE)}, or leave method at ptq"
            raise fault(f"there is no training for {self.scheme}", hint, ("method",))
        return self

    @model_validator(mode="after")
    def _trained_only_by_training(self) -> Self:
        if self.method != "qat" and "train" in self.model_fields_set and self.scheme != "none":
            hint = "set quantize.method to qat, or remove it; `train: null` takes away an inherited one"
            raise fault("nothing is trained where the method is ptq", hint, ("train",))
        return self

    @model_validator(mode="after")
    def _smoothed_only_where_activations_are_rounded(self) -> Self:
        if self.schemes and not self.rounds_activations and "smooth" in self.model_fields_set:
            hint = "remove it; `smooth: null` takes away an inherited one"
            leave = "leaves" if len(self.schemes) == 1 else "leave"
            message = f"{' and '.join(self.schemes)} {leave} activations in float: there is nothing to smooth"
            raise fault(message, hint, ("smooth",))
        return self

    @model_serializer(mode="wrap")
    def _only_what_has_an_effect(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was refused when written is not shown as a default either, so that what is shown loads again."""
        unused = set[str]()
        if not self.schemes:
            unused = QuantizeSection.model_fields.keys() - {"scheme"}
        else:
            unused |= {"smooth"} if not self.rounds_activations else set()
            unused |= {"train"} if self.method != "qat" else set()
            unused |= {*OF_DENOISERS} if self.scheme == "none" else set()
        shown = {key: value for key, value in dump(self).items() if key not in unused}
        return {
            **shown,
            **{key: self._with_an_effect(key, shown[key]) for key in ("calibrate", "keep") if key in shown},
        }

    def _with_an_effect(self, section: str, shown: Mapping[str, Any]) -> dict[str, Any]:
        if section == "calibrate":
            return {key: value for key, value in shown.items() if key not in self._unused_of_calibrate}
        unused = {"sensitivity"} if self.scheme == self.text_encoder == "none" else set[str]()
        # Written out, the usual ones of denoisers would be all there are for the decoder as well.
        is_usual = self.scheme != "none" and self.vae_decoder == "none"
        if not is_usual and "patterns" not in self.keep.model_fields_set:
            unused.add("patterns")
        return {key: value for key, value in shown.items() if key not in unused}
