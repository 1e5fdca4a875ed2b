"""What a run can be told: one list for the library's keywords, `wanc run`, and a bundle's own `run.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, cast

from .interface import TASK as GRAPH

VIDEO = "text-to-video"

OptionType: TypeAlias = type[str] | type[int] | type[float] | type[Path] | type[bool]


@dataclass(frozen=True)
class Option:
    """One of them: `name` in Python, `flag` on a command line.

    `unset` says what holds where it is not given; `task` is the one that knows it, None for all. Of a task's `needed`
    ones exactly one is given.
    """

    name: str
    type: OptionType
    metavar: str
    about: str
    unset: str | None = None
    task: str | None = VIDEO
    needed: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def help(self) -> str:
        return f"{self.about}; {self.unset} if unset." if self.unset else f"{self.about}."


OPTIONS = (
    Option("inputs", Path, "FILE.npz", "An .npz file of a graph's inputs, by name", task=GRAPH, needed=True),
    Option("prompt", str, "TEXT", "What the video shows, in any language that the model knows", needed=True),
    Option("prompts", Path, "FILE", "A text file with a prompt in each line; -o is then a folder", needed=True),
    Option("negative_prompt", str, "TEXT", "What it should not show", "the recipe's"),
    Option("seed", int, "N", "Seed of the initial noise, the same for every prompt", "0"),
    Option("steps", int, "N", "Number of sampling steps", "the recipe's"),
    Option("shape", str, "NAME", "One of the bundle's shapes", "its first"),
    Option("frames", int, "N", "Number of frames, 4n+1", "the shape's"),
    Option("latents", Path, "FILE", "Initial noise from a .npy file, instead of a seed"),
    Option("changes", Path, "FILE", "Further prompts of a causal model's video: lines of a chunk's number and a text"),
    Option("memory", str, "keep|renew", "What a change of prompt does to what is kept of finished chunks", "keep"),
    Option("stream", bool, "", "Write a video to standard output while it is made, in fragments"),
    Option("keep_partial", bool, "", "Let a video grow as NAME.partial.mp4, and stay if it ends early"),
    Option("threads", int, "N", "CPU threads, 0 for every core", "the recipe's", task=None),
    Option("device_budget", str, "BYTES", "Memory for engines and values, such as 6GiB", "the recipe's", task=None),
    Option(
        "workers", str, "KIND", "What several devices are: threads, processes, or ray:HOST:PORT", "threads", task=None
    ),
    Option("worker_timeout", float, "SECONDS", "How long a device may take for one segment", "600", task=None),
    Option("trace", Path, "FILE.json", "Write what the run did, and when, as a trace that Perfetto shows", task=None),
)


class RunLimits(TypedDict, total=False):
    """Of every task's options, those that say how graphs are executed: what they mean is said in `OPTIONS`."""

    threads: int | None
    device_budget: str | None
    workers: str | None
    worker_timeout: float | None


EXCLUSIVE = frozenset({"seed", "latents"})
"""Of these at most one is given: the other has no effect."""

OUTPUT_HELP = (
    "The file to write, for a video .mp4, .png (one frame) or .npz, for a graph .npz; - is standard output; "
    "or the folder for the videos of --prompts."
)


def taken_limits(options: dict[str, Any]) -> RunLimits:
    """Those that say how graphs are executed, taken out of a run's options."""
    return cast(RunLimits, {name: options.pop(name) for name in RunLimits.__annotations__ if name in options})


def options_of(task: str) -> tuple[Option, ...]:
    """Those that a task alone knows."""
    return tuple(option for option in OPTIONS if option.task == task)
