"""Quantises the tiny model after training and with training, and measures how far both are from the float model.

The error is the mean squared one of the latents on held-out prompts and seeds, from the same noise, with both experts
quantised. Training continues from its checkpoints in the work folder, so a killed run is continued by the same command,
and a scheme that has been measured there is not measured again.

example:
  python -m scripts.qat_tiny_wan --work artifacts/qat/tiny-wan --out docs/results
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from scripts.tiny_wan import quantization
from scripts.tiny_wan.quantization import METHODS, Scheme
from wanc.calibration import trajectories
from wanc.calibration.decision import Decision
from wanc.calibration.distill import TrainingPlan, distill
from wanc.calibration.lessons import Task
from wanc.calibration.trajectories import Requests, Run, TrajectorySampling, guided_velocity
from wanc.runtime.whole_file import write_whole

Result = TypeVar("Result")
WHAT = "the report"
Decisions = list[dict[str, Decision]]

LEARNING_RATES: dict[Scheme, float] = {"int4-weight": 3e-4, "int8": 5e-5}
# Of the seeds of the noise: apart from each other, and from those of the held-out cases.
CALIBRATION_SEED, TRAINING_SEED, VALIDATION_SEED = 200_000, 300_000, 400_000
# How much longer a round takes than its steps of training: its runs, and the validation.
ROUND_OVERHEAD = 2.0
PACE_STEPS = 4


@dataclass(frozen=True)
class Sizes:
    """How many requests there are for everything."""

    calibration: int = 16
    training: int = 384
    validation: int = 12
    test: int = 64


@dataclass(frozen=True)
class Error:
    """Mean squared errors of latents: of the final ones, and over all steps.

    `typical` is the geometric mean of the final ones over the requests, `final` their mean: a run that tips over to
    another picture counts for that much more.
    """

    final: float
    along: float
    typical: float

    @classmethod
    def of(cls, actual: Run, expected: Run) -> Error:
        errors = trajectories.errors(actual, expected)
        return cls(float(errors[-1].mean()), float(errors.mean()), float(errors[-1].log().mean().exp()))


class Bench:
    """The float model, what it is measured on, and what it gives there."""

    def __init__(self, model: Path, sizes: Sizes) -> None:
        texts = quantization.Texts(model)
        self.teachers = quantization.load_experts(model)
        self.sampling: TrajectorySampling = quantization.sampling()
        self.calibration = texts.training(sizes.calibration, CALIBRATION_SEED)
        self.training = texts.training(sizes.training, TRAINING_SEED)
        self.validation = texts.training(sizes.validation, VALIDATION_SEED)
        self.test = texts.held_out(sizes.test)
        self._expected = self._run(self.teachers, self.test)

    def experts(self, decisions: Decisions, scheme: Scheme) -> list[torch.nn.Module]:
        """Both, quantised."""
        return [
            quantization.quantized(teacher, decided, scheme)
            for teacher, decided in zip(self.teachers, decisions, strict=True)
        ]

    def error(self, decisions: Decisions, scheme: Scheme) -> Error:
        """On the held-out requests."""
        return Error.of(self._run(self.experts(decisions, scheme), self.test), self._expected)

    def candidates(self, scheme: Scheme) -> dict[str, Decisions]:
        """What every method of quantisation after training decides."""
        observed = quantization.observe(self.teachers, scheme, lambda: self._run(self.teachers, self.calibration))
        return {
            str(method): [quantization.decide(expert, scheme, method) for expert in observed]
            for method in METHODS[scheme]
        }

    def _run(self, experts: list[torch.nn.Module], requests: Requests) -> Run:
        return self.sampling.run(experts, requests)


def train(bench: Bench, scheme: Scheme, start: Decisions, rounds: int, work: Path) -> tuple[Decisions, list[Any]]:
    """Both experts, the high-noise one first. Returns their decisions, and the validation errors after every round."""
    plan = TrainingPlan(levels=quantization.levels(scheme), learning_rate=LEARNING_RATES[scheme], rounds=rounds)
    others, decisions, errors = list(bench.teachers), list[dict[str, Decision]](), list[Any]()
    for trained, teacher in enumerate(bench.teachers):
        task = Task(
            teachers=bench.teachers, others=others, trained=trained, decisions=start[trained],
            sampling=bench.sampling, training=bench.training, validation=bench.validation,
        )  # fmt: skip
        outcome = distill(task, plan, work / f"{scheme}-{trained}.safetensors")
        others[trained] = quantization.quantized(teacher, outcome.decisions, scheme)
        decisions.append(outcome.decisions)
        errors.append(outcome.errors)
    return decisions, errors


def rounds_in(minutes: float, bench: Bench, scheme: Scheme, decisions: Decisions, work: Path) -> int:
    """How many rounds an expert can have, by the pace of this machine; a continued run keeps to what it began with.

    The pace is that of cores that do nothing else.
    """
    file = work / f"{scheme}-plan.json"
    if file.exists():
        return int(json.loads(file.read_text(encoding="utf-8"))["rounds"])
    plan = TrainingPlan(levels=quantization.levels(scheme), learning_rate=LEARNING_RATES[scheme], rounds=1)
    (student, _) = bench.experts(decisions, scheme)
    student.requires_grad_(True)
    requests = bench.validation[: plan.batch]
    begun = time.process_time()
    for _ in range(PACE_STEPS):
        guided_velocity(student, requests.at(requests.noise, 999.0), bench.sampling.guidance[0]).sum().backward()
    pace = (time.process_time() - begun) / PACE_STEPS / torch.get_num_threads()
    rounds = max(1, int(minutes * 60 / len(bench.teachers) / (pace * plan.steps * ROUND_OVERHEAD)))
    _write_json(file, {"rounds": rounds, "minutes": minutes, "seconds_per_step": pace})
    return rounds


def measure(bench: Bench, scheme: Scheme, minutes: float, work: Path) -> dict[str, Any]:
    """Everything about one scheme."""
    candidates = bench.candidates(scheme)
    errors = {name: bench.error(decisions, scheme) for name, decisions in candidates.items()}
    best = min(errors, key=lambda name: errors[name].final)
    rounds = rounds_in(minutes, bench, scheme, candidates[best], work)
    clock = work / f"{scheme}-seconds.json"
    decisions, validation = _timed(clock, lambda: train(bench, scheme, candidates[best], rounds, work))
    trained = bench.error(decisions, scheme)
    return {
        "after_training": {name: asdict(error) for name, error in errors.items()},
        "best_after_training": best,
        "with_training": asdict(trained),
        "reduction": {name: 1 - value / asdict(errors[best])[name] for name, value in asdict(trained).items()},
        "validation": validation,
        "rounds": rounds,
        "training_seconds": json.loads(clock.read_text(encoding="utf-8")),
        "threads": torch.get_num_threads(),
    }


def report(figures: Mapping[str, Mapping[str, Any]], sizes: Sizes) -> str:
    """The figures of every scheme as a page of Markdown."""
    lines = [
        "# Quantisation after training and with training: tiny-wan",
        "",
        f"Mean squared errors of latents against the float32 model over {sizes.test} held-out prompts and seeds, from",
        "the same noise, both experts quantised: of the final latents; of the latents after every step; and of the",
        "final latents in the geometric mean over the requests, where no run counts more than another.",
        "",
        "| scheme | method | final | all steps | final, typical |",
        "|---|---|---|---|---|",
    ]
    for scheme, of_scheme in figures.items():
        rows = {f"after training: {name}": error for name, error in of_scheme["after_training"].items()}
        for name, error in {**rows, "with training": of_scheme["with_training"]}.items():
            lines.append(f"| {scheme} | {name} | " + " | ".join(f"{value:.2e}" for value in error.values()) + " |")
        cells = " | ".join(f"{-value:+.0%}" for value in of_scheme["reduction"].values())
        lines.append(f"| {scheme} | against `{of_scheme['best_after_training']}` | {cells} |")
    lines.append("")
    for scheme, of_scheme in figures.items():
        wall, processor = (of_scheme["training_seconds"][name] / 60 for name in ("wall", "processor"))
        lines.append(
            f"Training for {scheme}: {wall:.0f} minutes for both experts together on {of_scheme['threads']} thread(s), "
            f"{processor:.0f} of processor time; at most {of_scheme['rounds']} rounds of {TrainingPlan.steps} steps "
            "for each."
        )
    lines += [
        "",
        "Measured by `scripts/qat_tiny_wan.py`. The minutes depend on what else the cores do.",
        "",
    ]
    return "\n".join(lines)


def _timed(file: Path, work: Callable[[], Result]) -> Result:
    """Add the seconds that this takes to those that earlier, killed runs took."""
    clocks = {"wall": time.monotonic, "processor": time.process_time}
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else dict.fromkeys(clocks, 0.0)
    begun = {name: clock() for name, clock in clocks.items()}
    try:
        return work()
    finally:
        _write_json(file, {name: round(before[name] + clock() - begun[name], 1) for name, clock in clocks.items()})


def _write_json(file: Path, value: object) -> None:
    write_whole(file, f"{json.dumps(value, indent=2)}\n".encode(), WHAT)


def main() -> None:
    """Read the command line, quantise, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/tiny-wan"), help="default: %(default)s")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--scheme", choices=list(METHODS), action="append", help="default: all of them")
    parser.add_argument(
        "--minutes", type=float, default=5, help="of a scheme's training, on idle cores (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes, bench, figures = Sizes(), None, dict[str, Any]()
    for scheme in arguments.scheme or list(METHODS):
        file = arguments.work / f"{scheme}.json"
        if not file.exists():
            bench = bench or Bench(arguments.model, sizes)
            _write_json(file, measure(bench, scheme, arguments.minutes, arguments.work))
        figures[scheme] = json.loads(file.read_text(encoding="utf-8"))
    page = report(figures, sizes)
    write_whole(arguments.out / "qat-tiny-wan.md", page.encode(), WHAT)
    _write_json(arguments.out / "qat-tiny-wan.json", {"sizes": asdict(sizes), "cores": os.cpu_count(), **figures})
    print(page)


if __name__ == "__main__":
    main()
