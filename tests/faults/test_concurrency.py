"""Many builds, cleanings and verifications of one output folder at once."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from wanc.artifacts.fsck import check
from wanc.artifacts.gc import clean
from wanc.runtime.verify import verify

from .project import STAGES, Project, assert_resumes, assert_sound, stages_run

EIGHT = 8


@pytest.mark.slow
def test_eight_builds_at_once_compute_each_stage_once(block: Project, folder: Path) -> None:
    output = folder / "output"
    with ExitStack() as stack:
        builds = [stack.enter_context(block.start(output)) for _ in range(EIGHT)]
        results = [build.communicate(timeout=300) for build in builds]
    assert [build.returncode for build in builds] == [0] * EIGHT, results
    documents = [json.loads(out) for out, _ in results]
    assert {document["id"] for document in documents} == {block.id}
    ran = Counter(stage["name"] for document in documents for stage in document["stages"] if not stage["cached"])
    assert {stage: ran[stage] for stage in STAGES} == dict.fromkeys(STAGES, 1)
    lines = [line for _, err in results for line in err.splitlines()]
    assert [line for line in lines if not line.startswith("waiting for ")] == []
    assert_sound(block, output)
    assert_resumes(block, output, STAGES)


def make_old(store: Path) -> None:
    """Make everything look unused for ten days: only being needed keeps it from a cleaning."""
    then = time.time() - 10 * 86400
    for path in store.rglob("*"):
        try:
            os.utime(path, (then, then), follow_symlinks=False)
        except FileNotFoundError:
            continue  # a build beside this works in its private directories


@pytest.mark.slow
def test_builds_beside_cleanings_lose_nothing(block: Project, output: Path) -> None:
    """Each build computes everything anew, and no ref names it before its end; what the one before made is garbage."""
    store = output / "store"
    done = threading.Event()
    removed: Counter[str] = Counter()
    faults: list[BaseException] = []

    def clean_up() -> None:
        try:
            while not done.is_set():
                make_old(store)
                for group in clean(store, days=1, on_wait=lambda _: None).groups:
                    removed[group.kind] += group.count
        except BaseException as error:
            faults.append(error)

    cleaner = threading.Thread(target=clean_up)
    cleaner.start()
    try:
        for rows in (3, 4, 5):
            for expected in ([*STAGES], []):
                finished = block.run(output, overrides=[f"model.example.rows={rows}"])
                assert finished.returncode == 0, finished.stderr
                assert stages_run(finished) == expected, "a cleaning took what a build needs"
            assert verify(output / "bundles/block").id == json.loads(finished.stdout)["id"]
    finally:
        done.set()
        cleaner.join(60)
    assert faults == []
    assert removed["records"] >= 2 * len(STAGES), "the cleanings had nothing to do"
    assert removed["blobs"] > 0
    checkup = check(store)
    assert (checkup.findings, checkup.outdated) == ((), 0)
    assert_resumes(block, output, [])


@pytest.mark.slow
def test_a_verification_beside_builds_sees_one_bundle_or_the_other(block: Project, output: Path) -> None:
    """Each build puts another bundle in the place of the one before, which goes away while it is being read."""
    bundle = output / "bundles/block"
    done = threading.Event()
    seen: list[str | None] = []
    failures: list[object] = []

    def keep_verifying() -> None:
        while not done.is_set():
            report = verify(bundle)
            seen.append(report.id)
            failures.extend(report.failures)

    reader = threading.Thread(target=keep_verifying)
    reader.start()
    made = {block.id}
    try:
        for number in range(5):
            finished = block.run(output, overrides=[f"version=1.0.{number}"])
            assert finished.returncode == 0, finished.stderr
            made.add(json.loads(finished.stdout)["id"])
    finally:
        done.set()
        reader.join(60)
    assert failures == []
    assert len(made) == 6
    assert set(seen) <= made
    assert len(set(seen)) >= 5, "the verification did not run beside the builds"
