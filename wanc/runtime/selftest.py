"""Replaying a bundle's golden inputs: does this machine compute what the machine that built the bundle computed?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .check_golden import tolerances
from .cores import threads_to_use
from .executor import Executor
from .golden import EXPECTED, FOLDER, INPUTS, named
from .progress import OnProgress, ignore
from .safetensors import SafetensorsFile


@dataclass(frozen=True)
class Check:
    """One graph: the largest relative error ‖out − expected‖ / ‖expected‖ of its outputs, and what is allowed."""

    graph: str
    relative_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.relative_error <= self.tolerance


def selftest(bundle: Bundle, *, threads: int | None = None, on_progress: OnProgress = ignore) -> list[Check]:
    """Execute every graph on its golden inputs. Raises BundleError where the record cannot be read."""
    inputs, expected = (bundle.folder.read(f"{FOLDER}/{name}", SafetensorsFile) for name in (INPUTS, EXPECTED))
    executor = Executor(bundle.folder, bundle.engines, threads=threads_to_use(threads, bundle.threads))
    checks: list[Check] = []
    on_progress("selftest", 0, len(bundle.engines))
    for (component, graph), tolerance in tolerances(bundle.folder, bundle.engines).items():
        outputs = executor.run(component, graph, named(inputs, component, graph))
        executor.close(component)
        wanted = named(expected, component, graph)
        error = max((relative_error(outputs[name].numpy(), array) for name, array in wanted.items()), default=0.0)
        checks.append(Check(f"{component}/{graph}", error, tolerance))
        on_progress("selftest", len(checks), len(bundle.engines))
    return checks


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """‖actual − expected‖ / ‖expected‖, in which equal infinities do not differ.

    A NaN anywhere is an infinite error: it must not pass a comparison. So is any difference in dtype or shape, and
    between values that are no floats.
    """
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return math.inf
    if actual.dtype.kind != "f":
        return 0.0 if np.array_equal(actual, expected) else math.inf
    equal = actual == expected
    ours, theirs = (np.where(equal, 0.0, array).astype(np.float64) for array in (actual, expected))
    scale = np.linalg.norm(np.where(np.isfinite(expected), expected, 0.0).astype(np.float64))
    with np.errstate(invalid="ignore"):  # a NaN, or infinities of both signs
        error = float(np.linalg.norm(ours - theirs)) / max(float(scale), 1e-30)
    return error if math.isfinite(error) else math.inf
