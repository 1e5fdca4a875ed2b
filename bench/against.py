"""This tree beside an earlier commit: the same step, video and first video of a process. Writes into bench/results.

`python bench/against.py 6d38747 [NAME …]`; names are those of `MEASURED`, all unless some are given. Each tree runs in
a process of its own, which waits while the other works. Takes about twenty minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from wanc.bench.contest import machine
from wanc.bench.report import WHAT
from wanc.runtime.whole_file import require_writable, write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAIRS = 40
MEASURED = {
    "step onnxruntime": "wanc onnxruntime",
    "step openvino": "wanc openvino",
    "video tiny-wan": "",
    "start tiny-wan": "",
}
"""What is measured, and the contender of `wanc bench` that a step is of."""

STEP = """
from pathlib import Path
from wanc.bench import ours
from wanc.bench.case import Case
case = Case.parse("width=1536,blocks=4,latent=5x32x56,threads=2")
folder = Path(FOLDER)
source = case.save(case.module(), folder)
made = ours.build(NAME, ours.export(case, source, folder / "exported"), source, folder / "built", case.threads)
inputs = {name: tensor.numpy() for name, tensor in case.inputs().items()}
work = lambda: made.step(inputs)
"""
VIDEO = """
from pathlib import Path
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.pipeline import Pipeline
(loaded,) = load(Path(RECIPE))
pipeline = Pipeline.open(build(loaded, Path(FOLDER), progress=False).bundle, threads=2)
work = lambda: pipeline.generate("A red circle moves to the left.", seed=7)
"""
START = """
import subprocess, sys
from pathlib import Path
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
(loaded,) = load(Path(RECIPE))
bundle = build(loaded, Path(FOLDER), progress=False).bundle
options = ["--prompt", "A red circle.", "--frames", "1", "--steps", "1", "-o", Path(FOLDER) / "out.mp4"]
work = lambda: subprocess.run([sys.executable, bundle / "run.py", *options], check=True, capture_output=True)
"""
BODIES = {"step": STEP, "video": VIDEO, "start": START}
LOOP = """
import sys, time
if __name__ == "__main__":
    exec(sys.argv[1])
    work(); print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        work()
        print(time.perf_counter() - started, flush=True)
"""


class Worker:
    """One tree's process, ready to do its work again and again."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout

    def wait(self) -> None:
        """Until it has built what it measures, and warmed up."""
        if self._stdout.readline() != "ready\n":
            raise SystemExit(f"a tree cannot be measured: its process ended with {self._process.wait()}")

    def seconds(self) -> float:
        """Of doing its work once."""
        print("go", file=self._stdin, flush=True)
        return float(self._stdout.readline())


@contextmanager
def started(tree: Path, name: str, folder: Path) -> Generator[Worker]:
    """A worker that measures `name` with the code of a tree; what it builds lies in `folder`, which is made."""
    folder.mkdir()
    (folder / "loop.py").write_text(LOOP)
    values = {"FOLDER": str(folder), "NAME": MEASURED[name], "RECIPE": str(tree / "recipes" / "tiny-wan.yaml")}
    body = "".join(f"{key} = {value!r}\n" for key, value in values.items())
    body += BODIES[name.partition(" ")[0]]
    process = subprocess.Popen(
        [sys.executable, folder / "loop.py", body],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.wait()


def measure(name: str, before: Path, scratch: Path) -> dict[str, Any]:
    """Pairs of seconds, the order within a pair alternating, and the ratio of this tree to the other."""
    seconds: dict[str, list[float]] = {"now": [], "before": []}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for key, tree in (("now", ROOT), ("before", before)):
            # One after the other: building both at once would only take longer.
            workers[key] = stack.enter_context(started(tree, name, scratch / f"{name.replace(' ', '-')}-{key}"))
            workers[key].wait()
        for number in range(PAIRS):
            for key in sorted(workers, reverse=bool(number % 2)):
                seconds[key].append(workers[key].seconds())
    ratios = [now / before for now, before in zip(seconds["now"], seconds["before"], strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    print(f"{name}: {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)
    return {
        "pairs": PAIRS,
        "ratio": round(middle, 4),
        "quartiles": [round(low, 4), round(high, 4)],
        **{
            key: {"median": round(median(found), 4), "seconds": [round(s, 4) for s in found]}
            for key, found in seconds.items()
        },
    }


def main(commit: str, names: list[str]) -> None:
    """Measure, and write what was measured."""
    result = RESULTS / f"against-{commit}.json"
    require_writable(result, WHAT)
    report: dict[str, Any] = json.loads(result.read_bytes())["measured"] if result.exists() else {}
    with TemporaryDirectory() as name:
        before = Path(name) / "before"
        subprocess.run(["git", "clone", "--quiet", ROOT, before], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=before, check=True)
        for wanted in names or MEASURED:
            report[wanted] = measure(wanted, before, Path(name))
            document = {"before": commit, "machine": machine(("onnxruntime", "openvino", "numpy")), "measured": report}
            write_whole(result, f"{json.dumps(document, indent=1)}\n".encode(), WHAT)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
