"""A bundle in INT8 comes out the same whatever libraries are told to do, and on however many cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..calibration.settings import settings
from .builder import Project

pytestmark = pytest.mark.usefixtures("fresh_stages")

ROOT = Path(__file__).parents[2]
PROMPTS = "a red circle\na blue square\n"
QUANTISED = """\
quantize:
  scheme: int8
  calibrate: {prompts: prompts.txt, clips: 2, timestep_bins: 2}
  keep: {patterns: [proj_out], sensitivity: {int8_share: 0.8}}
"""
BUILD = """
import json, os, sys
from pathlib import Path
import numpy  # a program that builds may have loaded it before, and with it what is set
cores = int(sys.argv[3])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
(loaded,) = load(sys.argv[1])
result = build(loaded, Path(sys.argv[2]), progress=False)
print(json.dumps([result.id, [run.name for run in result.stages if run.cached]]))
"""


def built(project: Project, folder: Path, setting: dict[str, str], cores: int) -> str:
    """The id of its bundle, of which the graphs are there and nothing else."""
    own = project.copy(folder)
    (own.root / "prompts.txt").write_text(PROMPTS)
    own.recipe.write_text(own.recipe.read_text() + QUANTISED)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(own.recipe), str(own.output), str(cores)],
        env={**os.environ, **setting, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bundle, cached = json.loads(done.stdout)
    assert {*cached} <= {"export", "fuse"}
    return bundle


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
def test_all_of_them_together(project: Project, tmp_path: Path) -> None:
    together = {name: value for setting in settings().values() for name, value in setting.items()}
    one = built(project, tmp_path / "plain", {}, cores=os.cpu_count() or 1)
    assert built(project, tmp_path / "set", together, cores=1) == one
