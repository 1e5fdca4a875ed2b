"""Replaying a bundle's golden inputs: does this machine compute what the machine that built the bundle computed?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import VerificationError
from .progress import ProgressBar
from .safetensors import SafetensorsFile
from .sessions import Sessions
from .strict_json import Fields, parse_object


@dataclass(frozen=True)
class Check:
    """One graph: the largest relative error ‖out − expected‖ / ‖expected‖ of its outputs, and what is allowed."""

    graph: str
    relative_error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.relative_error <= self.tolerance


def selftest(bundle: Bundle, *, threads: int | None = None, progress: bool = False) -> list[Check]:
    """Execute every graph on its golden inputs. Raises VerificationError where a graph has no golden outputs."""
    golden = bundle.root / "golden"
    inputs = SafetensorsFile(golden / "inputs.safetensors")
    expected = SafetensorsFile(golden / "expected.safetensors")
    path = golden / "tolerances.json"
    tolerances = Fields(parse_object(path.read_bytes(), where=str(path)).values, str(path))
    sessions = Sessions(bundle.engines, threads=bundle.threads if threads is None else threads)
    checks: list[Check] = []
    with ProgressBar("selftest", len(bundle.engines), enabled=progress) as bar:
        for component, graph in sorted(bundle.engines):
            prefix = f"{component}/{graph}/"
            feeds = {name.removeprefix(prefix): array for name, array in inputs.items() if name.startswith(prefix)}
            outputs = sessions.run(component, graph, feeds)
            sessions.close(component)
            errors = [
                _relative_error(outputs[name.removeprefix(prefix)], array)
                for name, array in expected.items()
                if name.startswith(prefix)
            ]
            if not errors:
                raise VerificationError(f"no golden outputs for {component}/{graph}", where=str(golden))
            checks.append(Check(prefix.rstrip("/"), max(errors), tolerances.number(prefix.rstrip("/"))))
            bar.advance()
    return checks


def _relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """A NaN anywhere is an infinite error: it must not pass a comparison."""
    error = float(np.linalg.norm(actual - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
    return error if np.isfinite(error) else float("inf")
