"""The recipe: what to build. Every key that wanc honours is a field here, and nothing else is accepted.

The classes are the one definition of the format: loading, error messages, `wanc recipe show` and the JSON Schema for
editors all come from them. The text under a field, or that of its class, is its description in all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator

from wanc.recipe.causal_rules import CAUSAL_RULES
from wanc.recipe.checks import (
    LIST,
    MAPPING,
    WORD,
    byte_count,
    falling,
    fault,
    short_enough,
    whole_number,
    without_repeats,
    word_or_list,
    word_or_mapping,
)
from wanc.recipe.division import check_closed, check_no_cache
from wanc.recipe.engine_rules import RULES, default_islands, default_targets
from wanc.recipe.evaluate import EvaluateSection
from wanc.recipe.model import ModelSection
from wanc.recipe.partition import PartitionSection
from wanc.recipe.quantize import QuantizeSection
from wanc.recipe.section import FILE_NAME, VERSION, Section
from wanc.recipe.shapes import Shapes
from wanc.runtime.video_limits import (
    GUIDANCE_RANGE,
    LARGEST_SIDE,
    MOST_CHUNK_FRAMES,
    MOST_CHUNKS,
    MOST_FPS,
    MOST_STEPS,
)
from wanc.words import CacheFormat, CachePositions, Compute, EngineKind, FusedOperator, Island, Target

One = Annotated[Literal[1], BeforeValidator(whole_number)]
FileName = Annotated[str, Field(pattern=FILE_NAME, max_length=64)]
Lint = Literal["guidance-order", "flow-shift", "checkpoint-shift", "shifted-timesteps", "idle-expert"]
PassName = Literal[
    "dead-code", "opset", "fold", "share", "tidy", "strided-writes", "rope", "norms", "activations", "linear",
    "padding", "attention", "attention-heads", "modulate", "merge-projections",
]  # fmt: skip
PartName = Literal["time", "shape", "request", "chunk"]
PARTS: tuple[PartName, ...] = get_args(PartName)
Scale = Annotated[float, Field(ge=GUIDANCE_RANGE[0], le=GUIDANCE_RANGE[1])]


class GuidanceSection(Section):
    """How strongly each expert follows the prompt; 1 is no guidance, and saves every second execution."""

    high: Scale
    """For the high-noise expert, which makes the first steps."""
    low: Scale
    """For the low-noise expert, which makes the last steps."""


NO_GUIDANCE = GuidanceSection(high=1.0, low=1.0)


class SamplingSection(Section):
    """How a video is made from noise."""

    solver: Literal["unipc", "euler", "dpm++", "lcm"] = "unipc"
    """The method of integration."""
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """The number of denoising steps, evenly spaced before the shift."""
    timesteps: (
        Annotated[
            tuple[Annotated[float, Field(gt=0, le=MOST_STEPS)], ...],
            Field(min_length=1, max_length=MOST_STEPS),
            AfterValidator(falling),
        ]
        | None
    ) = None
    """Instead of steps, for few-step models: the timesteps before the shift, such as [1000, 750, 500, 250]."""
    shift: Annotated[float, Field(gt=0)]
    """How much the steps lean towards high noise; 1 is not at all, Wan2.2-T2V-A14B was tuned with 12."""
    guidance: GuidanceSection = NO_GUIDANCE
    """Guidance scales, {high: for the high-noise expert, low: for the low-noise expert}; few-step models have none."""
    boundary: Annotated[float, Field(ge=0, le=1)] | None = None
    """The noise level, 0 to 1, from which up the high-noise expert works; the model's own unless given."""
    negative_prompt: Annotated[str, AfterValidator(short_enough)] = ""
    """What the unconditional branch is told."""
    fps: Annotated[int, Field(ge=1, le=MOST_FPS)] = 16
    """Frames per second of the video's file."""
    allow: Annotated[tuple[Lint, ...], AfterValidator(without_repeats)] = ()
    """Settings that are meant although they look like a known mistake, by the name that the error gives them."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.steps is not None and self.timesteps is not None:
            hint = "remove one of them; `steps: null` takes away an inherited one"
            raise fault("steps and timesteps exclude each other", hint, ("timesteps",))
        if self.steps is None and self.timesteps is None:
            message, hint = "either steps or timesteps has to be given", "add a line such as `steps: 40`"
            raise fault(message, hint, without=("steps", "timesteps"))
        return self

    @model_validator(mode="after")
    def _guided_unless_few_step(self) -> Self:
        if self.timesteps is not None and self.guidance != NO_GUIDANCE:
            hint = "remove guidance, or set both scales to 1"
            raise fault("a model with timesteps of its own takes no guidance", hint, ("guidance",))
        if self.timesteps is None and "guidance" not in self.model_fields_set:
            hint = "add a line such as `guidance: {high: 4.0, low: 3.0}`, the scales of Wan2.2-T2V-A14B"
            raise fault("guidance is missing", hint, without=("guidance",))
        return self


class PrecisionSection(Section):
    """The number format of the arithmetic."""

    compute: Compute = "fp32"
    """The format of products, and of all that is no island; bf16 takes openvino or a GPU's engine, fp16 the latter."""
    islands: Annotated[tuple[Island, ...], AfterValidator(without_repeats)] | None = None
    """What stays in fp32 when products do not: all unless given, but the vae on GPUs, and the time part on sm75."""


