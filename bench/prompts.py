"""Twenty prompts in one process of a bundle's run.py, beside twenty processes with one each. Writes into bench/results.

`python bench/prompts.py [BUNDLE]`; the bundle is tiny-wan's, built if need be, unless one is given. Takes two minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import wanc
from wanc.bench.contest import machine
from wanc.bench.report import WHAT
from wanc.runtime.whole_file import require_writable, write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "prompts-tiny-wan.json"
COUNT, ROUNDS = 20, 3
PROMPTS = [
    f"A {colour} {shape} moves {way}."
    for colour in ("red", "green", "blue", "yellow", "white")
    for shape, way in (("circle", "left"), ("square", "right"), ("triangle", "up"), ("circle", "down"))
]


def seconds(*arguments: object) -> float:
    """How long a command takes, from start to exit."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(bundle: Path) -> None:
    """Measure both ways in turn, and write what was measured."""
    assert len(set(PROMPTS)) == COUNT
    require_writable(RESULT, WHAT)
    rounds: list[dict[str, float]] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "prompts.txt").write_text("\n".join(PROMPTS), "utf-8")
        for number in range(ROUNDS + 1):
            run = (bundle / "run.py", "--threads", "2")
            together = seconds(*run, "--prompts", folder / "prompts.txt", "-o", folder / "videos")
            alone = sum(seconds(*run, "--prompt", prompt, "-o", folder / "out.mp4") for prompt in PROMPTS)
            print(f"one process {together:.2f} s, {COUNT} processes {alone:.2f} s", file=sys.stderr)
            if number:  # the first warms up
                rounds.append({"one_process": together, "processes": alone, "ratio": together / alone})
    report = {
        "bundle": bundle.name,
        "prompts": COUNT,
        "machine": machine(("onnxruntime", "numpy", "av", "tokenizers")),
        "rounds": rounds,
        "ratio": median(entry["ratio"] for entry in rounds),
    }
    write_whole(RESULT, f"{json.dumps(report, indent=1)}\n".encode(), WHAT)
    print(f"{report['ratio']:.2f}")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:2]]
    main(given[0] if given else wanc.build(ROOT / "recipes" / "tiny-wan.yaml", output=ROOT / "artifacts").bundle)
