"""What quantising each Linear alone does to a component's result, on a few samples.

In its piece a Linear is quantised alone, and the error that leaves the piece is measured. How much of an error
arrives at the end is measured once for each piece, with all its Linears quantised: errors of one place fare alike. So
it takes one execution of its piece for every Linear, and half an execution of the whole for every piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wanc.compiler.graphs.linears import linears
from wanc.compiler.graphs.quantizers import StoredDecision
from wanc.compiler.host.chain import Chain
from wanc.compiler.program.quant_table import significant

Array = np.ndarray[Any, Any]
State = dict[str, Array]
Errors = NDArray[np.float64]

SAMPLES = 8
"""So many are enough: an effect is a sum over thousands of results."""
DIGITS = 4


def measure_effects(
    chain: Chain,
    decisions: Mapping[str, StoredDecision],
    samples: Sequence[Mapping[str, Array]],
    weights: Sequence[float],
    on_piece: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The mean squared error that each Linear alone adds to the results, each sample's times its weight, by name.

    `chain` computes in float and has no taps. What comes of it has four digits, and so has what is decided by it.
    """
    states = [dict(sample) for sample in samples]
    effects = dict.fromkeys(decisions, 0.0)
    for index, piece in enumerate(chain.pieces):
        here = {linear.name: decisions[linear.name] for linear in linears(piece.model) if linear.name in decisions}
        floats = _execute(chain, index, states, None)
        if here:
            together = _execute(chain, index, states, here)
            gains = _arriving(chain, index, floats, together) / _errors(floats, together)
            for name, decision in here.items():
                errors = _errors(floats, _execute(chain, index, states, {name: decision}))
                effects[name] += float(np.mean(errors * np.nan_to_num(gains) * weights))
        states = floats
        on_piece()
    return {name: significant(effect, DIGITS) for name, effect in effects.items()}


def _execute(
    chain: Chain, index: int, states: Sequence[State], quantized: Mapping[str, StoredDecision] | None
) -> list[State]:
    """The states behind a piece, as far as later ones need them."""
    opened = chain.open(index) if quantized is None else chain.open_quantized(index, quantized)
    with opened as session:
        return chain.behind(index, session, states)


def _arriving(chain: Chain, index: int, floats: Sequence[State], others: Sequence[State]) -> Errors:
    """The errors at the end, of each sample, when the rest of the chain computes in float."""
    left, right = list(floats), list(others)
    for later in range(index + 1, len(chain.pieces)):
        left, right = (_execute(chain, later, states, None) for states in (left, right))
    return _errors(left, right)


def _errors(floats: Sequence[State], others: Sequence[State]) -> Errors:
    """The mean squared difference of each sample, over all that differs."""
    return np.array([_error(one, other) for one, other in zip(floats, others, strict=True)])


def _error(one: State, other: State) -> float:
    pairs = [(one[name], other[name]) for name in one if one[name].dtype.kind == "f"]
    squares = sum(float(np.square(left - right, dtype=np.float64).sum()) for left, right in pairs)
    return squares / sum(left.size for left, _ in pairs)
