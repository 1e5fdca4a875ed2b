"""The contest: every contender in turn, round after round, so that a slow moment of the machine meets them all."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from wanc.artifacts.private import private_directory
from wanc.bench.case import Case
from wanc.errors import UserError
from wanc.runtime.progress import ProgressBar
from wanc.runtime.selftest import relative_error

T = TypeVar("T")
Array = np.ndarray[Any, Any]
REFERENCE = "PyTorch eager fp32"


@dataclass(frozen=True)
class Result:
    """A contender's seconds, round by round, and its error ‖out − ref‖ / ‖ref‖ against PyTorch in float32.

    `once_seconds` is what was computed before the first step and not again: for a request, or for a timestep.
    """

    name: str
    seconds: tuple[float, ...]
    relative_error: float
    once_seconds: float = 0.0

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
            "int8_linear_share": 0.0,
            "int8_total_share": 0.0,
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
    """Measure the case, in a private folder below `work`. Returns the report. Raises UserError for int8 contenders."""
    if only != "float":
        raise UserError(f"--only {only} is not built yet: today every contender computes in floats")
    import torch

    from wanc.bench import ours, peers

    torch.set_num_threads(case.threads)
    module, inputs = case.module(), case.inputs()
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    work.mkdir(parents=True, exist_ok=True)
    with private_directory(work, prefix=".bench.") as folder:
        source = case.save(module, folder)
        exported = ours.export(case, source, folder / "exported")
        plain = peers.export(module, inputs, folder / "plain.onnx")
        optimized = peers.transformer_optimizer(plain, case, folder / "optimized.onnx")
        threads = case.threads
        steps: dict[str, Callable[[], Array]] = {
            REFERENCE: peers.eager(module, inputs),
            "torch.compile fp32": peers.compiled(module, inputs),
            "PyTorch autocast bf16": peers.autocast(module, inputs),
            "ONNX Runtime, plain export": peers.onnx_runtime(plain, inputs, threads),
            "ONNX Runtime, its transformer optimizer": peers.onnx_runtime(optimized, inputs, threads),
            "OpenVINO fp32": peers.open_vino(plain, inputs, threads, "f32"),
            "OpenVINO bf16": peers.open_vino(plain, inputs, threads, "bf16"),
        }
        denoisers = {
            name: ours.build(name, exported, source, folder / f"wanc-{index}", threads)
            for index, name in enumerate(ours.COMPILERS)
        }
        for name, denoiser in denoisers.items():
            steps[name] = lambda denoiser=denoiser: denoiser.step(arrays)
        measured = contest(steps, rounds, progress=progress)
        once = {name: denoiser.request_seconds() for name, denoiser in denoisers.items()}
    reference = measured[REFERENCE][1]
    results = [
        Result(name, seconds, relative_error(result, reference), once.get(name, 0.0))
        for name, (seconds, result) in measured.items()
    ]
    return {
        "case": case.as_json(),
        "machine": machine(),
        "threads": case.threads,
        "only": only,
        "contenders": [result.as_json() for result in results],
    }


def machine() -> dict[str, Any]:
    """What a figure depends on: the processor, its features, and the versions of what was measured."""
    from wanc.compiler.stage import tool_version

    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    features = [
        name for name in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in facts.get("flags", "")
    ]
    tools = ("torch", "onnxruntime", "openvino", "diffusers", "numpy")
    return {
        "processor": facts.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "features": features,
        "tools": {tool: tool_version(tool) for tool in tools},
    }
