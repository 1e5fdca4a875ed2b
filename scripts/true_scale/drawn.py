"""A denoiser with codes that were drawn, in the form in which the quantize stage leaves it.

Nothing is calibrated: how large an engine is, and what building it takes, does not depend on which codes they are, as
long as no two weights are alike. Every segment's codes lie in a file of its own, which is drawn when it is built.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from scripts.true_scale.programs import SEED, Inputs, TrueScale, fill, weights_of
from wanc.artifacts.private import private_directory
from wanc.compiler.graphs.by_blocks import block_of
from wanc.compiler.graphs.linears import Linear, linears
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.passes.fold import remove_unused
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import FILE, OWN, Program, Segment
from wanc.compiler.stages.stage import Files

GRAPH = "step"
STEP = 0.05
"""What a code of 1 stands for in inputs: noise of a few units fits."""
LARGEST = 127
ALIGNMENT = 64
Linears = Literal["bf16", "int8"]


@dataclass(frozen=True)
class DrawnLinear:
    """The codes [out, in] and the scales [out] of one Linear: where they begin in a file."""

    name: str
    shape: tuple[int, int]
    codes_at: int
    scales_at: int

    def read(self, path: Path) -> np.ndarray[Any, Any]:
        """What its codes in a file stand for, float32 [out, in]."""
        out, into = self.shape
        codes = np.fromfile(path, np.int8, out * into, offset=self.codes_at).reshape(self.shape)
        return codes * np.fromfile(path, np.float32, out, offset=self.scales_at)[:, None]

    def decision(self, file: str) -> StoredDecision:
        """What the graph says of it."""
        out, _ = self.shape
        codes = ir.ExternalTensor(
            file, self.codes_at, prod(self.shape), ir.DataType.INT8, shape=ir.Shape(self.shape), name=f"{self.name}.c"
        )
        scales = ir.ExternalTensor(
            file, self.scales_at, 4 * out, ir.DataType.FLOAT, shape=ir.Shape([out]), name=f"{self.name}.s"
        )
        return StoredDecision(codes, scales, None, "int8", STEP)


@dataclass(frozen=True)
class DrawnCodes:
    """A quantised program: the `inputs` of stages, and by the index of its segment where the codes will lie."""

    inputs: Inputs
    by_segment: tuple[tuple[DrawnLinear, ...], ...]
    folder: Path

    @classmethod
    def of(cls, inputs: Inputs, component: str, segments: Sequence[Segment], folder: Path) -> DrawnCodes:
        """All Linears of the blocks of a denoiser in INT8, cut into `segments`; its files lie in `folder`."""
        files = ComponentFiles.read(component, inputs)
        model, blocks = files.model(GRAPH), files.component.blocks
        found = [(linear, block_of(linear.name, blocks)) for linear in linears(model)]
        by_segment: list[tuple[DrawnLinear, ...]] = []
        decisions: dict[str, StoredDecision] = {}
        for segment in segments:
            own = range(segment.first, segment.stop)
            drawn = _laid_out([linear for linear, block in found if block in own])
            by_segment.append(drawn)
            decisions |= {entry.name: entry.decision(f"{OWN}{_file(segment.index)}") for entry in drawn}
        insert_quantizers(model, decisions)
        remove_unused(model)
        path = folder / component / f"{GRAPH}.onnx"
        path.parent.mkdir()
        save(model, path)
        program = Program.read(inputs["program"][FILE])
        named = f"{component}/{path.name}"
        graphs = {**files.component.graphs, GRAPH: replace(files.component.graphs[GRAPH], file=named)}
        components = {**program.components, component: replace(files.component, graphs=graphs)}
        replace(program, components=components).write(folder)
        own_files: Files = {FILE: folder / FILE, named: path}
        codes = {_file(segment.index): folder / _file(segment.index) for segment in segments}
        return cls({**inputs, "program": {**inputs["program"], **own_files, **codes}}, tuple(by_segment), folder)

    def names(self, index: int) -> set[str]:
        """The Linears of a segment."""
        return {entry.name for entry in self.by_segment[index]}

    def weights(self) -> dict[str, tuple[Path, DrawnLinear]]:
        """By the name of a Linear: what lies where, once it is drawn."""
        return {
            entry.name: (self.folder / _file(index), entry)
            for index, drawn in enumerate(self.by_segment)
            for entry in drawn
        }

    def draw(self, index: int) -> None:
        """Write the codes of a segment."""
        generator = np.random.Generator(np.random.Philox(key=[SEED, index]))
        with (self.folder / _file(index)).open("wb") as file:
            for entry in self.by_segment[index]:
                out, into = entry.shape
                file.seek(entry.codes_at)
                codes = np.frombuffer(generator.bytes(out * into), np.int8)
                file.write(np.maximum(codes, np.int8(-LARGEST)).data)
                # Weights as a checkpoint that is filled has them: a product keeps the size of what it is given.
                scales = generator.uniform(0.8, 1.0, out) / (LARGEST * into**0.5)
                file.seek(entry.scales_at)
                file.write(scales.astype(np.float32).data)

    def forget(self, index: int) -> None:
        """Remove them."""
        (self.folder / _file(index)).unlink()


@contextmanager
def filled(
    scale: TrueScale, component: str, segments: Sequence[Segment], linears: Linears, work: Path
) -> Generator[tuple[Inputs, DrawnCodes | None]]:
    """A model whose weights are random as far as these segments use them, or drawn codes in their place."""
    with scale.inputs(work) as inputs, private_directory(work, prefix="codes-") as folder:
        drawn = DrawnCodes.of(inputs, component, segments, folder) if linears == "int8" else None
        codes = {name for segment in segments if drawn for name in drawn.names(segment.index)}
        files = ComponentFiles.read(component, inputs)
        used = {name for segment in segments for name in weights_of(files, segment)}
        fill(files, lambda name: name in used and name.removesuffix(".weight") not in codes)
        yield drawn.inputs if drawn else inputs, drawn


def _file(segment: int) -> str:
    return f"codes.{segment}.bin"


def _laid_out(found: Sequence[Linear]) -> tuple[DrawnLinear, ...]:
    drawn: list[DrawnLinear] = []
    position = 0
    for linear in found:
        assert linear.output_axis == 0, f"{linear.name} is stored [in, out]"
        out, into = linear.widths
        scales_at = _aligned(position + out * into)
        drawn.append(DrawnLinear(linear.name, (out, into), position, scales_at))
        position = _aligned(scales_at + 4 * out)
    return tuple(drawn)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