class FuseSection(Section):
    """Which graph rewrites are made."""

    passes: Annotated[
        Annotated[Literal["default"], Tag(WORD)]
        | Annotated[tuple[PassName, ...], AfterValidator(without_repeats), Tag(LIST)],
        Discriminator(word_or_list),
    ] = "default"
    """The passes by name, in any order, as `wanc passes` lists them; default is all that pay on every engine."""
    skip: Annotated[tuple[PassName, ...], AfterValidator(without_repeats)] = ()
    """Passes to leave out."""
    hoist: Annotated[tuple[PartName, ...], AfterValidator(without_repeats)] = PARTS
    """What is cut off the denoising step and computed once: per timestep, request, and, if it is causal, chunk."""


class EngineSection(Section):
    """What executes the graphs."""

    kind: EngineKind = "onnxruntime"
    """The backend."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1), AfterValidator(without_repeats)] | None = None
    """What engines are compiled for: the cpu, or GPUs by compute capability; what the devices are if unset."""
    allow_unfused: Annotated[tuple[FusedOperator, ...], AfterValidator(without_repeats)] = ()
    """Operators that the engine may compute in pieces, where it has no kernel that does all of one."""
    max_build_memory: Annotated[int, BeforeValidator(byte_count)] | None = None
    """The most bytes that building one engine may take, such as 8GiB: larger segments are cut, for GPUs."""
    weight_streaming: bool = False
    """Whether engines for GPUs may leave weights in the host's memory, and fetch them as they go."""
    check: Literal["on", "off"] = "on"
    """Whether what was built is compared with the untouched model; off is recorded in the manifest."""


class BudgetsSection(Section):
    """How much memory a run may take; on a CPU, both are of the same."""

    device: Annotated[int, BeforeValidator(byte_count)] | None = None
    """For open engines and what they compute, such as 6GiB; what is larger is cut, and streamed from disk."""


TileSide = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class TileSection(Section):
    """The tiles in which pictures are decoded, in pixels. Where a picture is no larger than one, it is whole."""

    height: TileSide
    """Of a tile, a multiple of what one latent is high, such as 256."""
    width: TileSide
    """Of a tile, a multiple of what one latent is wide, such as 256."""
    stride_height: TileSide | None = None
    """From one tile to that below it, at least three quarters of the height; without it they overlap by 64 pixels."""
    stride_width: TileSide | None = None
    """From one tile to that beside it, at least three quarters of the width; without it they overlap by 64 pixels."""


class DecodeSection(Section):
    """How latents become pictures."""

    tile: Annotated[
        Annotated[Literal["auto", "off"], Tag(WORD)] | Annotated[TileSection, Tag(MAPPING)],
        Discriminator(word_or_mapping),
    ] = "auto"
    """The tiles in which they are decoded: off for none, auto for those that fit the budget, or their sizes."""


class KeyValueCacheSection(Section):
    """What a causal model keeps of finished chunks: keys and values of each block, expert and guidance branch."""

    chunk: Annotated[int, Field(ge=1, le=MOST_CHUNK_FRAMES)]
    """Latent frames that are made together: what the model was trained with, such as 3."""
    window: Annotated[int, Field(ge=1, le=MOST_CHUNKS)]
    """How many finished chunks a chunk sees besides itself and the sink, the last ones."""
    sink: Annotated[int, Field(ge=0, le=MOST_CHUNKS)] = 0
    """How many of a video's first chunks are never given up."""
    precision: CacheFormat = "fp32"
    """The format in which they are kept; int8 and int4 have a scale for each token and head."""
    positions: CachePositions = "absolute"
    """Of frames in the video, or relative to what is in sight, in the order of that: such positions stay bounded."""


