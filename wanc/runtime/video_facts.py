"""What a manifest says of making videos: the model's facts, the sampling defaults, the shapes, all within limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .cache_facts import CacheFacts
from .errors import UserError
from .manifest import is_component
from .model import Model
from .prompts import prompt_fault
from .solvers.create import SOLVERS, create_schedule
from .solvers.schedule import TRAINING_TIMESTEPS
from .strict_json import Fields
from .tiling import Tiling
from .video_limits import (
    FEWEST_TILE_POINTS,
    GUIDANCE_RANGE,
    LARGEST_MEAN,
    LARGEST_OVERLAP,
    LARGEST_SIDE,
    LARGEST_STRIDE,
    LONGEST_TEXT,
    MOST_CHANNELS,
    MOST_FPS,
    MOST_POSITIONS,
    MOST_SHAPES,
    SHIFT_RANGE,
    STD_RANGE,
)

DECODE = "decode"
"""The key of how pictures are decoded, by the shape's name."""


@dataclass(frozen=True)
class Shape:
    """A video size: pixels and frames."""

    name: str
    height: int
    width: int
    frames: int


@dataclass(frozen=True)
class Sampling:
    """How the recipe samples. Exactly one of `steps` and `timesteps` is set; a guidance of 1 is none."""

    solver: str
    steps: int | None
    timesteps: tuple[float, ...] | None
    shift: float
    guidance_high: float
    guidance_low: float
    negative_prompt: str
    fps: int

    @property
    def is_guided(self) -> bool:
        """Whether any expert needs the negative prompt."""
        return self.guidance_high != 1.0 or self.guidance_low != 1.0


@dataclass(frozen=True)
class VideoFacts:
    """The part of a manifest's `runtime` that the task text-to-video has.

    `tilings` are of the shapes, by name, whose pictures are decoded in tiles; `cache` is what a causal model keeps.
    """

    model: Model
    sampling: Sampling
    shapes: tuple[Shape, ...]
    tilings: Mapping[str, Tiling]
    cache: CacheFacts | None = None

    @classmethod
    def read(cls, runtime: Fields) -> VideoFacts:
        """Raises BundleError, by the field's name, for what no model has and nobody can sample with."""
        model = _model(runtime.object("model"))
        shapes = _shapes(runtime, model)
        cache = CacheFacts.read(runtime)
        return cls(model, _sampling(runtime.object("sampling")), shapes, _tilings(runtime, shapes, model), cache)


def _model(fields: Fields) -> Model:
    mean = fields.numbers("latent_mean", minimum=-LARGEST_MEAN, maximum=LARGEST_MEAN)
    std = fields.numbers("latent_std", minimum=STD_RANGE[0], maximum=STD_RANGE[1])
    if not 1 <= len(mean) <= MOST_CHANNELS:
        fields.refuse("latent_mean", f"has {len(mean)} entries; there are 1 to {MOST_CHANNELS} channels")
    if len(std) != len(mean):
        fields.refuse("latent_std", f"has {len(std)} entries, and latent_mean has {len(mean)}: one for each channel")
    return Model(
        text_length=fields.integer("text_length", minimum=1, maximum=LONGEST_TEXT),
        boundary=fields.optional_number("boundary", minimum=0.0, maximum=1.0),
        # The solvers' schedules count in these.
        train_timesteps=fields.integer("train_timesteps", minimum=TRAINING_TIMESTEPS, maximum=TRAINING_TIMESTEPS),
        latent_mean=tuple(mean),
        latent_std=tuple(std),
        spatial_stride=fields.integer("spatial_stride", minimum=1, maximum=LARGEST_STRIDE),
        temporal_stride=fields.integer("temporal_stride", minimum=1, maximum=LARGEST_STRIDE),
        positions=_positions(fields),
    )


def _positions(fields: Fields) -> int:
    """As Wan has them, where a bundle of before says nothing."""
    if "positions" not in fields.values:
        return MOST_POSITIONS
    return fields.integer("positions", minimum=1, maximum=MOST_POSITIONS)


def _sampling(fields: Fields) -> Sampling:
    listed = fields.values.get("timesteps") is not None
    guidance, (low, high) = fields.object("guidance"), GUIDANCE_RANGE
    sampling = Sampling(
        solver=fields.text("solver"),
        steps=None if listed else fields.integer("steps", minimum=1, maximum=TRAINING_TIMESTEPS),
        timesteps=tuple(fields.numbers("timesteps", maximum=TRAINING_TIMESTEPS)) if listed else None,
        shift=fields.number("shift", minimum=SHIFT_RANGE[0], maximum=SHIFT_RANGE[1]),
        guidance_high=guidance.number("high", minimum=low, maximum=high),
        guidance_low=guidance.number("low", minimum=low, maximum=high),
        negative_prompt=fields.text("negative_prompt"),
        fps=fields.integer("fps", minimum=1, maximum=MOST_FPS),
    )
    if fault := prompt_fault(sampling.negative_prompt):
        fields.refuse("negative_prompt", fault)
    _check_schedule(fields, sampling)
    return sampling


