"""One bad input at a time: a right recipe with its model, broken in one place, and all that `wanc` says of it."""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wanc.artifacts import fsck
from wanc.artifacts.store import Store

from .prober import probers, run_in_fork

PATIENCE_SECONDS = 120
ROOT = Path(__file__).resolve().parents[2]
RECIPE = """\
wanc: 1
name: tiny
model:
  source: model
shapes:
  - {name: wide, height: 32, width: 48, frames: 5}
sampling:
  steps: 4
  shift: 5.0
  guidance: {high: 4.0, low: 3.0}
"""
QUANTISED = f"""{RECIPE}quantize:
  scheme: int8
  calibrate: {{prompts: prompts.txt}}
"""

Break = Callable[[], object]


def nothing() -> None:
    """A case whose fault lies in its arguments."""


@dataclass(frozen=True)
class Case:
    """A bad input: what to run, what is broken before, and the whole answer.

    It is run in a folder of its own, `DIR` in the answer, which holds `recipe.yaml` and the checkpoint `model`.
    """

    arguments: str
    code: int
    err: str
    broken: Break = nothing
    out: str = ""
    limits: Mapping[int, int] | None = None
    """Limits of the process, by the number of `resource.RLIMIT_*`."""


def run(arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`wanc ARGUMENTS` in `folder`, in a fork of a process that has everything imported."""
    return prober().submit(_run_in, arguments, folder).result(PATIENCE_SECONDS)


def _run_in(arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("WANC_", "COLUMNS"))]:
        del os.environ[name]
    return run_in_fork(arguments.split())


@functools.cache
def prober() -> ProcessPoolExecutor:
    """One for as long as the tests run."""
    return probers(1, also=("torch.onnx", "wanc.compiler.export.torch_module"))


def run_limited(arguments: str, folder: Path, limits: Mapping[int, int]) -> subprocess.CompletedProcess[str]:
    """`python -m wanc ARGUMENTS` in `folder`, in a process that may use no more than these limits."""

    def limit() -> None:
        for kind, value in limits.items():
            resource.setrlimit(kind, (value, value))

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANC_", "COLUMNS"))}
    return subprocess.run(
        [sys.executable, "-m", "wanc", *arguments.split()],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        preexec_fn=limit,
        check=False,
    )


Answer = tuple[int, str, str]


def answer(case: Case, folder: Path) -> Answer:
    """Exit code, stdout and stderr, without what differs from run to run. Nothing half-written may be left."""
    case.broken()
    before = _listing(folder / "artifacts")
    finished = run_limited(case.arguments, folder, case.limits) if case.limits else run(case.arguments, folder)
    assert_nothing_half_written(folder / "artifacts", before)
    return finished.returncode, finished.stdout, without_chance(finished.stderr, folder)


def without_chance(text: str, folder: Path) -> str:
    """A message without what differs from run to run: where it was, names of temporary folders, times and sizes."""
    text = text.replace(str(folder), "DIR")
    text = re.sub(r"(?<=store/tmp/)\w{8}(?=/)", "RANDOM", text)
    text = re.sub(r"\d+\.\d s, peak \d+ MiB", "S s, peak N MiB", text)
    return re.sub(r"\d+ bytes (?=needed|are free|free)", "N bytes ", text)


def assert_nothing_half_written(output: Path, before: list[str]) -> None:
    """What was there is still there, no bundle came to it, and in the store everything is what it says."""
    after = _listing(output)
    assert [path for path in after if path.startswith("bundles/")] == [
        path for path in before if path.startswith("bundles/")
    ]
    if any(path.startswith("store/") for path in before):
        assert after == before, "somebody else's store"
    elif "store" in after:
        assert fsck.check(Store.open(output / "store").root).ok
        assert not list((output / "store/tmp").iterdir())


def _listing(output: Path) -> list[str]:
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*")) if output.is_dir() else []


# Ways to break something. Paths start from the working directory, as in the recipe.


def edit(old: str, new: str, path: str = "recipe.yaml") -> Break:
    """Replace a text that stands in the file once."""

    def broken() -> None:
        text = Path(path).read_text("utf-8")
        assert text.count(old) == 1
        Path(path).write_text(text.replace(old, new), "utf-8")

    return broken


def write(path: str, content: str | bytes) -> Break:
    """Put a file in the place of whatever is there."""
    return partial(_write, Path(path), content.encode() if isinstance(content, str) else content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def both(*steps: Break) -> Break:
    """Several changes, one after the other."""

    def broken() -> None:
        for step in steps:
            step()

    return broken


def remove(path: str) -> Break:
    return Path(path).unlink


def cut(path: str, by: int) -> Break:
    """Take bytes off the end of a file."""
    return lambda: os.truncate(path, os.stat(path).st_size - by)


def rewrite_json(path: str, change: Callable[[dict[str, Any]], object]) -> Break:
    def broken() -> None:
        document = json.loads(Path(path).read_text("utf-8"))
        change(document)
        Path(path).write_text(json.dumps(document), "utf-8")

    return broken


def set_json(path: str, **values: Any) -> Break:
    """Set keys at the top of a JSON file."""
    return rewrite_json(path, lambda document: document.update(values))


def safetensors(shape: list[int], length: int) -> bytes:
    """A file that declares one float32 tensor `x` of `shape`, and holds `length` bytes of it."""
    count = 4
    for size in shape:
        count *= size
    header = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, count]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * length
