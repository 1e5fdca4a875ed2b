"""Quantising one component: every Linear's codes and steps, found piece by piece on real executions.

All samples pass through one piece before the next is opened. In a first round the inputs of its Linears are looked
at channel by channel, which decides how they are smoothed; in a second one, where steps have to be found, as smoothed.
So memory holds one piece, whatever the number of blocks, and one sample, whatever their number. What is decided on a
Linear is kept at once, and so is what is known of the samples behind a piece: a stage that was stopped goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wanc.calibration.exact import product
from wanc.calibration.gptq import Moments
from wanc.calibration.histogram import Histogram
from wanc.calibration.schemes import LARGEST, SCHEMES, Scheme, rounded_inputs
from wanc.calibration.smoothing import ChannelStatistics, best_alpha, channel_scales
from wanc.calibration.thresholds import threshold
from wanc.calibration.weights import sqnr_db
from wanc.compiler.host.chain import Chain, execute
from wanc.compiler.host.past import Pasts, PiecePast
from wanc.compiler.host.sample_states import Sample, SampleStates
from wanc.compiler.quantize.group_decision import GroupDecision
from wanc.compiler.quantize.kept_decisions import KeptDecisions, alone
from wanc.compiler.quantize.kept_ranges import KeptRanges
from wanc.compiler.quantize.linear_groups import LinearGroup
from wanc.errors import UserError
from wanc.words import AttentionFormat, Observer

Array = np.ndarray[Any, Any]

ROWS = 32
"""How many of an input's rows are kept, taken from all over the samples: what quantisation costs is measured on them,
here and again on what an engine was built from. A row of outputs has hundreds of values."""


@dataclass(frozen=True)
class Settings:
    """What a recipe asks for: a scheme by name, and `alpha`: `search`, `none`, or the α of all smoothing.

    `attention` is the format in which attentions multiply.
    """

    scheme: str
    observer: Observer
    alpha: str | float
    attention: AttentionFormat = "float"

    @property
    def format(self) -> Scheme:
        return SCHEMES[self.scheme]


@dataclass
class Observed:
    """What was seen of one group's input."""

    statistics: ChannelStatistics
    histogram: Histogram = field(default_factory=Histogram)
    moments: Moments | None = None
    rows: list[Array] = field(default_factory=list[Array])


def decide(
    chain: Chain,
    groups: Sequence[LinearGroup],
    samples: Sequence[Sample],
    settings: Settings,
    weight_of: Callable[[str], Array],
    kept: Path,
    on_linear: Callable[[GroupDecision], None],
    on_piece: Callable[[], None] = lambda: None,
    ranged: Sequence[str] = (),
    pasts: Pasts | None = None,
) -> dict[str, float]:
    """Decide group after group, in the order of execution, and hand the decision on each Linear to `on_linear`.

    Of a group in which nothing is quantised only the rows are counted, and it is handed on as a whole.
    `chain` has the groups' inputs as taps; `weight_of` gives a Linear's weight, float32 [out, in]; `kept` is where
    what is finished lies, now and from before. Returns the largest magnitudes of the values that `ranged` names, taps
    as well. Of a causal expert `pasts` have what samples leave to later ones. Raises UserError where the samples do not
    show what has to be known.
    """
    if len(samples) < 2:
        raise UserError(
            "one sample cannot show how far activations reach",
            hint="raise quantize.calibrate.clips or quantize.calibrate.timestep_bins",
        )
    states, decisions = SampleStates(samples, kept, pasts), KeptDecisions(kept, groups)
    of_input, ranges = {group.name: group for group in groups}, KeptRanges(kept, _by_piece(chain, ranged))
    by_piece = [[of_input[name] for name in names] for names in _by_piece(chain, of_input)]
    left = [[group for group in here if not decisions.has(group)] for here in by_piece]
    unfinished = [index for index, groups in enumerate(left) if groups or not ranges.has(index)]
    if any(index < states.passed for index in unfinished):
        states.start_over()  # of a piece behind the samples something was lost
    for index, here in enumerate(by_piece):
        if unfinished and states.passed <= index <= unfinished[-1]:
            _decide_piece(chain, index, states, left[index], settings, weight_of, decisions, ranges)
        for group in here:
            for decided in decisions.read(group):
                on_linear(decided)
        on_piece()
    return ranges.read()


