"""One component, quantised on samples: graphs, codes and a QuantTable."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from wanc.calibration.decision import write_decisions
from wanc.calibration.sensitivity import kept_by_drop, kept_by_share
from wanc.compiler.host.chain import Chain
from wanc.compiler.host.past import Pasts
from wanc.compiler.host.sample_states import Sample
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.program.quant_table import QuantTable
from wanc.compiler.quantize.attention_choice import choose_attentions
from wanc.compiler.quantize.decisions import Settings, decide
from wanc.compiler.quantize.effects import SAMPLES, measure_effects
from wanc.compiler.quantize.linear_groups import choose
from wanc.compiler.quantize.quantized_graphs import QuantizedGraphs
from wanc.compiler.weights.finite import FiniteCheck
from wanc.runtime.model import TEXT_ENCODER
from wanc.runtime.progress import ProgressBar


@dataclass(frozen=True)
class Keep:
    """What stays in float: by patterns, and by one rule about effects, of which at most one is given."""

    patterns: tuple[str, ...]
    max_drop_db: float | None = None
    int8_share: float | None = None

    @property
    def asks_for_effects(self) -> bool:
        return self.max_drop_db is not None or self.int8_share is not None

    def by_effects(self, effects: Mapping[str, float], flops: Mapping[str, float], result: str) -> dict[str, str]:
        """The Linears that the rule keeps, with the reasons; `flops` has the share of every Linear.

        `result` is what the effects are on.
        """
        if self.max_drop_db is not None:
            return kept_by_drop(effects, self.max_drop_db, result)
        return kept_by_share(effects, flops, self.int8_share) if self.int8_share is not None else {}


@dataclass(frozen=True)
class Samples:
    """What to calibrate on; `weights` tell how much an error in each one's result does to what comes of all.

    Of a causal expert `pasts` are what samples leave to later ones; nobody asks for weights then.
    """

    given: Sequence[Sample]
    weights: Sequence[float] = ()
    pasts: Pasts | None = None

    def some(self, count: int) -> Samples:
        """At most about `count` of them, spread evenly over all."""
        indices = range(0, len(self.given), max(1, len(self.given) // count))
        return Samples([self.given[index] for index in indices], [self.weights[index] for index in indices])


def quantize_component(
    files: ComponentFiles,
    samples: Samples,
    settings: Settings,
    keep: Keep,
    out: Path,
    kept: Path,
    *,
    decisions: Path | None = None,
    zeros: Collection[str] | None = None,
    progress: bool,
) -> tuple[ProgramComponent, QuantTable]:
    """Quantise a component of one graph below `out`: its graph as before, its codes beside it.

    In the folder `kept` lies what is finished, for who is stopped and begins again. `decisions` is where they are
    written for training, `zeros` names the weights that may be nothing but zeros. Raises UserError where the samples do
    not show what has to be known, CheckpointError where a weight is not finite, or zero.
    """
    name, weights, model = files.name, files.weights, files.model(files.only_graph)
    choice = choose(model, name, keep.patterns)
    attentions = choose_attentions(model, name, keep.patterns, settings.attention)
    with (
        TemporaryDirectory(dir=out.parent) as folder,
        QuantizedGraphs(files, choice, settings.scheme, out) as quantized,
    ):
        taps = [*(group.name for group in choice.groups), *attentions.values]
        chain = Chain(model, weights, _made(folder, "decisions"), FiniteCheck(name, zeros=zeros), taps=taps)
        with ProgressBar(f"quantize {name}", len(chain.pieces), enabled=progress) as bar:
            peaks = decide(
                chain,
                choice.groups,
                samples.given,
                settings,
                quantized.weight_of,
                kept,
                quantized.add,
                bar.advance,
                attentions.values,
                samples.pasts,
            )
        scales = attentions.scales(peaks)
        effects: dict[str, float] = {}
        if keep.asks_for_effects:
            sources = {**weights, **quantized.codes()}
            chain = Chain(model, sources, _made(folder, "effects"), FiniteCheck(name))
            some = samples.some(SAMPLES)
            with ProgressBar(f"sensitivity {name}", len(chain.pieces), enabled=progress) as bar:
                given = [sample() for sample in some.given]
                effects = measure_effects(chain, quantized.alone(), given, some.weights, bar.advance)
            quantized.keep(keep.by_effects(effects, quantized.flops(), _result(name)))
        if decisions is not None:
            write_decisions(decisions, quantized.decisions())
        result = quantized.component(scales)
        entries = quantized.attention_entries(scales, attentions.kept)
        table = QuantTable(name, "ptq", len(samples.given), quantized.entries(effects), entries)
    return result, table


def _result(component: str) -> str:
    return "the text states" if component == TEXT_ENCODER else "the final latents"


def _made(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path
