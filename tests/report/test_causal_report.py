"""Reports of causal bundles: held against diffusers' own model over the whole sequence, chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanc.compiler.make_reference import make_reference
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.report.chunks import other_chunks, pictures_of, spans
from wanc.report.document import ReportDocument
from wanc.report.make import ReportRequest, make_report
from wanc.report.reference import ReferenceRecord
from wanc.report.tables import chunks as chunk_table
from wanc.runtime import kvcache
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.noise import chunk_stream, initial_noise

from ..conftest import Wanc
from . import planted
from .example import example

PROMPTS = ("A red circle moves left.", "A blue square moves down.")
FACTS = CacheFacts(1, KeyValueWindow(1, 2), "fp32")
"""Of the shared build: of five chunks the last does not see the second any more."""
CHUNKS = 5
GATES = {"velocity_error": "<= 10 floors", "chunk_velocity_error": "<= 10 floors", "chunk_psnr_db": ">= 70"}
"""A float bundle sums in another order than the reference: less than four times what one place of one value does."""


@pytest.fixture(scope="session")
def evaluated_causal(causal_recipe: Path, together: Path) -> Path:
    path = together / "evaluated-causal.yaml"
    (together / "causal.txt").write_text("\n".join(PROMPTS) + "\n", "utf-8")
    path.write_text(f"extends: {causal_recipe}\nevaluate: {{prompts: causal.txt, pairs: 4}}\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def causal_record(evaluated_causal: Path, causal_bundle: Path) -> ReferenceRecord:
    (loaded,) = load(evaluated_causal)
    return ReferenceRecord.read(*make_reference(loaded, causal_bundle.parents[1] / "store", progress=False))


def reported(
    new: Path,
    record: ReferenceRecord,
    baseline: Path | None = None,
    others: tuple[Path, ...] = (),
    gates: Mapping[str, str] = GATES,
    pairs: int = 0,
) -> ReportDocument:
    request = ReportRequest("causal", [new], others, baseline, record, "tiny-wan", gates, pairs, threads=1)
    return make_report(request, progress=False).report


def test_chunks_lie_side_by_side_in_time() -> None:
    pairs = CacheFacts(2, KeyValueWindow(0, 2), "fp32")
    assert spans(pairs, 5) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert spans(None, 5) == [slice(0, 5)]

    class Clip:
        latents, frames = np.empty((3, 1, 16, 5, 1, 1)), np.empty(17)

    shown: list[slice] = [pictures_of(span, Clip()) for span in spans(pairs, 5)]  # pyright: ignore[reportArgumentType]
    assert shown == [slice(0, 5), slice(5, 13), slice(13, 17)]


def test_what_cannot_be_held_against_each_other() -> None:
    assert other_chunks(replace(FACTS, precision="int4"), FACTS) is None and other_chunks(None, None) is None
    assert other_chunks(None, FACTS) == "it makes all frames at once, and the reference a video chunk by chunk"
    assert other_chunks(FACTS, None) == "it makes a video chunk by chunk, and the reference all frames at once"
    assert other_chunks(replace(FACTS, chunk=3, window=KeyValueWindow(0, 2)), FACTS) == (
        "it makes chunks of 3 latent frames, behind the last 2 chunks, and the reference chunks of 1 latent frames, "
        "behind the last 2 chunks, and the first 1"
    )


def test_a_comment_has_few_of_many_chunks() -> None:
    table = chunk_table(example(), 3)
    assert [row[0].text for row in table.rows] == ["0", "2", "4"]
    assert table.note.endswith(" 3 of 5 chunks, evenly spaced.")


@pytest.mark.slow
def test_the_reference_begins_with_the_runtimes_noise(causal_record: ReferenceRecord) -> None:
    clip = causal_record.clips[0]
    assert causal_record.cache == FACTS and clip.latents.shape == (3, 1, 16, CHUNKS, 8, 8)
    for chunk in range(CHUNKS):
        wanted = initial_noise((1, 16, 1, 8, 8), clip.seed, stream=chunk_stream(chunk))
        np.testing.assert_array_equal(clip.latents[0][:, :, chunk : chunk + 1], wanted)


@pytest.mark.slow
def test_a_float_bundle_passes(causal_bundle: Path, causal_record: ReferenceRecord) -> None:
    report = reported(causal_bundle, causal_record, pairs=4)
    assert report.verdict.outcome == "pass", report.verdict.summary
    (entry,) = report.bundles
    assert entry.quality is not None and entry.speed is not None and report.reference is not None
    assert [one.chunk for one in entry.quality.chunks] == list(range(CHUNKS))
    assert [(one.first_frame, one.frames) for one in entry.quality.chunks] == [(0, 1), (1, 4), (5, 4), (9, 4), (13, 4)]
    assert all(len(one.steps) == 2 and one.velocity_error < 1e-5 for one in entry.quality.chunks)
    assert {one.step for one in entry.quality.blocks} == {0, 1}, "of both experts"
    assert all(one.error < 1e-5 for one in entry.quality.blocks)
    holds = {one.name: one.holds for one in entry.quality.invariants}
    assert holds == {
        "same again": True, "every budget": None, "streamed": True, "made ahead": True, "in turn": True,
    }  # fmt: skip
    assert {"first_chunk", "early_chunk", "late_chunk", "denoise", "step denoiser_low"} <= entry.speed.phases.keys()
    assert entry.speed.session_bytes == 4 * 5 * 2 * (3 * 16 * 160 * 4) + 4 * 3 * 16 * 4, "four rings and their biases"
    assert entry.speed.frames_per_second and entry.speed.denoised_frames_per_second
    assert all(len(floor.chunks) == CHUNKS for floor in report.reference.floors)
    assert entry.facts.kv_cache == "chunks of 1 latent frames, behind the last 2 chunks, and the first 1, in fp32"


@pytest.mark.long
def test_fewer_bits_are_further_off(causal_recipe: Path, causal_bundle: Path, causal_record: ReferenceRecord) -> None:
    """What the first chunk sees is not kept, so that it is as exact as the baseline's."""

    def kept_in(precision: str) -> Path:
        (loaded,) = load(causal_recipe, [f"name=causal-{precision}", f"runtime.kv_cache.precision={precision}"])
        return build(loaded, causal_bundle.parents[1], progress=False).bundle

    gates = {"velocity_error": "<= 1.05 baseline", "chunk_sqnr_db": "<= 1.05 baseline"}
    report = reported(kept_in("int8"), causal_record, causal_bundle, (kept_in("int4"),), gates)
    int8, int4, fp32 = (entry.quality.chunks for entry in report.bundles if entry.quality)
    assert max(one[0].velocity_error for one in (int8, int4, fp32)) < 1e-5
    for chunk in range(1, CHUNKS):
        errors = [one[chunk].velocity_error for one in (fp32, int8, int4)]
        assert 10 * errors[0] < errors[1] and 5 * errors[1] < errors[2], chunk
        decibels = [one[chunk].sqnr_db for one in (fp32, int8, int4)]
        assert decibels[0] > decibels[1] + 10 and decibels[1] > decibels[2] + 10, chunk
    outcomes = {(gate.bundle, gate.name): gate.outcome for gate in report.gates if gate.kind == "quality"}
    assert set(outcomes.values()) == {"regression"} and report.verdict.outcome == "regression"