def _check_schedule(fields: Fields, sampling: Sampling) -> None:
    """The schedule is made once, so that what makes none is refused before anything is read for it."""
    if sampling.timesteps is not None and not 1 <= len(sampling.timesteps) <= TRAINING_TIMESTEPS:
        count = len(sampling.timesteps)
        fields.refuse("timesteps", f"has {count} entries; a schedule has 1 to {TRAINING_TIMESTEPS}")
    if sampling.solver not in SOLVERS:
        fields.refuse("solver", f"is {ascii(sampling.solver)[:80]}, not one of {', '.join(sorted(SOLVERS))}")
    fault: UserError | None = None
    try:
        create_schedule(sampling.solver, shift=sampling.shift, steps=sampling.steps, timesteps=sampling.timesteps)
    except UserError as error:
        fault = error
    if fault:
        key = "timesteps" if sampling.timesteps else "shift"
        fields.refuse(key, f"makes no schedule: {fault.message}", hint=fault.hint)


def _shapes(runtime: Fields, model: Model) -> tuple[Shape, ...]:
    entries = runtime.objects("shapes")
    if not 1 <= len(entries) <= MOST_SHAPES:
        runtime.refuse("shapes", f"has {len(entries)} entries; a bundle has 1 to {MOST_SHAPES}")
    shapes = tuple(_shape(fields, model) for fields in entries)
    if len({shape.name for shape in shapes}) < len(shapes):
        runtime.refuse("shapes", "has two of one name")
    return shapes


def _shape(fields: Fields, model: Model) -> Shape:
    space, time = model.spatial_stride, model.temporal_stride
    name = fields.text("name")
    if not is_component(name):
        fields.refuse("name", f"is {ascii(name)[:80]}, not a name of letters, digits, '.', '_' and '-'")
    shape = Shape(
        name,
        fields.integer("height", minimum=space, maximum=LARGEST_SIDE),
        fields.integer("width", minimum=space, maximum=LARGEST_SIDE),
        fields.integer("frames", minimum=1, maximum=model.most_frames),
    )
    for side in ("height", "width"):
        if getattr(shape, side) % space:
            fields.refuse(side, f"must be a multiple of spatial_stride, {space}, not {getattr(shape, side)}")
    if (shape.frames - 1) % time:
        fields.refuse("frames", f"must be one more than a multiple of temporal_stride, {time}, not {shape.frames}")
    return shape


def _tilings(runtime: Fields, shapes: tuple[Shape, ...], model: Model) -> dict[str, Tiling]:
    """Of a bundle that says nothing, none."""
    if DECODE not in runtime.values:
        return {}
    by_name, decode = {shape.name: shape for shape in shapes}, runtime.object(DECODE)
    if unknown := sorted(decode.values.keys() - by_name.keys()):
        runtime.refuse(DECODE, f"names {ascii(unknown[0])[:80]}, which is no shape")
    return {name: _tiling(decode.object(name), by_name[name], model.spatial_stride) for name in decode.values}


def _tiling(fields: Fields, shape: Shape, point: int) -> Tiling:
    tile, stride = ((high, wide) for high, wide in (fields.whole_numbers(key, 2) for key in ("tile", "stride")))
    for axis, side in enumerate((shape.height, shape.width)):
        if fault := tile_fault(side, tile[axis], stride[axis], point):
            key, allowed = fault
            pixels = tile[axis] if key == "tile" else stride[axis]
            fields.refuse(key, f"is {pixels} pixels along a side of {side}", hint=allowed)
    if tile == (shape.height, shape.width):
        fields.refuse("tile", "is the whole picture")
    return Tiling(tile, stride)


def tile_fault(side: int, tile: int, stride: int, point: int) -> tuple[str, str] | None:
    """Which of tiles along a side of a picture cannot be, all in pixels: `tile` or `stride`, and what it can be.

    `point` are the pixels of one latent. A side is in one tile, or in several that overlap.
    """
    if tile == side == stride:
        return None
    least = FEWEST_TILE_POINTS * point
    if tile % point or not least <= tile < side:
        return "tile", f"it can be a multiple of {point} from {least} on that is less than the side, or all of it"
    fewest = tile - tile // LARGEST_OVERLAP
    if stride % point or not fewest <= stride < tile:
        return (
            "stride",
            f"with tiles of {tile} it can be a multiple of {point} from {fewest} on that is less than a tile",
        )
    return None
