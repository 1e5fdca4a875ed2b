"""The contest: every contender in turn, round after round, so that a slow moment of the machine meets them all."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from wanc.artifacts.files import output_errors
from wanc.artifacts.private import private_directory
from wanc.bench.case import Case
from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.runtime.progress import ProgressBar
from wanc.runtime.same_module import installed
from wanc.runtime.selftest import relative_error

T = TypeVar("T")
FLOAT_TOOLS = ("torch", "onnxruntime", "openvino", "diffusers", "numpy")
TOOLS: Mapping[str, tuple[str, ...]] = {"float": FLOAT_TOOLS, "int8": (*FLOAT_TOOLS, "nncf")}
"""By contest, the distributions that figures depend on."""
EXTRAS: Mapping[str, str] = {"onnxruntime": "cpu", "openvino": "openvino", "nncf": "bench"}
"""Those that wanc's extra `build` does not install, and the extra that does."""


@dataclass(frozen=True)
class ContestResult:
    """A contender's seconds, round by round, and its error ‖out − ref‖ / ‖ref‖ against PyTorch in float32.

    `once_seconds` is what was computed before the first step and not again: for a request, or for a timestep. The
    shares are those of `Products`, and `flops` all products of a step, 0 where nobody counts them.
    """

    name: str
    seconds: tuple[float, ...]
    relative_error: float
    once_seconds: float = 0.0
    int8_linear_share: float = 0.0
    int8_total_share: float = 0.0
    flops: int = 0

    @property
    def median(self) -> float:
        return median(self.seconds)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "seconds": [round(seconds, 4) for seconds in self.seconds],
            "median": round(self.median, 4),
            "min": round(min(self.seconds), 4),
            "rel_error": self.relative_error,
            "once_seconds": round(self.once_seconds, 4),
            "int8_linear_share": round(self.int8_linear_share, 4),
            "int8_total_share": round(self.int8_total_share, 4),
            "flops": self.flops,
        }


def contest(
    steps: Mapping[str, Callable[[], T]], rounds: int, *, progress: bool
) -> dict[str, tuple[tuple[float, ...], T]]:
    """Each contender's seconds and last result. One round, which is not counted, warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    results: dict[str, T] = {}
    with ProgressBar("bench", (rounds + 1) * len(steps), enabled=progress) as bar:
        for number in range(rounds + 1):
            for name, step in steps.items():
                started = time.perf_counter()
                results[name] = step()
                if number:
                    seconds[name].append(time.perf_counter() - started)
                bar.advance()
    return {name: (tuple(seconds[name]), results[name]) for name in steps}


def bench(case: Case, *, only: str, rounds: int, work: Path, progress: bool) -> dict[str, Any]:
    """Measure the case, in a private folder below `work`, beside the contenders of `only`: float or int8.

    Returns the report. Raises UserError where a package is missing that one of them takes.
    """
    where = machine(TOOLS[only])
    import torch

    from wanc.bench.contenders import REFERENCE, Material, contenders

    torch.set_num_threads(case.threads)
    with output_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    with private_directory(work, prefix=".bench.") as folder:
        entries = contenders(only, Material.prepare(case, folder))
        measured = contest({name: entry.step for name, entry in entries.items()}, rounds, progress=progress)
        once = {name: entry.once_seconds() for name, entry in entries.items()}
        products = {name: entry.products() for name, entry in entries.items()}
    reference = measured[REFERENCE][1]
    results = [
        ContestResult(
            name,
            seconds,
            relative_error(result, reference),
            once[name],
            products[name].int8_linear_share,
            products[name].int8_total_share,
            products[name].total,
        )
        for name, (seconds, result) in measured.items()
    ]
    return {
        "case": case.as_json(),
        "machine": where,
        "threads": case.threads,
        "only": only,
        "contenders": [result.as_json() for result in results],
    }


def machine(tools: Iterable[str]) -> dict[str, Any]:
    """What a figure depends on: the processor, its features, and the versions of what was measured.

    Raises UserError where one of these distributions is missing.
    """
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    features = [
        name for name in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in facts.get("flags", "")
    ]
    return {
        "processor": facts.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "features": features,
        "tools": {tool: _version(tool) for tool in tools},
    }


def _version(tool: str) -> str:
    if (found := installed(tool)) is None:
        raise UserError(
            f"this contest needs the package {tool}, which is not installed",
            hint=f"pip install 'wanc[{EXTRAS.get(tool, 'build')}]'",
            exit_code=EXIT_UNAVAILABLE,
        )
    return found[1]
