"""A bundle in INT8 comes out the same whatever libraries are told to do, and on however many cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wanc.artifacts.store import Store

from ..calibration.settings import settings
from .builder import Project

pytestmark = pytest.mark.usefixtures("fresh_stages")

ROOT = Path(__file__).parents[2]
GRAPHS = ("export", "fuse")
PROMPTS = "a red circle\na blue square\n"
CALIBRATE = "calibrate: {prompts: prompts.txt, clips: 2, timestep_bins: 2}"
TRAIN = "train: {rounds: 1, requests: 2, validation: 1}"
QUANTISED = {
    "int8": f"quantize: {{scheme: int8, {CALIBRATE}, keep: {{sensitivity: {{int8_share: 0.8}}}}}}\n",
    "int4, trained": f"quantize: {{scheme: int4-weight, method: qat, {CALIBRATE}, {TRAIN}}}\n",
}
BUILD = """
import json, os, sys
from pathlib import Path
import numpy  # a program that builds may have loaded it before, and with it what is set
cores = int(sys.argv[3])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
(loaded,) = load(sys.argv[1])
result = build(loaded, Path(sys.argv[2]), replace=True, progress=False)
print(json.dumps([result.id, [run.name for run in result.stages if run.cached]]))
"""


def built(project: Project, scheme: str, folder: Path, setting: dict[str, str], cores: int) -> str:
    """The id of its bundle, of which the graphs are there and nothing else."""
    own = project.copy(folder)
    store = Store.open(own.output / "store")
    for record in list(store.records()):
        if record.stage not in GRAPHS:
            (store.root / "actions" / f"{record.key}.json").unlink()
    (own.root / "prompts.txt").write_text(PROMPTS)
    own.recipe.write_text(own.recipe.read_text() + QUANTISED[scheme])
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(own.recipe), str(own.output), str(cores)],
        env={**os.environ, **setting, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    bundle, cached = json.loads(done.stdout)
    assert tuple(cached) == GRAPHS
    return bundle


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away here")
@pytest.mark.parametrize(
    "scheme", [pytest.param(scheme, marks=[pytest.mark.long] * ("trained" in scheme)) for scheme in QUANTISED]
)
def test_all_of_them_together(project: Project, scheme: str, tmp_path: Path) -> None:
    together = {name: value for setting in settings().values() for name, value in setting.items()}
    one = built(project, scheme, tmp_path / "plain", {}, cores=os.cpu_count() or 1)
    assert built(project, scheme, tmp_path / "set", together, cores=1) == one
