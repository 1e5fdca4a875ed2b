"""A report that was stopped: the next one goes on from there, and says what it would have said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanc.artifacts.store import Store
from wanc.report import quality
from wanc.report.document import ReportDocument, text
from wanc.report.free_run import FreeRun
from wanc.report.make import ReportRequest, make_report
from wanc.report.reference import ReferenceClip, ReferenceRecord
from wanc.report.speed import machine
from wanc.report.unfinished import Measurements, Unfinished
from wanc.runtime.pipeline import Pipeline

from ..conftest import Wanc

CODE, BUNDLE, REFERENCE = "sha256:code", "sha256:bundle", "key"
Array = np.ndarray[Any, Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def of(unfinished: Unfinished, bundle: str = BUNDLE, threads: int = 1) -> Measurements:
    return unfinished.of(bundle, REFERENCE, machine(threads))


class Measured:
    """What is measured, and how often it was."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Mapping[str, Array]:
        self.times += 1
        return {"error": np.array(0.25), "frames": np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)}

    def within(self, kept: Measurements) -> None:
        found = kept.arrays("one", self)
        assert float(found["error"]) == 0.25 and np.array_equal(found["frames"], self()["frames"])
        self.times -= 1


def test_what_was_measured_is_not_measured_again(store: Store) -> None:
    measured = Measured()
    for _ in range(2):
        with Unfinished.opened(store, CODE) as unfinished:
            measured.within(of(unfinished))
    assert measured.times == 1


def test_nothing_is_left_of_a_report_that_was_written(store: Store) -> None:
    measured = Measured()
    for _ in range(2):
        with Unfinished.opened(store, CODE) as unfinished:
            measured.within(of(unfinished))
            unfinished.finish()
        assert not list(store.root.glob("scratch/*"))
    assert measured.times == 2


@pytest.mark.parametrize("place", [0, 10, -1])
def test_what_was_damaged_is_measured_again(store: Store, place: int) -> None:
    measured = Measured()
    with Unfinished.opened(store, CODE) as unfinished:
        measured.within(of(unfinished))
    (path,) = store.root.glob("scratch/*/*.safetensors")
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with Unfinished.opened(store, CODE) as unfinished:
        measured.within(of(unfinished))
    assert measured.times == 2


@pytest.mark.parametrize("other", [{"bundle": "sha256:other"}, {"threads": 2}])
def test_another_bundle_or_machine_has_measured_something_else(store: Store, other: dict[str, Any]) -> None:
    measured = Measured()
    with Unfinished.opened(store, CODE) as unfinished:
        measured.within(of(unfinished))
        measured.within(of(unfinished, **other))
    assert measured.times == 2


def test_other_code_has_measured_something_else(store: Store) -> None:
    measured = Measured()
    for code in (CODE, "sha256:other"):
        with Unfinished.opened(store, code) as unfinished:
            measured.within(of(unfinished))
    assert measured.times == 2


def test_two_reports_at_once(store: Store) -> None:
    """The second neither waits for the first nor disturbs it."""
    measured = Measured()
    with Unfinished.opened(store, CODE) as first, Unfinished.opened(store, CODE) as second:
        measured.within(of(first))
        assert of(second).folder is None
        measured.within(of(second))
        second.finish()
        assert list(store.root.glob("scratch/*/*.safetensors"))
    assert measured.times == 2


class Runs:
    """Makes videos, and knows which; the one of this number is not made."""

    def __init__(self, patch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.seen: list[str] = []
        self._make: Callable[..., FreeRun] = quality.free_run
        self._stop_at = stop_at
        patch.setattr(quality, "free_run", self)

    def __call__(self, pipeline: Pipeline, clip: ReferenceClip) -> FreeRun:
        self.seen.append(clip.prompt)
        if len(self.seen) == self._stop_at:
            raise KeyboardInterrupt
        return self._make(pipeline, clip)


def made(bundle: Path, record: ReferenceRecord, unfinished: Unfinished | None = None) -> ReportDocument:
    request = ReportRequest("tiny-wan", [bundle], [], None, record, "tiny-wan", {}, 0, unfinished=unfinished, threads=1)
    return make_report(request, progress=False).report


@pytest.mark.slow
def test_a_report_that_goes_on_says_the_same(
    tiny_bundle: Path, record: ReferenceRecord, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(tiny_bundle, record)
    with monkeypatch.context() as patch, Unfinished.opened(store, CODE) as unfinished:
        Runs(patch, stop_at=2)
        with pytest.raises(KeyboardInterrupt):
            made(tiny_bundle, record, unfinished)
    runs = Runs(monkeypatch)
    with Unfinished.opened(store, CODE) as unfinished:
        again = made(tiny_bundle, record, unfinished)
    assert runs.seen == [record.clips[1].prompt]
    assert text(again) == text(whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_report_that_was_killed(
    wanc: Wanc, tiny_bundle: Path, evaluated: Path, record: ReferenceRecord, tmp_path: Path
) -> None:
    """Behind the first clip's video; what was there then is used, and nothing is left of it."""
    del record
    root, out = tmp_path / "store", tmp_path / "out"
    # Of its own: other tests may report on the same bundle just now, and only one of them keeps what it measures.
    shutil.copytree(tiny_bundle.parents[1] / "store", root, ignore=shutil.ignore_patterns("tmp", "scratch"))
    arguments = ["report", tiny_bundle, "--recipe", evaluated, "--store", root, "--quick", "-o", out]
    mine = set[Path]()
    command = [sys.executable, "-m", "wanc", *map(str, arguments)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while not mine and process.poll() is None:
            mine = {path.parent for path in root.glob("scratch/*/free-0000.safetensors")}
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    (folder,) = mine
    assert not (out / "index.html").exists()
    done = wanc(*arguments)
    assert done.code == 0, done.err
    assert (out / "index.html").is_file() and not folder.exists()