def _by_piece(chain: Chain, values: Iterable[str]) -> list[list[str]]:
    """The values of every piece: those that are known there first."""
    waiting, found = dict.fromkeys(values), list[list[str]]()
    for piece in chain.pieces:
        known = {*piece.inputs, *(value.name for node in piece.model.graph for value in node.outputs)}
        found.append([name for name in waiting if name in known])
        waiting = {name: None for name in waiting if name not in known}
    return found


def _decide_piece(
    chain: Chain,
    index: int,
    states: SampleStates,
    groups: Sequence[LinearGroup],
    settings: Settings,
    weight_of: Callable[[str], Array],
    decisions: KeptDecisions,
    ranges: KeptRanges,
) -> None:
    """Decide on groups of a piece, and move the samples on behind it."""
    observed = _first_round(chain, index, states, groups, settings, ranges)
    smoothed = {group.name: _smooth(group, observed[group.name], settings, weight_of) for group in groups}
    divisors = {group.name: smoothed[group.name][1] for group in groups if group.quantized}
    if settings.format.is_static and divisors:
        _second_round(chain, index, states, observed, divisors)
    for group in groups:
        seen = observed.pop(group.name)
        decisions.keep(group, decisions_on(group, seen, *smoothed[group.name], settings, weight_of, len(states)))
    ranges.keep(index)
    states.pass_segment(chain.taken_behind(index))
    chain.forget(index)


def _first_round(
    chain: Chain,
    index: int,
    states: SampleStates,
    groups: Sequence[LinearGroup],
    settings: Settings,
    ranges: KeptRanges,
) -> dict[str, Observed]:
    """What is seen of a piece's groups, channel by channel, by name; the samples move on behind the piece."""
    observed = {group.name: _observed(group, settings) for group in groups}
    for number, values in _executions(chain, index, states, keep=True):
        ranges.observe(index, values)
        for group in groups:
            _observe(observed[group.name], group, values, number, len(states))
    return observed


def _second_round(
    chain: Chain,
    index: int,
    states: SampleStates,
    observed: Mapping[str, Observed],
    divisors: Mapping[str, Array | None],
) -> None:
    """The histograms of inputs as smoothed, by what they are divided by."""
    for _, values in _executions(chain, index, states, keep=False):
        for name, divided_by in divisors.items():
            observed[name].histogram.add(values[name] if divided_by is None else values[name] / divided_by)


