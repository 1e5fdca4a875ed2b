"""What has to be exact: of each check a bundle that keeps to it, and a fault that it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanc.report import invariants
from wanc.report.document import Invariant
from wanc.report.free_run import FreeRun, free_run
from wanc.report.invariants import OF_ONE, BundleVideos, partitioned
from wanc.report.reference import ReferenceRecord
from wanc.report.subject import Subject
from wanc.report.unfinished import NOTHING_KEPT
from wanc.runtime.pipeline import Pipeline

Array = np.ndarray[Any, Any]
Decode = Callable[..., Iterator[Array]]


@pytest.fixture(scope="module")
def subject(budgeted: Path) -> Subject:
    return Subject.open(budgeted, "within", threads=1)


@pytest.fixture(scope="module")
def run(subject: Subject, record: ReferenceRecord) -> FreeRun:
    clip = record.clips[0]
    return free_run(subject.pipeline, clip)


def checked(name: str, subject: Subject, record: ReferenceRecord, run: FreeRun) -> Invariant:
    check = next(check for check in OF_ONE if check.name == name)
    return check.checked(subject, record.clips[0], run, NOTHING_KEPT)


@pytest.mark.parametrize("name", [check.name for check in OF_ONE])
def test_what_holds(name: str, subject: Subject, record: ReferenceRecord, run: FreeRun) -> None:
    found = checked(name, subject, record, run)
    assert found.holds, found.detail


def test_no_budget_was_planned(tiny_bundle: Path, record: ReferenceRecord, run: FreeRun) -> None:
    found = checked("every budget", Subject.open(tiny_bundle, "whole", threads=1), record, run)
    assert (found.holds, found.detail) == (None, "it was not planned within a budget of memory")


def test_another_value_in_less_memory(
    subject: Subject, record: ReferenceRecord, run: FreeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged(Pipeline):
        """An engine that comes and goes loses one value."""

        def decode(self, latents: Array, *arguments: Any, **options: Any) -> Iterator[Array]:
            for chunk in super().decode(latents, *arguments, **options):
                changed = chunk.copy()
                changed[0, 0, 0, 0] ^= 1
                yield changed

    monkeypatch.setattr(invariants, "Pipeline", Damaged)
    assert checked("every budget", subject, record, run).holds is False


def test_a_frame_that_what_comes_behind_it_changes(
    subject: Subject, record: ReferenceRecord, run: FreeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode: Decode = subject.pipeline.decode

    def looks_ahead(pieces: Iterable[Array], *arguments: Any) -> Iterator[Array]:
        latents = np.concatenate(list(pieces), axis=2)
        yield from decode([latents + np.float32(0.01) * latents.mean(axis=2, keepdims=True)], *arguments)

    monkeypatch.setattr(subject.pipeline, "decode", looks_ahead)
    assert checked("streamed", subject, record, run).holds is False


def test_a_run_that_depends_on_the_one_before(
    subject: Subject, record: ReferenceRecord, run: FreeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = subject.pipeline.sample

    def drifts(*arguments: Any, **options: Any) -> Array:
        return sample(*arguments, **options) * np.float32(1 + 1e-6)

    monkeypatch.setattr(subject.pipeline, "sample", drifts)
    assert checked("same again", subject, record, run).holds is False


def test_one_of_many_segments_beside_the_whole(
    subject: Subject, tiny_bundle: Path, record: ReferenceRecord, run: FreeRun
) -> None:
    whole = Subject.open(tiny_bundle, "whole", threads=1)
    clip = record.clips[0]
    theirs = free_run(whole.pipeline, clip)
    cut, one = BundleVideos(subject, [run]), BundleVideos(whole, [theirs])
    found = partitioned(cut, [cut, one])
    assert found is not None and found.holds, found and found.detail
    assert found.detail == "every clip is the same to the bit as of whole, which is in one piece"
    assert partitioned(one, [cut, one]) is None


def test_segments_that_compute_something_else(subject: Subject, tiny_bundle: Path, run: FreeRun) -> None:
    whole = Subject.open(tiny_bundle, "whole", threads=1)
    frames = run.frames.copy()
    frames[-1, -1, -1, -1] ^= 1
    found = partitioned(BundleVideos(subject, [FreeRun(run.latents, frames)]), [BundleVideos(whole, [run])])
    assert found is not None and found.holds is False


def test_halves_are_not_held_to_the_bit(subject: Subject, tiny_bundle: Path, run: FreeRun) -> None:
    """Inside a segment bfloat16 may go on from kernel to kernel; between them is float32."""
    whole = Subject.open(tiny_bundle, "whole", threads=1)
    cut = replace(subject, facts=subject.facts.model_copy(update={"compute": "bf16"}))
    found = partitioned(BundleVideos(cut, [FreeRun(run.latents * 2, run.frames)]), [BundleVideos(whole, [run])])
    assert found is not None and found.holds is None and "bf16" in found.detail


@pytest.mark.parametrize("setting", ["settings", "weights"])
def test_the_whole_is_built_of_the_same(setting: str, subject: Subject, tiny_bundle: Path, run: FreeRun) -> None:
    other = replace(Subject.open(tiny_bundle, "whole", threads=1), **{setting: {"scheme": "another"}})
    found = partitioned(BundleVideos(subject, [run]), [BundleVideos(other, [run])])
    assert found is not None
    assert (found.holds, found.detail) == (None, "the report has no bundle that is this one in one piece")
