"""wanc beside its peers: denoising steps in floats and in integers, and two whole videos. Writes into bench/results.

Takes two hours on two cores, a good part of it for NNCF's calibration. `python bench/peers.py step-256` runs one of
them alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
WORK = ROOT / "artifacts" / "bench"
CHECKPOINT = WORK / "wan-1.3b-shape"
WANC = (sys.executable, "-m", "wanc", "bench")
SHAPE = ("--e2e", "bench/wan-1.3b-shape.yaml", "--rounds", "2")

RUNS: Mapping[str, tuple[str, ...]] = {
    "step-256": ("--case", "latent=4x16x16", "--rounds", "9"),
    "step-2240": ("--case", "latent=5x32x56", "--rounds", "5"),
    "step-wide": ("--case", "width=2048,blocks=2,latent=5x24x32", "--rounds", "5"),
    "int8-256": ("--case", "latent=4x16x16", "--only", "int8", "--rounds", "9"),
    "int8-2240": ("--case", "latent=5x32x56", "--only", "int8", "--rounds", "5"),
    "video-tiny": ("--e2e", "recipes/tiny-wan.yaml", "--rounds", "5"),
    "video-shape": SHAPE,
    "video-tiny-int8": ("--e2e", "bench/tiny-wan-int8.yaml", "--rounds", "9"),
    "video-shape-int8": ("--e2e", "bench/wan-1.3b-shape-int8.yaml", "--rounds", "2"),
}


def main(names: list[str]) -> None:
    """Run the benchmarks of these names, or all."""
    if not CHECKPOINT.exists():
        make = (sys.executable, "-m", "scripts.make_checkpoint", "--config", "wan2.1-1.3b-shape", str(CHECKPOINT))
        subprocess.run(make, cwd=ROOT, check=True)
    RESULTS.mkdir(exist_ok=True)
    for name in names or RUNS:
        subprocess.run((*WANC, *RUNS[name], "-o", str(WORK)), cwd=ROOT, check=True)
    for pattern in ("step-*.*", "int8-*.*", "video-*.*"):
        for path in WORK.glob(pattern):
            shutil.copyfile(path, RESULTS / path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
