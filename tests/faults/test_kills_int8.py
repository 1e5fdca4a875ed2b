"""`kill -9` ten times inside one INT8 build: it comes to the same bundle, and nothing that was finished is done again.

Between two kills a clip that was kept is damaged: it is not used.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from wanc.artifacts.records import ActionRecord
from wanc.compiler.pipeline import BuildResult, build
from wanc.compiler.quantize.calibrate import clip_file

from .project import Project, assert_resumes, assert_sound, records_of

CLIPS = 6
RECIPE = f"""\
extends: {{tiny}}
name: tiny-wan-int8-killed
quantize: {{{{calibrate: {{{{clips: {CLIPS}, timestep_bins: 2}}}}}}}}
sampling: {{{{steps: 6}}}}
"""
# Of each of these, how often it is struck; the first is the high-noise expert's, the second the low-noise one's.
STRIKES = {
    ("calibrate", 0): 3, ("quantize", 0): 1, ("calibrate", 1): 2, ("quantize", 1): 1, ("compile", 1): 1,
    ("engine", 0): 2,
}  # fmt: skip
PATIENCE_SECONDS = 300
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Undisturbed:
    """The build that is not killed: what all others have to come to. `seconds` are those of its stages, by key."""

    project: Project
    output: Path
    result: BuildResult
    seconds: dict[str, float]

    def key_of(self, stage: str, number: int) -> str:
        return [run.key for run in self.result.stages if run.name == stage and run.key][number]

    def copied(self, output: Path) -> None:
        """Copy what a build of the float model leaves, so that quantising is what there is to do."""
        names = ("export", "fuse", "texts")
        keys = {run.key for run in self.result.stages if run.name in names}
        (output / "store/actions").mkdir(parents=True)
        (output / "store/VERSION").write_bytes((self.output / "store/VERSION").read_bytes())
        for record in records_of(self.output):
            if record.key in keys:
                name = f"store/actions/{record.key}.json"
                shutil.copyfile(self.output / name, output / name)
                for blob in record.files.values():
                    place = f"store/blobs/sha256/{blob.hex[:2]}/{blob.hex}"
                    (output / place).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(self.output / place, output / place)


@pytest.fixture(scope="module")
def undisturbed(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Beside `tiny_bundle`, whose graphs it takes from the store."""
    recipe = tmp_path_factory.mktemp("int8") / "recipe.yaml"
    recipe.write_text(RECIPE.format(tiny=ROOT / "recipes/tiny-wan-int8.yaml"))
    output = tiny_bundle.parents[1]
    result = build(Project(recipe, "").load(), output, progress=False)
    keys = {run.key for run in result.stages}
    records = [record for record in records_of(output) if record.key in keys]
    seconds = {record.key: float(str(record.meta["seconds"])) for record in records}
    stages = tuple({record.stage for record in records})
    return Undisturbed(Project(recipe, result.id, stages=stages), output, result, seconds)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that a dead process still held would be an error at once."""
    monkeypatch.setenv("WANC_LOCK_TIMEOUT", "0")


def strike(project: Project, output: Path, key: str, seconds: float, *, behind_a_clip: bool) -> bool:
    """Kill a build so long after it has begun with the action `key`, or has kept a clip of it.

    Returns whether it had not ended by then.
    """
    with project.start(output) as process:
        try:
            _wait_for(process, lambda: _signed(output / "store/locks" / key, process))
            if behind_a_clip:
                _wait_for(process, (output / "store/scratch" / key / clip_file(0)).exists)
            else:
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=seconds)
            return process.poll() is None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _signed(lock: Path, process: subprocess.Popen[str]) -> bool:
    with suppress(FileNotFoundError):
        return lock.read_text().startswith(f"process {process.pid} on ")
    return False


def _wait_for(process: subprocess.Popen[str], is_reached: Callable[[], bool]) -> None:
    """Return when the process has come to something, or has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and not is_reached():
        assert time.monotonic() < deadline, "the build does not come that far"
        time.sleep(POLL_SECONDS)


def records_by_key(output: Path) -> dict[str, ActionRecord]:
    return {record.key: record for record in records_of(output)}


def clips(output: Path) -> dict[Path, tuple[int, int]]:
    """What calibration has kept so far: which file each clip is, and from when."""
    found = (output / "store/scratch").glob("*/clip-*.safetensors")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "seed",
    [pytest.param(0, marks=pytest.mark.slow), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 7))],
)
def test_ten_kills_inside_a_build(undisturbed: Undisturbed, tmp_path: Path, seed: int) -> None:
    chance, project, output = random.Random(seed), undisturbed.project, tmp_path / "output"
    undisturbed.copied(output)
    done, kept, damaged, struck = records_by_key(output), clips(output), set[Path](), 0
    for (stage, number), times in STRIKES.items():
        key = undisturbed.key_of(stage, number)
        for _ in range(times):
            if key in done:
                break
            seconds = chance.uniform(0.1, 0.9) * undisturbed.seconds[key]
            struck += strike(project, output, key, seconds, behind_a_clip=not damaged and not struck)
            now = records_by_key(output)
            assert {key: now.get(key) for key in done} == done, "what was finished was done again, or is gone"
            assert_sound(project, output)
            found = clips(output)
            for path, which in kept.items():
                if path.parent.exists() and path not in damaged:
                    assert found.get(path) == which, "a clip that was kept was sampled again"
            done, kept = now, found
            if kept and not damaged:
                damaged = {chance.choice(sorted(kept))}
                for path in damaged:
                    damage(path)
    assert struck >= 8, "too few kills came in time"
    assert damaged, "no kill left a clip"
    result = assert_resumes(project, output, {record.stage for record in done.values()})
    ran: list[Any] = [run.key for run in result.stages if not run.cached and run.key]
    assert not set(ran) & set(done), "and in the end no action is run that was finished"
