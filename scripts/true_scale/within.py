"""Segments as `engine.max_build_memory` cuts them, and what building each of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.true_scale.programs import Inputs
from wanc.compiler.placement import placement, whole_model
from wanc.compiler.planner.building import component_of, segment_bytes
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.recipe_costs import video_costs
from wanc.compiler.planner.resident import VideoMemory, resident
from wanc.compiler.planner.survey import shipped, survey_key
from wanc.compiler.program.program import Segment
from wanc.models.wan.checkpoint import open_located
from wanc.recipe.load import load
from wanc.recipe.schema import PARTS

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "wan2.2-t2v-a14b.yaml"
FUSED: Mapping[str, object] = {"passes": None, "skip": (), "hoist": PARTS}
DEVICE = "gpu0"


def costs_of(inputs: Inputs, linears: str) -> VideoCosts:
    """What the planner counts for a model at true scale on a GPU, its Linears in `bf16` or in another scheme."""
    scheme = () if linears == "bf16" else (f"quantize.scheme={linears}", "quantize.calibrate.prompts=p")
    return counted(inputs, ["precision.compute=bf16", "engine.kind=tensorrt-rtx", "engine.targets=[sm89]", *scheme])


def values_bytes(inputs: Inputs, height: int, width: int, frames: int) -> int:
    """What is alive beside engines in a step of a video of this size in INT8, on a CPU and without guidance."""
    asked = [
        f"shapes=[{{name: video, height: {height}, width: {width}, frames: {frames}}}]",
        *("quantize.scheme=int8", "quantize.calibrate.prompts=p", "sampling.guidance={high: 1.0, low: 1.0}"),
    ]
    costs = counted(inputs, asked)
    whole = {component.name: [(0, len(component.parts))] for component in costs.components}
    return resident(VideoMemory(costs, 0), whole, 0, "onnxruntime").phases["denoise"].values


def counted(inputs: Inputs, asked: Sequence[str]) -> VideoCosts:
    """What the planner counts for a model at true scale, in the first size of what is asked for of a recipe."""
    checkpoint = open_located(inputs["source"])
    (loaded,) = load(RECIPE, [f"model.source={checkpoint.root}", *asked])
    surveys = {
        name: shipped(survey_key(name, component.config, checkpoint.text_length, FUSED))
        for name, component in checkpoint.components.items()
    }
    known = {name: survey for name, survey in surveys.items() if survey is not None}
    assert loaded.recipe.shapes is not None
    return video_costs(loaded.recipe, checkpoint, known, loaded.recipe.shapes[0])


def placed_within(costs: VideoCosts, component: str, most_bytes: int) -> list[tuple[Segment, int]]:
    """A component's segments, each with the bytes that building it is predicted to take.

    Raises UserError where a block of any component takes more than `most_bytes`.
    """
    placed = placement(costs, whole_model(costs, DEVICE), most_bytes).segments
    counted = component_of(costs, component)
    return [
        (segment, segment_bytes(counted, segment.first, segment.stop))
        for segment in placed
        if segment.component == component
    ]
