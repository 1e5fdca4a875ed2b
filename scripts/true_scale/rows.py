"""The rows of the table: what is built at true scale, and what has to hold of each."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from scripts.true_scale.building import Figures, build_segment, check_kernels
from scripts.true_scale.drawn import DrawnCodes, Linears, filled
from scripts.true_scale.hosted import on_host
from scripts.true_scale.programs import Inputs, TrueScale
from scripts.true_scale.within import DEVICE, costs_of, placed_within
from wanc.artifacts.canonical import digest_of
from wanc.artifacts.private import private_directory
from wanc.compiler.bundle.input_shapes import video_shapes
from wanc.compiler.placement import check_peak
from wanc.compiler.program.program import FILE, Program, Segment
from wanc.compiler.stages.code_version import code_version
from wanc.compiler.stages.stage import tool_version
from wanc.errors import UserError
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.model import HIGH, TEXT_ENCODER

DECODER = "vae_decoder"
GIB = 2**30
SHAPES = {
    "480p": ShapeSection(name="480p", height=480, width=832, frames=81),
    "720p": ShapeSection(name="720p", height=720, width=1280, frames=81),
}
FEW, ALL = 5, 40
"""Blocks of a denoiser; each segment of the whole one has a few."""
DECODED = 5
"""Blocks of the decoder: what is in the middle, and four that make it larger."""
ATTENTIONS = {HIGH: 2, TEXT_ENCODER: 1, DECODER: 0}
"""Of a block, in one kernel each."""
SINGLE_HEAD = ("decoder.mid_block.attentions.0",)
"""For which the library has no such kernel."""
TOOLS = ("tensorrt-rtx-cu12-libs", "onnx", "onnx-ir", "onnxscript", "torch", "diffusers", "numpy", "onnxruntime")
BUILD = (
    "wanc.compiler.export.wan", "wanc.compiler.fuse", "wanc.compiler.engines.stage",
    "wanc.compiler.engines.tensorrt_rtx.engine",
)  # fmt: skip


@dataclass(frozen=True)
class Row(ABC):
    """What one line of the table measures; its figures follow the code in the modules `code`."""

    code: ClassVar[tuple[str, ...]] = BUILD

    @property
    def key(self) -> str:
        """What the figures depend on, this machine and what else it does left aside."""
        code = " ".join(code_version(module) for module in self.code)
        tools = " ".join(f"{tool} {tool_version(tool)}" for tool in TOOLS)
        return digest_of({"row": repr(self), "code": code, "tools": tools})

    @abstractmethod
    def measure(self, store: Path, work: Path) -> Figures:
        """Measure in a folder `work`, where up to 11 GB lie meanwhile. Raises AssertionError for missing kernels."""


def built(inputs: Inputs, drawn: DrawnCodes | None, segment: Segment, shapes: Iterable[str], work: Path) -> Figures:
    """A segment's figures; what was built is looked at, and removed."""
    model = Program.read(inputs["program"][FILE]).model
    assert model is not None
    folder = work / f"segment-{segment.index}"
    if drawn:
        drawn.draw(segment.index)
    figures = build_segment(inputs, segment, video_shapes(model, [SHAPES[name] for name in shapes]), folder)
    attentions = ATTENTIONS[segment.component] * (segment.stop - segment.first)
    unfused = SINGLE_HEAD if segment.component == DECODER else ()
    check_kernels(figures, drawn.names(segment.index) if drawn else (), attentions, unfused)
    shutil.rmtree(folder)
    if drawn:
        drawn.forget(segment.index)
    return figures


def together(found: Sequence[Figures]) -> Figures:
    """Segments that are built one after the other, or a single one."""
    graphs = [graph for figures in found for graph in figures["graphs"].values()]
    return {
        "seconds": round(sum(figures["seconds"] for figures in found), 1),
        "cpu_seconds": round(sum(figures["cpu_seconds"] for figures in found), 1),
        "load": max(figures["load"] for figures in found),
        "peak_rss_bytes": max(figures["peak_rss_bytes"] for figures in found),
        "engine_bytes": sum(graph["engine_bytes"] for graph in graphs),
        "activation_bytes": max(graph["activation_bytes"] for graph in graphs),
        "segments": list(found),
    }