def _executions(
    chain: Chain, index: int, states: SampleStates, *, keep: bool
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Every sample's number, and all values of a piece that are known then."""
    piece, taken = chain.pieces[index], chain.taken_behind(index)
    past = PiecePast(states.pasts, piece.inputs)
    with chain.open(index) as session:
        for number in range(len(states)):
            stored = states.read(number, [name for name in piece.inputs if name not in past.names])
            given = {**stored, **past.inputs(number)}
            outputs = execute(session, piece, given)
            past.finish(number, {**given, **outputs})
            if keep:
                states.write(number, {name: outputs[name] for name in piece.outputs if name in taken})
            yield number, {**given, **outputs}


def _observed(group: LinearGroup, settings: Settings) -> Observed:
    moments = Moments(group.channels) if settings.format.needs_moments and group.quantized else None
    return Observed(ChannelStatistics.of_width(group.channels), moments=moments)


def _observe(observed: Observed, group: LinearGroup, values: Mapping[str, Array], number: int, samples: int) -> None:
    array = values[group.name].reshape(-1, group.channels)
    if not group.quantized:
        observed.statistics.rows += len(array)
        return
    if not np.isfinite(array).all():
        raise UserError(
            f"the input of {group.linears[0].name} is not finite in sample {number + 1} of {samples}",
            hint="the float model itself overflows there: quantisation cannot mend that",
        )
    observed.statistics.add(array)
    if observed.moments is not None:
        observed.moments.add(array)
    if number % _every(samples) == 0:
        count = min(len(array), max(1, ROWS // samples))
        observed.rows.append(array[np.random.default_rng(number).choice(len(array), count, replace=False)])


def probe_rows(samples: int) -> int:
    """How many rows are kept of an input, if every sample has enough."""
    return len(range(0, samples, _every(samples))) * max(1, ROWS // max(1, samples))


def _every(samples: int) -> int:
    """Of how many samples one gives rows."""
    return max(1, samples // ROWS)


def _smooth(
    group: LinearGroup, observed: Observed, settings: Settings, weight_of: Callable[[str], Array]
) -> tuple[float | None, Array | None]:
    """α and the divisors of a group's input; None for both where it is not smoothed."""
    if not group.quantized:
        return None, None
    _check_varies(group, observed.statistics)
    if group.fold is None or settings.alpha == "none" or settings.format.inputs not in ("int8", "uint8"):
        return None, None
    weights = _Weights([linear.name for linear in group.linears if linear.name in group.quantized], weight_of)
    alpha = best_alpha(observed.statistics, weights) if settings.alpha == "search" else float(settings.alpha)
    if alpha is None:
        return None, None
    return alpha, channel_scales(observed.statistics, weights, alpha).astype(np.float32)


@dataclass(frozen=True)
class _Weights:
    """Weights, each read when it is its turn: the text, for one, is the input of Linears of every block."""

    names: Sequence[str]
    weight_of: Callable[[str], Array]

    def __iter__(self) -> Iterator[Array]:
        return map(self.weight_of, self.names)


def _check_varies(group: LinearGroup, statistics: ChannelStatistics) -> None:
    """An input that is the same everywhere says nothing about the range that it will have."""
    constant = statistics.squares >= statistics.peaks**2 * statistics.rows * (1 - 1e-6)
    if constant.all():
        what = "0" if not statistics.peaks.any() else "of one magnitude"
        raise UserError(
            f"the input of {group.linears[0].name} was {what} in all samples: there is nothing to calibrate on",
            hint=f"calibrate on more samples, or keep it in float: quantize.keep.patterns: [{group.linears[0].name}]",
        )


def decisions_on(
    group: LinearGroup,
    observed: Observed,
    alpha: float | None,
    divisors: Array | None,
    settings: Settings,
    weight_of: Callable[[str], Array],
    samples: int,
) -> Iterator[GroupDecision]:
    """What was decided on each Linear of a group, by what was `observed` of its input in so many samples."""
    scheme, scale, nothing = settings.format, None, np.empty(0, np.float32)
    rows_per_sample = observed.statistics.rows / samples
    if not group.quantized:
        yield GroupDecision(group, None, None, None, {}, {}, rows_per_sample, nothing, {})
        return
    if scheme.is_static:
        assert scheme.inputs is not None
        # Steps of a float format grow with the numbers: there is nothing to gain by clipping.
        observer = settings.observer if scheme.inputs == "int8" else "absmax"
        scale = threshold(observed.histogram, observer) / LARGEST[scheme.inputs]
    rows = np.concatenate(observed.rows)
    smoothed = rows if divisors is None else rows / divisors
    rounded = rounded_inputs(smoothed, scheme.inputs, scale)
    moments = observed.moments.total if observed.moments else None
    for one in alone(group):
        name = one.linears[0].name
        if name not in group.quantized:
            yield GroupDecision(one, alpha, divisors, scale, {}, {}, rows_per_sample, nothing, {})
            continue
        weight = weight_of(name)
        codes = scheme.codes(weight if divisors is None else weight * divisors, moments)
        outputs = product(rows, weight).astype(np.float32)
        sqnr = sqnr_db(product(rounded, codes.weights()), outputs)
        yield GroupDecision(
            one, alpha, divisors, scale, {name: codes}, {name: sqnr}, rows_per_sample, smoothed, {name: outputs}
        )