def stale_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last slot is written again and again; what should give way stays."""
    monkeypatch.setattr(KeyValueWindow, "slot", lambda self, chunk: min(chunk, self.chunks - 1))


def scaled_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of the past are 2 % too large."""
    encoded = kvcache.encoded
    monkeypatch.setattr(kvcache, "encoded", lambda array, precision: encoded(array * np.float32(1.02), precision))


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], list[bool]]] = {
    "stale slot": (stale_slot, [False, False, False, False, True]),
    "scaled keys": (scaled_keys, [False, True, True, True, True]),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_cache_turns_its_gate_red(
    fault: str, causal_bundle: Path, causal_record: ReferenceRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report shows from which chunk on it is there."""
    plant, off = FAULTS[fault]
    plant(monkeypatch)
    report = reported(causal_bundle, causal_record)
    outcomes = {gate.name: gate.outcome for gate in report.gates}
    assert outcomes["velocity_error"] == outcomes["chunk_velocity_error"] == "regression"
    (entry,) = report.bundles
    assert entry.quality is not None
    assert [one.velocity_error > 1e-4 for one in entry.quality.chunks] == off


@pytest.mark.long
def test_exchanged_experts_are_named(causal_bundle: Path, causal_record: ReferenceRecord, tmp_path: Path) -> None:
    """At the first of the two timesteps either would do."""
    report = reported(planted.with_experts_exchanged(causal_bundle, tmp_path / "new"), causal_record, causal_bundle)
    assert report.verdict.outcome == "regression"
    found = report.verdict.cause
    assert found is not None and (found.kind, found.name) == ("expert", "denoiser_low")


@pytest.mark.long
def test_beside_a_model_that_makes_all_frames_at_once(
    causal_bundle: Path, tiny_bundle: Path, causal_record: ReferenceRecord
) -> None:
    report = reported(causal_bundle, causal_record, tiny_bundle, gates={"velocity_error": "<= 1.05 baseline"})
    assert report.verdict.outcome == "not-comparable"
    assert "it makes all frames at once, and the reference a video chunk by chunk" in report.verdict.summary


@pytest.mark.slow
def test_all_writers_have_it_chunk_by_chunk(
    wanc: Wanc, causal_bundle: Path, evaluated_causal: Path, causal_record: ReferenceRecord, tmp_path: Path
) -> None:
    del causal_record
    out, store = tmp_path / "out", causal_bundle.parents[1] / "store"
    asked = ("--recipe", evaluated_causal, "--store", store, "--quick", "-o", out)
    done = wanc("report", causal_bundle, *asked, "--set", 'evaluate.gates={chunk_psnr_db: ">= 70"}')
    assert done.code == 0, done.err
    document: Any = json.loads((out / "report.json").read_text("utf-8"))
    assert len(document["bundles"][0]["quality"]["chunks"]) == CHUNKS
    assert "## Chunk by chunk" in (out / "report.md").read_text("utf-8")
    assert "Chunk by chunk" in (out / "index.html").read_text("utf-8")
    assert 'name="chunk_psnr_db"' in (out / "report.junit.xml").read_text("utf-8")


def test_stages_of_builds_are_not_compared(wanc: Wanc, causal_bundle: Path, evaluated_causal: Path) -> None:
    named = (causal_bundle, "--baseline", causal_bundle, "--recipe", evaluated_causal)
    done = wanc("report", "bisect", *named, "--store", causal_bundle.parents[1] / "store")
    assert (done.code, done.out) == (2, "")
    assert "builds of causal models are not compared stage by stage yet" in done.err
