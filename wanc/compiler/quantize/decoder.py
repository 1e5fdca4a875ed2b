"""The decoder's quantize stage: its convolutions in fewer bits, as the videos of calibration have them.

A sample is a clip, denoised to its end by the experts as they ship, and decoded. What was seen of a clip is kept at
once. Nothing is smoothed: behind a norm and an activation there is no weight that would take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.artifacts.kept import keep, restore
from wanc.calibration.smoothing import ChannelStatistics
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program, ProgramComponent
from wanc.compiler.program.quant_table import QuantTable
from wanc.compiler.quantize.calibrate import LATENTS
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.errors import UserError
from wanc.runtime.model import DECODER, Model
from wanc.runtime.progress import ProgressBar
from wanc.runtime.safetensors import SafetensorsFile
from wanc.words import Observer

if TYPE_CHECKING:
    from wanc.compiler.quantize.decisions import Settings
    from wanc.compiler.quantize.linear_groups import Choice
    from wanc.compiler.quantize.quantized_graphs import QuantizedGraphs
    from wanc.compiler.quantize.watched_decoder import Seen

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class QuantizeDecoder(Stage):
    """Inputs `program`, `exported`, `source` and `samples`. Result: as that of `Quantize`, of the decoder.

    `samples` are those of `Calibrate` for the decoder: what is denoised. All else is as in `Quantize`.
    """

    name: ClassVar[str] = "quantize"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes")
    resumes: ClassVar[bool] = True
    component: ClassVar[str] = DECODER

    scheme: str
    observer: Observer
    keep: tuple[str, ...]
    zeros: tuple[str, ...] | None = None

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """Both graphs in float, and the codes, a quarter of one; probes are little beside them."""
        from wanc.compiler.program.disk_use import executed_bytes, with_others

        files = ComponentFiles.read(self.component, inputs)
        return with_others((len(files.component.graphs) + 1 / 4) * executed_bytes(files))

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.quantize.decisions import Settings

        program = Program.read(inputs["program"][FILE])
        assert program.model is not None
        component, table = quantize_decoder(
            ComponentFiles.read(self.component, inputs),
            program.model,
            [path for _, path in sorted(inputs["samples"].items())],
            Settings(self.scheme, self.observer, "none"),
            self.keep,
            out,
            scratch_of(out),
            zeros=self.zeros,
            progress=progress,
        )
        table.write(out)
        replace(program, components={**program.components, self.component: component}).write(out)


def quantize_decoder(
    files: ComponentFiles,
    model: Model,
    clips: Sequence[Path],
    settings: Settings,
    patterns: Sequence[str],
    out: Path,
    kept: Path,
    *,
    zeros: Sequence[str] | None = None,
    progress: bool,
) -> tuple[ProgramComponent, QuantTable]:
    """Quantise the decoder below `out` by what its convolutions meet in `clips`: its graphs, its codes beside them.

    In the folder `kept` lies what was seen of each clip. Raises UserError where the clips do not show what has to be
    known.
    """
    from wanc.compiler.quantize.linear_groups import choose_convolutions
    from wanc.compiler.quantize.quantized_graphs import QuantizedGraphs

    choice = choose_convolutions([files.model(graph) for graph in files.component.graphs], files.name, patterns)
    with TemporaryDirectory(dir=out.parent) as folder:
        seen, executions = _seen(files, model, clips, Path(folder), kept, zeros, progress=progress)
    with QuantizedGraphs(files, choice, settings.scheme, out) as quantized:
        _decide(choice, seen, executions, settings, quantized, progress=progress)
        result = quantized.component()
        return result, QuantTable(files.name, "ptq", len(clips), quantized.entries({}))


def _seen(
    files: ComponentFiles,
    model: Model,
    clips: Sequence[Path],
    folder: Path,
    kept: Path,
    zeros: Sequence[str] | None,
    *,
    progress: bool,
) -> tuple[dict[str, Seen], int]:
    """What was seen of every convolution in all clips, and in how many executions."""
    from wanc.compiler.quantize.decisions import ROWS
    from wanc.compiler.quantize.watched_decoder import Seen, WatchedDecoder, read_seen, write_seen

    shapes = [SafetensorsFile(path)[LATENTS].shape for path in clips]
    executions = sum(shape[3] for shape in shapes)
    decoder = WatchedDecoder(files, model, folder, zeros)
    together: dict[str, Seen] = {}
    with ProgressBar(f"quantize {files.name}", executions, enabled=progress) as bar:
        for number, (path, shape) in enumerate(zip(clips, shapes, strict=True)):
            name = f"seen-{number:04}.safetensors"
            file, place = kept / name, folder / name
            if not restore(file, place):
                (latents,) = SafetensorsFile(path)[LATENTS]
                found = decoder.watch(latents, max(1, ROWS // executions), np.random.default_rng(number))
                keep(file, partial(write_seen, seen=found))
                restore(file, place)
            for name, one in read_seen(place).items():
                together.setdefault(name, Seen()).add(one)
            bar.advance(shape[3])
    return together, executions


def _decide(
    choice: Choice,
    seen: Mapping[str, Seen],
    executions: int,
    settings: Settings,
    quantized: QuantizedGraphs,
    *,
    progress: bool,
) -> None:
    from wanc.compiler.quantize.decisions import ROWS, Observed, decisions_on

    with ProgressBar("rounding", len(choice.groups), enabled=progress) as bar:
        for group in choice.groups:
            (convolution,), one = group.linears, seen[group.name]
            if group.quantized and not one.histogram.peak:
                raise UserError(
                    f"the input of {convolution.name} was 0 in all clips: there is nothing to calibrate on",
                    hint=f"keep it in float: quantize.keep.patterns: [{convolution.name}]",
                )
            nothing = np.zeros(0)
            rows = one.patches[:: max(1, len(one.patches) // ROWS)]
            observed = Observed(ChannelStatistics(nothing, nothing, one.places), one.histogram, rows=[np.stack(rows)])
            for decided in decisions_on(group, observed, None, None, settings, quantized.weight_of, executions):
                quantized.add(decided)
            bar.advance()
