"""The partition stage: which blocks of every component are executed on which device.

It tags the program and cuts nothing: graphs are cut where they are lowered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from wanc.compiler.program.cuts import cut_blocks
from wanc.compiler.program.program import FILE, Placement, Program, Segment
from wanc.compiler.stages.stage import Files, Stage
from wanc.words import Cut


@dataclass(frozen=True)
class Partition(Stage):
    """Input `program`. Result: `program.json` with a placement.

    That is the one `planned`; or else everything is on one `device`, in the segments that `cut` says.
    """

    name: ClassVar[str] = "partition"

    cut: Cut
    device: str
    planned: Placement | None = None

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        del progress  # it is done at once
        program = Program.read(inputs["program"][FILE])
        replace(program, placement=self.planned or self._on_one_device(program)).write(out)

    def _on_one_device(self, program: Program) -> Placement:
        segments = [
            segment for name, entry in program.components.items() for segment in self._segments(name, len(entry.blocks))
        ]
        return Placement((self.device,), tuple(segments))

    def _segments(self, component: str, blocks: int) -> list[Segment]:
        bounds = cut_blocks(blocks, self.cut)
        return [Segment(component, index, *pair, self.device) for index, pair in enumerate(bounds)]