class RuntimeSection(Section):
    """How the bundle behaves when it runs."""

    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 is all cores."""
    decode: DecodeSection = DecodeSection()
    budgets: BudgetsSection | None = None
    kv_cache: KeyValueCacheSection | None = None

    @property
    def device_budget(self) -> int | None:
        """In bytes, if there is one."""
        return self.budgets.device if self.budgets else None


class Recipe(Section):
    """One bundle to build."""

    wanc: One
    """The version of the recipe format."""
    name: FileName
    """The bundle's name."""
    version: Annotated[str, Field(pattern=VERSION, max_length=32)] = "0.1.0"
    """The bundle's version, as in PEP 440."""
    model: ModelSection
    shapes: Shapes | None = None
    """The sizes of video that the bundle can make, each a profile of the engines."""
    sampling: SamplingSection | None = None
    precision: PrecisionSection = PrecisionSection()
    fuse: FuseSection = FuseSection()
    quantize: QuantizeSection = QuantizeSection()
    partition: PartitionSection = PartitionSection()
    engine: EngineSection = EngineSection()
    runtime: RuntimeSection = RuntimeSection()
    evaluate: EvaluateSection | None = None
    division: Literal["open", "closed"] | None = None
    """Of MLPerf Inference, if it is a result of that: closed refuses what its rules forbid, naming the rule."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_cached(cls, written: Any) -> Any:
        if isinstance(written, Mapping) and written.get("division") == "closed":
            check_no_cache(written)
        return written

    @model_validator(mode="after")
    def _division_is_kept(self) -> Self:
        if self.division == "closed":
            check_closed(self)
        return self

    @property
    def cache_format(self) -> CacheFormat | None:
        """In what a causal model keeps keys and values; None of any other model."""
        return self.runtime.kv_cache.precision if self.runtime.kv_cache else None

    @property
    def cache_positions(self) -> CachePositions:
        """By what a causal model tells apart the frames that it sees."""
        return self.runtime.kv_cache.positions if self.runtime.kv_cache else "absolute"

    @property
    def targets(self) -> tuple[Target, ...]:
        """What engines are compiled for."""
        return default_targets(self) if self.engine.targets is None else self.engine.targets

    @property
    def islands(self) -> tuple[Island, ...]:
        """What stays in fp32 where products are not."""
        return default_islands(self) if self.precision.islands is None else self.precision.islands

    @model_validator(mode="after")
    def _engine_can_do_it(self) -> Self:
        for rule in RULES:
            rule(self)
        return self

    @model_validator(mode="after")
    def _merged_projections_are_not_quantised(self) -> Self:
        # What is merged is no weight of the checkpoint: it would stay in float, and nobody would be told.
        passes = () if self.fuse.passes == "default" else self.fuse.passes
        merges = "merge-projections" in passes and "merge-projections" not in self.fuse.skip
        if merges and self.quantize.schemes:
            hint = f"remove merge-projections, or set quantize.{self.quantize.asking} to none"
            at = ("fuse", "passes", passes.index("merge-projections"))
            raise fault("merged projections cannot be quantised so far", hint, at)
        return self

    @model_validator(mode="after")
    def _only_videos_are_calibrated(self) -> Self:
        if self.quantize.schemes and self.model.source is None:
            hint = "remove quantize, or give a Wan checkpoint as model.source"
            at = ("quantize", self.quantize.asking)
            raise fault("only text-to-video models can be calibrated so far", hint, at)
        return self

    @model_validator(mode="after")
    def _video_models_make_videos(self) -> Self:
        for key in ("shapes", "sampling"):
            given = getattr(self, key) is not None
            if self.model.source is not None and not given:
                hint = "a model given as source makes videos; `wanc recipe new` shows how"
                raise fault(f"{key} is missing", hint, without=(key,))
            if self.model.source is None and given:
                raise fault("only a model given as source makes videos", "remove it", (key,))
        if self.model.source is None and self.evaluate is not None:
            raise fault("only text-to-video models are reported on so far", "remove it", ("evaluate",))
        if self.model.source is None and self.runtime.decode != DecodeSection():
            raise fault("only a model given as source makes videos", "remove it", ("runtime", "decode"))
        return self

    @model_validator(mode="after")
    def _causal_models_have_caches(self) -> Self:
        for rule in CAUSAL_RULES:
            rule(self)
        return self

    @model_validator(mode="after")
    def _evaluated_shape_is_there(self) -> Self:
        names = [shape.name for shape in self.shapes or ()]
        if self.evaluate and self.evaluate.shape is not None and self.evaluate.shape not in names:
            hint = f"its shapes are {', '.join(names)}"
            raise fault(f"there is no shape {self.evaluate.shape!r}", hint, ("evaluate", "shape"))
        return self


class RecipeFile(Recipe):
    """A recipe as it is written; `extends` and `matrix` are worked off when it is loaded."""

    extends: str | None = None
    """The recipe that this one changes, relative to this file: mappings merge, lists replace, a null removes."""
    matrix: dict[str, dict[str, JsonValue]] | None = None
    """Variants, each a bundle of its own: a name, and what it sets, such as `fast: {sampling.steps: 8}`."""


FILE_KEYS = frozenset(RecipeFile.model_fields.keys() - Recipe.model_fields.keys())
