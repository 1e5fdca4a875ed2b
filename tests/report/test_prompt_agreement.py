"""What a detector sees of the prompts: in a bundle's videos, in the reference's own, and in a gate's verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.tiny_wan import scenes
from tests.conftest import ROOT
from wanc.recipe.gates import unsound
from wanc.report.detectors.drawn_shapes import Attributes
from wanc.report.detectors.registry import DETECTORS
from wanc.report.document import ReportDocument
from wanc.report.make import ReportRequest, make_report
from wanc.report.model_card import ModelCard, read_card
from wanc.report.prompt_agreement import kept_agreement, prompt_agreement, reference_agreement
from wanc.report.quality import floors
from wanc.report.reference import ReferenceClip, ReferenceRecord
from wanc.report.unfinished import Unfinished

from . import planted

Array = np.ndarray[Any, Any]
DETECTOR = DETECTORS["moving-shapes"]
RIGHT = Attributes("circle", "red", "left")
PROMPT = "A red circle moves to the left."
OTHERS = {"colour": RIGHT._replace(colour="blue"), "direction": RIGHT._replace(direction="right")}


def rendered(attributes: Attributes) -> NDArray[np.uint8]:
    return scenes.render(scenes.random_scene(np.random.default_rng(0), attributes))


def clip_of(prompt: str, frames: Array, changed: Array | None = None) -> ReferenceClip:
    """A clip of the reference that shows these frames, and its one changed self others; nothing else is in it."""
    latents, guided = np.ones((2, 1, 4, 5, 1, 1), np.float32), np.ones((1, 1, 4, 5, 1, 1), np.float32)
    arrays = {"frames": frames, "latents": latents, "guided": guided}
    arrays |= {f"fp32/0/{name}": array for name, array in arrays.items()}
    arrays["fp32/0/frames"] = frames if changed is None else changed
    return ReferenceClip(0, prompt, 0, cast(Any, arrays))


def record_of(*clips: ReferenceClip) -> ReferenceRecord:
    return ReferenceRecord("key", (1000.0,), ("denoiser_high",), (0,), (("fp32", 0),), clips)


# The figure


def test_a_clip_that_shows_another_colour_or_direction_agrees_less() -> None:
    clip = clip_of(PROMPT, rendered(RIGHT))
    assert prompt_agreement(DETECTOR, clip, rendered(RIGHT)) == {"prompt_agreement": 1.0}
    for attributes in OTHERS.values():
        assert prompt_agreement(DETECTOR, clip, rendered(attributes)) == {"prompt_agreement": pytest.approx(2 / 3)}


def test_without_a_detector_or_a_word_that_it_knows_there_is_no_figure() -> None:
    named, other = clip_of(PROMPT, rendered(RIGHT)), clip_of("A cat on a skateboard", rendered(RIGHT))
    assert prompt_agreement(None, named, rendered(RIGHT)) == prompt_agreement(DETECTOR, other, rendered(RIGHT)) == {}
    assert reference_agreement(None, record_of(named)) is reference_agreement(DETECTOR, record_of(other)) is None


def test_the_reference_has_its_own_over_the_clips_that_have_one() -> None:
    clips = [clip_of(PROMPT, rendered(shown)) for shown in (RIGHT, OTHERS["colour"])]
    found = reference_agreement(DETECTOR, record_of(*clips, clip_of("A cat", rendered(RIGHT))))
    assert found is not None and found.count == 2 and found.mean == pytest.approx(5 / 6)


def test_a_floor_is_how_far_it_moves_and_not_how_far_the_reference_is_off() -> None:
    """The reference shows another colour; the same fault again is no noise, and neither is one less."""
    wrong = clip_of(PROMPT, rendered(OTHERS["colour"]))
    assert kept_agreement(DETECTOR, wrong, rendered(OTHERS["direction"])) == {"prompt_agreement": 1.0}
    for moved in (RIGHT, OTHERS["colour"]._replace(direction="up")):
        assert kept_agreement(DETECTOR, wrong, rendered(moved)) == {"prompt_agreement": pytest.approx(2 / 3)}
    (floor,) = floors(record_of(clip_of(PROMPT, rendered(OTHERS["colour"]), rendered(RIGHT))), DETECTOR)
    assert floor.summary["prompt_agreement"].mean == pytest.approx(2 / 3)
    (floor,) = floors(record_of(wrong))
    assert "prompt_agreement" not in floor.summary and "psnr_db" in floor.summary


@pytest.mark.parametrize(
    ("demand", "hint"),
    [
        (">= 0.9", None),
        ("<= 1.05 baseline", None),
        (">= 90", "between 0 and 1"),
        ("<= 3 floors", "a noise floor a distance from the reference"),
        (">= 1 baseline", "bounded from above"),
    ],
)
def test_what_may_be_demanded(demand: str, hint: str | None) -> None:
    fault = unsound("prompt_agreement", demand)
    assert fault is None if hint is None else fault is not None and hint in fault.hint


# Whole reports


def reported(bundle: Path, record: ReferenceRecord, card: ModelCard, unfinished: Unfinished) -> ReportDocument:
    gates = {"prompt_agreement": ">= 0.9"}
    request = ReportRequest(
        "tiny-wan", [bundle], [], None, record, "tiny-wan", gates, 0, card=card, unfinished=unfinished, threads=1
    )
    return make_report(request, progress=False).report


@pytest.mark.slow
def test_a_bundle_that_does_what_it_is_told(tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished) -> None:
    report = reported(tiny_bundle, record, read_card(ROOT / "models" / "tiny-wan"), measured)
    assert [gate.outcome for gate in report.gates if gate.name == "prompt_agreement"] == ["pass"]
    quality, reference = report.bundles[0].quality, report.reference
    assert quality is not None and reference is not None and reference.detector == "moving-shapes"
    assert [video["prompt_agreement"] for video in quality.videos] == [1.0, 1.0]
    assert quality.summary["prompt_agreement"] == reference.prompt_agreement
    assert all(floor.summary["prompt_agreement"].mean == 1.0 for floor in reference.floors)


@pytest.mark.slow
def test_a_bundle_whose_videos_are_mirrored(
    tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished, tmp_path: Path
) -> None:
    """What moves left moves right then: one of two prompts has a third of its words not kept."""
    mirrored = planted.with_the_picture_mirrored(tiny_bundle, tmp_path / "mirrored")
    report = reported(mirrored, record, ModelCard(DETECTOR), measured)
    assert report.verdict.outcome == "regression" and "prompt_agreement" in report.verdict.summary
    (gate,) = [gate for gate in report.gates if gate.name == "prompt_agreement"]
    assert gate.value == pytest.approx(5 / 6) and gate.unit == "share"


@pytest.mark.slow
def test_a_card_that_names_an_unknown_detector(
    tiny_bundle: Path, record: ReferenceRecord, measured: Unfinished
) -> None:
    report = reported(tiny_bundle, record, ModelCard(notes=("The model card names the detector 'faces'.",)), measured)
    assert report.verdict.outcome == "needs-calibration" and "names no detector" in report.verdict.summary
    assert report.notes[0] == "The model card names the detector 'faces'."
    assert report.reference is not None and report.reference.detector is report.reference.prompt_agreement is None
