"""One component, quantised on samples: graphs, codes and a QuantTable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from wanc.compiler.chain import Chain
from wanc.compiler.decisions import Sample, Settings, decide
from wanc.compiler.finite import FiniteCheck
from wanc.compiler.linear_groups import choose
from wanc.compiler.program import ProgramComponent
from wanc.compiler.quant_table import QuantTable
from wanc.compiler.quantized_graphs import QuantizedGraphs
from wanc.compiler.stage import Files
from wanc.compiler.whole import whole
from wanc.compiler.whole_component import parts_of
from wanc.runtime.denoise import GRAPH
from wanc.runtime.progress import ProgressBar


def quantize_component(
    name: str,
    component: ProgramComponent,
    graphs: Files,
    weights: Files,
    samples: Sequence[Sample],
    settings: Settings,
    keep: Sequence[str],
    out: Path,
    *,
    progress: bool,
) -> tuple[ProgramComponent, QuantTable]:
    """Quantise a denoiser below `out`: its graphs as before, its codes beside them.

    `graphs` and `weights` locate what the component names. Raises UserError where the samples do not show what has to
    be known, CheckpointError where a weight is not finite.
    """
    parts = parts_of(component, graphs)
    model = whole(parts, GRAPH)
    choice = choose(model, name, keep)
    with (
        TemporaryDirectory(dir=out.parent) as folder,
        QuantizedGraphs(name, model, choice, settings.scheme, weights, out) as quantized,
    ):
        taps = [group.name for group in choice.groups]
        chain = Chain(model, weights, Path(folder), FiniteCheck(name), taps=taps)
        with ProgressBar(f"quantize {name}", len(chain.segments), enabled=progress) as bar:
            decide(
                chain, choice.groups, samples, settings, quantized.weight_of, Path(folder), quantized.add, bar.advance
            )
        result = quantized.component(component, parts)
        table = QuantTable(name, "ptq", len(samples), quantized.entries({}))
    return result, table
