"""Two experts of the 1.3B shape within budgets of memory: what the process takes, how long it is, and what it gives.

Each case is a process of its own that opens the bundle and makes the same video twice: at first nothing is open, and
the second time as much is as its budget has let stay. Its files are in the system's cache before.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from scripts.true_scale import markdown
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.errors import TargetError
from wanc.runtime.manifest import Manifest
from wanc.runtime.memory import peak_rss_bytes, rss_bytes
from wanc.runtime.pipeline import Pipeline

Figures = dict[str, Any]
MIB = 2**20
SLACK = 400 * MIB
"""What a process may take beside its budget: the interpreter, the libraries, and the bundle's tables."""
SHARES = (1.0, 0.5, 0.25)
"""Of the weights of both experts, as the engine holds them."""
MOST_TIMES, MOST_AT_THE_SWITCH, MOST_OFF = 1.25, 1.5, 0.1
"""Half of the weights against all, and the step at the switch against another, in time; predicted against taken."""
ROOT = Path(__file__).resolve().parents[2]
STEPS, SWITCH = 4, 2
"""The low-noise expert begins with the third of four steps."""
SIZE = "256x448"
RECIPE = f"""\
wanc: 1
name: two-experts
model: {{source: checkpoint}}
shapes: [{{name: {SIZE}, height: 256, width: 448, frames: 17}}]
sampling:
  timesteps: [1000, 900, 500, 250]
  shift: 5.0
  guidance: {{high: 1.0, low: 1.0}}
  boundary: 0.875
precision: {{compute: bf16}}
engine: {{kind: openvino, check: off}}
runtime: {{budgets: {{device: 1400MiB}}}}
"""
GROUPS = Path("/sys/fs/cgroup/memory")
"""Where version 1 of control groups has their limits of memory."""
PROMPT = "A red fox runs over fresh snow."


def built(folder: Path) -> Path:
    """The bundle, with its checkpoint beside it, both made if they are not there. It takes half an hour and 17 GB."""
    if not (folder / "checkpoint").exists():
        make(MODELS["two-experts-1.3b-shape"], "diffusers", folder / "checkpoint", seed=0)
    (folder / "recipe.yaml").write_text(RECIPE)
    (loaded,) = load(folder / "recipe.yaml")
    return build(loaded, folder / "out", progress=sys.stderr.isatty(), replace=True).bundle


def budget_of(bundle: Path, share: float) -> int:
    """So many bytes of both experts' weights as their open engines have them, and room for the values beside."""
    phase: Any = _phases(bundle)["denoise"]
    return int(share * phase["weights"])


def least_budget(bundle: Path) -> int:
    """The smallest one within which the video can be made."""
    return max(phase["least"] for phase in _phases(bundle).values())


def predicted_peak(bundle: Path, budget: int) -> int:
    """Bytes of open engines and values, as the bundle says."""
    phases = _phases(bundle).values()
    return max(max(phase["least"], min(budget, phase["values"] + phase["weights"])) for phase in phases)


def measured(bundle: Path, share: float, *, is_limited: bool) -> Figures:
    """One case, in a process of its own; where it `is_limited`, no more memory is there than budget and slack."""
    for path in bundle.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                while stream.read(2**24):
                    pass
    budget = budget_of(bundle, share)
    command = [sys.executable, "-m", "scripts.true_scale.budgets", str(bundle), str(budget)]
    with _limit(budget + SLACK if is_limited else None) as enter:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT, preexec_fn=enter)
    found: Figures = json.loads(done.stdout)
    case = {"share": share, "is_limited": is_limited, "budget": budget, "predicted": predicted_peak(bundle, budget)}
    return {**case, **found}


def refused(bundle: Path, budget: int) -> str:
    """What is said where the bundle is opened with too small a budget."""
    try:
        Pipeline.open(bundle, device_budget=str(budget))
    except TargetError as error:
        return f"{error.message} ({error.hint})"
    raise AssertionError(f"{budget} bytes were taken")


@contextmanager
def _limit(size: int | None) -> Generator[Any]:
    """What a child process calls to enter a control group with so many bytes of memory; of None, no group."""
    if size is None:
        yield None
        return
    group = GROUPS / f"budget-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(size))
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def made(bundle: Path, budget: int) -> Figures:
    """Open the bundle and make its video twice, in this process."""
    pipeline = Pipeline.open(bundle, threads=0, device_budget=str(budget))
    base = rss_bytes()
    videos = [_video(pipeline) for _ in range(2)]
    counters = pipeline.executor.residency.counters()
    return {
        "base_rss": base,
        "peak_rss": peak_rss_bytes(),
        "counted_peak": counters["peak_bytes"],
        "loads": counters["loads"],
        "evictions": counters["evictions"],
        "videos": videos,
    }