@dataclass(frozen=True)
class OneSegment(Row):
    """The first `blocks` of a component, for videos of some sizes. A denoiser has no more of them."""

    component: str
    blocks: int
    linears: Linears = "bf16"
    shapes: tuple[str, ...] = ("480p", "720p")

    def measure(self, store: Path, work: Path) -> Figures:
        segment = Segment(self.component, 0, 0, self.blocks, DEVICE)
        with filled(TrueScale(FEW, store), self.component, [segment], self.linears, work) as (inputs, drawn):
            return together([built(inputs, drawn, segment, self.shapes, work)])


@dataclass(frozen=True)
class WholeExpert(Row):
    """All blocks of one expert, a few in each segment, its Linears in INT8."""

    shapes: tuple[str, ...] = ("480p", "720p")

    def measure(self, store: Path, work: Path) -> Figures:
        segments = [Segment(HIGH, index, FEW * index, FEW * (index + 1), DEVICE) for index in range(ALL // FEW)]
        with filled(TrueScale(ALL, store), HIGH, segments, "int8", work) as (inputs, drawn):
            return together([built(inputs, drawn, segment, self.shapes, work) for segment in segments])


@dataclass(frozen=True)
class OnHost(Row):
    """A component as it is lowered, executed by the host on few pixels."""

    code: ClassVar[tuple[str, ...]] = (*BUILD, "wanc.compiler.host.lowered", "wanc.compiler.host.reference")

    component: str
    linears: Linears = "bf16"
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    def measure(self, store: Path, work: Path) -> Figures:
        segment = Segment(self.component, 0, 0, FEW, DEVICE)
        with filled(TrueScale(FEW, store), self.component, [segment], self.linears, work) as (inputs, drawn):
            if drawn:
                drawn.draw(0)
            with private_directory(work, prefix="host-") as folder:
                return on_host(inputs, self.component, self.sizes, folder / "out")


@dataclass(frozen=True)
class Within(Row):
    """A denoiser of a few blocks, cut so that building each segment takes at most so much; the least that is taken,
    where that is None.
    """

    code: ClassVar[tuple[str, ...]] = (*BUILD, "wanc.compiler.placement", "wanc.compiler.planner.recipe_costs")

    gibibytes: float | None
    linears: Linears = "bf16"

    def measure(self, store: Path, work: Path) -> Figures:
        scale = TrueScale(FEW, store)
        with scale.inputs(work) as inputs:
            costs = costs_of(inputs, self.linears)
        most = round(self.gibibytes * GIB) if self.gibibytes is not None else least_bytes(costs)
        placed = placed_within(costs, HIGH, most)
        segments = [segment for segment, _ in placed]
        found: list[Figures] = []
        with filled(scale, HIGH, segments, self.linears, work) as (inputs, drawn):
            for segment, predicted in placed:
                figures = built(inputs, drawn, segment, SHAPES, work)
                check_peak(f"compile {HIGH}/{segment.index}", figures["peak_rss_bytes"], most)
                found.append({**figures, "blocks": [segment.first, segment.stop], "predicted_bytes": predicted})
        return {**together(found), "allowed_bytes": most}


def least_bytes(costs: Any) -> int:
    """What the refusal of a bound that is too small says would do."""
    try:
        placed_within(costs, HIGH, 1)
    except UserError as error:
        return int(str(error.hint).rpartition(" ")[2].removesuffix("MiB")) * 2**20
    raise AssertionError("a block can be built in one byte")


SMALL = {"frames": 3, "rows": 8, "columns": 8}
"""16 × 16 latents."""
ROWS: Mapping[str, Row] = {
    "step-bf16-480p": OneSegment(HIGH, FEW, "bf16", ("480p",)),
    "step-bf16": OneSegment(HIGH, FEW, "bf16"),
    "step-int8-480p": OneSegment(HIGH, FEW, "int8", ("480p",)),
    "step-int8": OneSegment(HIGH, FEW, "int8"),
    "text-encoder-5": OneSegment(TEXT_ENCODER, 5),
    "text-encoder-8": OneSegment(TEXT_ENCODER, 8),
    "vae-decoder": OneSegment(DECODER, DECODED, "bf16", ("720p",)),
    "expert-int8": WholeExpert(),
    "host-bf16": OnHost(HIGH, "bf16", SMALL),
    "host-int8": OnHost(HIGH, "int8", SMALL),
    "host-vae": OnHost(DECODER, "bf16", {"height": 8, "width": 8}),
    "within-least-int8": Within(None, "int8"),
    **{f"within-{size}gib-{linears}": Within(size, linears) for linears in ("bf16", "int8") for size in (3, 5, 8)},
}
