"""Comparing what a build gives with what its untouched source gives: names, dtypes, shapes and values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wanc.compiler.check.trials import Arrays, Trial
from wanc.compiler.engines.kernels import Precision
from wanc.models.graph import Output

Array = np.ndarray[Any, Any]

Coarseness = Precision | Literal["quantised"]
ENGINE: Mapping[Coarseness, float] = {
    # Other kernels sum in another order: some 1e-6 of a result, and 1e-5 behind many layers. A real fault is far above.
    "float32": 1e-4,
    # A sum that comes out a little otherwise is rounded to the next of 255 codes, now and then.
    "integer": 1e-2,
    "integer convolutions": 1e-2,
    # Half of the digits in every product: 1 / 256 each, and somewhat more behind all of them.
    "half": 5e-2,
    # What fewer bits cost is the recipe's choice, and measured elsewhere: 1e-2 in 8 bits, 1e-1 in 4. Where another
    # weight stands for one, nothing of the source is left.
    "quantised": 0.5,
}
"""The largest relative error ‖out − source‖ / ‖source‖, by the coarsest numbers in which an engine multiplies."""
FORMAT: Mapping[str, float] = {"float16": 5e-3, "float32": 1e-4, "float64": 1e-7}
"""By the format of an output: that of float16 has 1 / 2048 for its last place."""
SINGLE = 20
"""A single element may be off by so many times as much of itself and of the output's usual size: errors of sums are
spread like noise, and the largest of a million is five times the usual one."""
OF_ROUNDING = 1.5
"""Times what rounding costs, which is how far apart two are that round independently of each other. A decoder has
thirty products in a row and nothing beside them: what one rounds to another code, all those behind it do as well."""
LIKE_ITSELF = 8
"""Times as far as the source itself moves when what enters it is off in the last place: no build can do better than
its source, of which single executions tell only roughly how far that is."""


@dataclass(frozen=True)
class Difference:
    """An output that is not the source's, and in which way; `error` is relative, None where there is none to tell."""

    output: str
    text: str
    error: float | None = None


@dataclass(frozen=True)
class Compared:
    """How far a build is from its source: the largest relative error, and the outputs that are too far."""

    error: float
    differences: Sequence[Difference]


def tolerance(precision: Coarseness, dtype: str) -> float:
    """How far an output of this dtype may be, computed in this precision."""
    return max(ENGINE[precision] if precision != "float32" else 0.0, FORMAT.get(dtype, FORMAT["float32"]))


def compare(
    outputs: Sequence[Output],
    trial: Trial,
    actual: Arrays,
    precision: Coarseness,
    random: Collection[str] = (),
    unrounded: Arrays | None = None,
) -> Compared:
    """Compare what something gives for a trial's inputs with what the source gave.

    Of outputs that are `random` the values are not looked at. Where the source gives a NaN it says nothing. `unrounded`
    is what is given without the rounding that the source does, where that is done over and over again.
    """
    found: list[Difference] = []
    worst = 0.0
    for output in outputs:
        expected, given = trial.outputs.get(output.name), actual.get(output.name)
        if expected is None or given is None:
            found.append(
                Difference(output.name, f"is not among what {'the source' if expected is None else 'it'} gives")
            )
        elif fault := _form_fault(expected, given, values=output.name not in random):
            found.append(Difference(output.name, fault))
        elif output.name not in random and expected.size:
            allowed = tolerance(precision, output.dtype)
            if unrounded is not None:
                allowed = max(allowed, OF_ROUNDING * relative(expected, unrounded[output.name]))
            error = relative(given, expected)
            if too_far(given, expected, allowed) and not _like_itself(given, expected, output.name, trial):
                found.append(Difference(output.name, _how_far(error, allowed, given, expected), error))
            elif expected.dtype.kind == "f":
                worst = max(worst, error)
    return Compared(worst, found)


def too_far(given: Array, expected: Array, allowed: float) -> bool:
    """Whether two arrays of one dtype and shape differ by more than is `allowed`: in all, or in a single element."""
    if expected.dtype.kind != "f":
        return not np.array_equal(given, expected)
    off = _off(given, expected)
    if not np.isfinite(off).all():
        return True
    told = np.where(np.isfinite(expected), np.abs(expected), 0).astype(np.float64)
    usual = np.sqrt(np.mean(told**2))
    return bool(relative(given, expected) > allowed or (off > SINGLE * allowed * (told + usual)).any())


def relative(given: Array, expected: Array) -> float:
    """‖given − expected‖ / ‖expected‖, 0 where nothing differs; where one is no float, the share of other elements."""
    if expected.dtype.kind != "f":
        return float(np.mean(given != expected)) if expected.size else 0.0
    scale = np.linalg.norm(np.where(np.isfinite(expected), expected, 0).astype(np.float64))
    error = float(np.linalg.norm(_off(given, expected)))
    return error / max(float(scale), 1e-30) if error else 0.0


def _off(given: Array, expected: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How far each element is off: infinitely, where one of the two is not finite and they are not the same."""
    same = (given == expected) | np.isnan(expected)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


def _form_fault(expected: Array, given: Array, *, values: bool) -> str | None:
    if given.dtype != expected.dtype or given.ndim != expected.ndim or (values and given.shape != expected.shape):
        return f"is {given.dtype} {list(given.shape)}, and {expected.dtype} {list(expected.shape)} in the source"
    return None


def _like_itself(given: Array, expected: Array, name: str, trial: Trial) -> bool:
    """Whether the source itself moves as far when everything that enters it is off in the last place."""
    moved = trial.moved()[name]
    if moved.shape != expected.shape:
        return True  # how many results there are hangs on the last place
    if expected.dtype.kind != "f":
        return relative(given, expected) <= LIKE_ITSELF * relative(moved, expected)
    ours, theirs = _off(given, expected), _off(moved, expected)
    in_all = np.linalg.norm(ours) <= LIKE_ITSELF * np.linalg.norm(theirs)
    is_told = np.isfinite(ours).all() and np.isfinite(theirs).all()
    return bool(is_told and in_all and ours.max() <= LIKE_ITSELF * theirs.max())


def _how_far(error: float, allowed: float, given: Array, expected: Array) -> str:
    if expected.dtype.kind != "f":
        return f"differs in {np.count_nonzero(given != expected)} of {expected.size} elements"
    place = np.unravel_index(int(np.argmax(_off(given, expected))), expected.shape)
    at = [int(index) for index in place]
    return (
        f"differs by {error:.1e}, and at most {allowed:.0e} is right; "
        f"furthest at {at}: {given[place]:.6g}, and {expected[place]:.6g} in the source"
    )