def _video(pipeline: Pipeline) -> Figures:
    moments: list[float] = []

    def note(phase: str, done: int, total: int) -> None:
        del done, total
        if phase == "denoise":
            moments.append(time.perf_counter())

    started = time.perf_counter()
    result = pipeline.generate(PROMPT, seed=42, on_progress=note)
    steps = [later - sooner for sooner, later in pairwise(moments)]
    assert len(steps) == STEPS, f"{len(steps)} steps were told of"
    return {
        "seconds": time.perf_counter() - started,
        "steps": steps,
        "latents": hashlib.sha256(result.latents.tobytes()).hexdigest(),
        "frames": hashlib.sha256(result.frames.tobytes()).hexdigest(),
    }


def at_the_switch(video: Mapping[str, Any]) -> float:
    """The first step of the low-noise expert, in steps that change nothing: the others but for the very first."""
    steps = video["steps"]
    return steps[SWITCH] / median(step for index, step in enumerate(steps) if index not in (0, SWITCH))


def faults(document: Mapping[str, Any]) -> Iterator[str]:
    """What does not hold of all rounds of all cases, on a machine that does nothing else."""
    rows: list[Figures] = document["rows"]
    for row in rows:
        case, budget = f"{row['share']:.0%}{', limited' if row['is_limited'] else ''}", row["budget"]
        if row["peak_rss"] > budget + SLACK:
            yield f"{case}: {row['peak_rss']} bytes at the peak, for a budget of {budget}"
        if row["counted_peak"] > budget:
            yield f"{case}: {row['counted_peak']} bytes were counted, for a budget of {budget}"
        for name, taken in (("counted", row["counted_peak"]), ("taken", row["peak_rss"] - row["base_rss"])):
            if abs(taken / row["predicted"] - 1) > MOST_OFF:
                yield f"{case}: {taken} bytes {name}, and {row['predicted']} predicted"
    if len({video["latents"] for row in rows for video in row["videos"]}) > 1:
        yield "the latents depend on the budget"
    whole, half = (_medians(rows, share) for share in (1.0, 0.5))
    if half["seconds"] > MOST_TIMES * whole["seconds"]:
        yield f"at a half it takes {half['seconds'] / whole['seconds']:.2f} times as long"
    for share in SHARES:
        if (ratio := _medians(rows, share)["switch"]) > MOST_AT_THE_SWITCH:
            yield f"{share:.0%}: the step at the switch takes {ratio:.2f} times as long as another"
    if str(document["least_budget"]) not in document["one_byte_less"]:
        yield f"a byte less than the least budget is answered by: {document['one_byte_less']}"


def _medians(rows: list[Figures], share: float) -> dict[str, float]:
    """Of the first videos within a share of the weights."""
    videos = [row["videos"][0] for row in rows if row["share"] == share]
    return {
        "seconds": median(video["seconds"] for video in videos),
        "switch": median(at_the_switch(video) for video in videos),
    }


def _phases(bundle: Path) -> Mapping[str, Any]:
    memory: Any = Manifest.read(bundle).runtime["memory"]
    return memory["shapes"][SIZE]


COLUMNS = (
    "of the weights",
    "limit",
    "budget, MiB",
    "predicted",
    "counted",
    "process",
    "beside the budget",
    "first video, s",
    "second",
    "switch",
)


def table(rows: list[Figures]) -> str:
    """For people: the median round of each case."""
    lines = [
        "# Two experts of the 1.3B shape within a budget",
        "",
        markdown.row(COLUMNS),
        markdown.row(["---"] * len(COLUMNS)),
    ]
    for share in SHARES:
        for is_limited in (False, True):
            cases = [row for row in rows if (row["share"], row["is_limited"]) == (share, is_limited)]
            if not cases:
                continue
            last = cases[-1]
            sizes = [last["budget"], last["predicted"], max(row["counted_peak"] for row in cases)]
            peak = max(row["peak_rss"] for row in cases)
            times = [f"{median(row['videos'][video]['seconds'] for row in cases):.1f}" for video in range(2)]
            switch = f"{median(at_the_switch(row['videos'][0]) for row in cases):.2f}×"
            over = f"{(peak - last['budget']) / MIB:,.0f}"
            cells = [f"{share:.0%}", "yes" if is_limited else "no", *(f"{size / MIB:,.0f}" for size in [*sizes, peak])]
            lines.append(markdown.row([*cells, over, *times, switch]))
    what = "30 blocks, 2,240 tokens, OpenVINO in bfloat16, four steps, one branch; random weights."
    return "\n".join(lines) + f"\n\n{what}\n"


if __name__ == "__main__":
    print(json.dumps(made(Path(sys.argv[1]), int(sys.argv[2]))))
