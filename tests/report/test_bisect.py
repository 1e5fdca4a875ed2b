"""`wanc report bisect`: a fault in a stage is found in that stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT, Wanc
from wanc.compiler import pipeline
from wanc.compiler.built_stages import STAGES
from wanc.compiler.bundle import engine_stages
from wanc.compiler.export.wan import Export
from wanc.compiler.fuse import Fuse
from wanc.compiler.pipeline import build
from wanc.compiler.quantize import experts
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.train import Train
from wanc.recipe.load import load
from wanc.report.bisect import ENGINE, Bisection, StageDifference
from wanc.report.component_case import DecoderCase
from wanc.report.reference import ReferenceRecord
from wanc.runtime.model import DECODER, HIGH, LOW, TEXT_ENCODER, Model
from wanc.runtime.tiling import Tiling

from . import planted, spoiled
from .spoiled import FACTOR

# The fault is one that a build compares away, unless it is told not to.
UNCHECKED = ["engine.check=off"]
PROMPTS = f"prompts: {ROOT}/recipes/prompts/tiny-wan-calibrate.txt"
CALIBRATE = f"calibrate: {{{PROMPTS}, clips: 2}}"
# What a recipe says so that a stage works on the component. Of the engines only OpenVINO has a decoder in INT8.
QUANTIZED = {
    LOW: [f"quantize={{scheme: int8, {CALIBRATE}}}"],
    TEXT_ENCODER: [f"quantize={{text_encoder: int8, calibrate: {{{PROMPTS}}}}}"],
    DECODER: [f"quantize={{vae_decoder: int8, {CALIBRATE}}}", "engine.kind=openvino"],
}
FAULTS: dict[tuple[str, str], tuple[Any, str, Any]] = {
    (LOW, "export"): (pipeline, "Export", spoiled.SpoiledExport),
    (LOW, "fuse"): (pipeline, "Fuse", spoiled.SpoiledFuse),
    (LOW, "quantize"): (experts, "Quantize", spoiled.SpoiledQuantize),
    (LOW, ENGINE): (engine_stages, "Compile", spoiled.SpoiledCompile),
    (TEXT_ENCODER, "export"): (pipeline, "Export", spoiled.SpoiledTextExport),
    (TEXT_ENCODER, "fuse"): (pipeline, "Fuse", spoiled.SpoiledTextFuse),
    (TEXT_ENCODER, "quantize"): (experts, "QuantizeTextEncoder", spoiled.SpoiledTextQuantize),
    (TEXT_ENCODER, ENGINE): (engine_stages, "Compile", spoiled.SpoiledTextCompile),
    (DECODER, "export"): (pipeline, "Export", spoiled.SpoiledDecoderExport),
    (DECODER, "fuse"): (pipeline, "Fuse", spoiled.SpoiledDecoderFuse),
    (DECODER, "quantize"): (experts, "QuantizeDecoder", spoiled.SpoiledDecoderQuantize),
    (DECODER, ENGINE): (engine_stages, "Compile", spoiled.SpoiledDecoderCompile),
}
SLOW = {(LOW, "quantize"), (DECODER, "export")}
"""One of a denoiser, and one of a decoder; one more is in every run, and the others take too long."""
Bisect = Callable[..., tuple[int, dict[str, Any]]]


def _marks(fault: tuple[str, str]) -> Sequence[pytest.MarkDecorator]:
    if fault == (LOW, ENGINE):
        return []
    return [pytest.mark.slow] if fault in SLOW else [pytest.mark.long]


@pytest.fixture
def bisect(wanc: Wanc, evaluated: Path, record: ReferenceRecord) -> Bisect:
    """The exit code, and what is said as JSON."""
    del record  # the reference is in the store

    def run(new: Path, baseline: Path) -> tuple[int, dict[str, Any]]:
        found = wanc("report", "bisect", new, "--baseline", baseline, "--recipe", evaluated, "--json")
        return found.code, json.loads(found.out)

    return run


@pytest.mark.parametrize(
    ("component", "stage"),
    [pytest.param(*fault, marks=_marks(fault)) for fault in FAULTS],
)
def test_a_fault_is_found_where_it_is(
    component: str, stage: str, tiny_recipe: Path, tiny_bundle: Path, bisect: Bisect, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, fault = FAULTS[component, stage]
    overrides = QUANTIZED[component] if stage == "quantize" else []
    output = tiny_bundle.parents[1]
    baseline = tiny_bundle
    if overrides:
        (sound,) = load(tiny_recipe, [f"name=sound-{component}", *UNCHECKED, *overrides])
        baseline = build(sound, output, progress=False).bundle
    (loaded,) = load(tiny_recipe, [f"name=spoiled-{component}-{stage}", *UNCHECKED, *overrides])
    with monkeypatch.context() as patched:
        patched.setattr(module, name, fault)
        new = build(loaded, output, progress=False).bundle
    code, found = bisect(new, baseline)
    first = found["first"]
    assert code == 1 and (first["component"], first["stage"]) == (component, stage)
    # Of frames those that are white already, or black, are as bright as before.
    assert first["difference"] == pytest.approx(FACTOR - 1, rel=0.3 if component == DECODER else 0.01)
    assert stage == ENGINE or "spoiled" in first["told"]
    sound = [one for one in found["stages"] if one["component"] != component]
    assert all(one["is_same"] or one["difference"] < one["noise"] for one in sound)


@pytest.mark.slow
def test_a_build_beside_itself_has_changed_nothing(tiny_bundle: Path, bisect: Bisect) -> None:
    code, found = bisect(tiny_bundle, tiny_bundle)
    assert (code, found["first"]) == (0, None)
    names = dict.fromkeys(one["component"] for one in found["stages"])
    assert [*names] == [TEXT_ENCODER, HIGH, LOW, DECODER]
    for name in names:
        stages = [(one["stage"], one["is_same"]) for one in found["stages"] if one["component"] == name]
        assert stages == [("export", True), ("fuse", True), (ENGINE, False)]
    # Frames of the reference are rounded to 255 steps from -1 to 1; nothing else is.
    errors = {one["component"]: one["error"] for one in found["stages"] if one["stage"] == ENGINE}
    assert errors.pop(DECODER) < 0.01 and all(error < 1e-5 for error in errors.values())


@pytest.mark.slow
def test_what_is_only_added_up_otherwise_is_no_change(tiny_recipe: Path, tiny_bundle: Path, bisect: Bisect) -> None:
    """Another engine, and graphs as they were exported."""
    overrides = ["name=sound-otherwise", *UNCHECKED, "engine.kind=openvino", "fuse.passes=[]"]
    (loaded,) = load(tiny_recipe, overrides)
    code, found = bisect(build(loaded, tiny_bundle.parents[1], progress=False).bundle, tiny_bundle)
    assert (code, found["first"]) == (0, None)
    differences = [one["difference"] for one in found["stages"] if not one["is_same"]]
    assert len(differences) == 8 and all(0 < difference < 2e-6 for difference in differences)


@pytest.mark.long
def test_a_stage_that_quantizes_one_component_is_none_of_another(
    tiny_recipe: Path, tiny_bundle: Path, bisect: Bisect
) -> None:
    (loaded,) = load(tiny_recipe, [f"name=sound-{TEXT_ENCODER}", *UNCHECKED, *QUANTIZED[TEXT_ENCODER]])
    code, found = bisect(build(loaded, tiny_bundle.parents[1], progress=False).bundle, tiny_bundle)
    quantized = [one["component"] for one in found["stages"] if one["stage"] == "quantize"]
    assert code == 1 and quantized == [TEXT_ENCODER]
    assert (found["first"]["stage"], found["first"]["told"]) == ("quantize", None)


def test_every_component_that_has_changed_is_named() -> None:
    nothing = {"is_same": False, "noise": 1e-5, "error": 0.0, "baseline_error": 0.0}
    stages = [
        StageDifference(component=component, stage=stage, difference=difference, told=told, **nothing)
        for component, stage, difference, told in [
            (TEXT_ENCODER, "fuse", 1e-6, ["passes"]),
            (TEXT_ENCODER, ENGINE, 1e-4, ["engine"]),
            (LOW, "fuse", 1e-6, ["passes"]),
            (DECODER, "fuse", 1e-3, ["passes", "skip"]),
            (DECODER, ENGINE, 1e-3, ["engine"]),
        ]
    ]
    assert Bisection(new="new", baseline="old", stages=stages, first=stages[1]).summary == (
        "The change of text_encoder comes with the stage engine, which was told otherwise: engine.\n"
        "The change of vae_decoder comes with the stage fuse, which was told otherwise: passes, skip."
    )


def test_a_picture_that_one_bundle_decodes_in_tiles_is_compared_by_its_first_tile() -> None:
    model = Model(512, None, 1000, (0.0,) * 16, (1.0,) * 16, spatial_stride=8, temporal_stride=4)
    latents, frames = np.zeros((1, 16, 2, 8, 12), np.float32), np.zeros((5, 64, 96, 3), np.uint8)
    subjects: list[Any] = []
    for tiling in (None, Tiling((32, 160), (24, 96))):
        bundle = SimpleNamespace(tiling=lambda *_, tiling=tiling: tiling)
        subjects.append(SimpleNamespace(pipeline=SimpleNamespace(bundle=bundle)))
    case = DecoderCase.of(latents, frames, model, subjects)
    assert case.latents.shape == (1, 16, 2, 4, 12)
    assert [chunk.shape for chunk in case.expected] == [(1, 3, 1, 32, 96), (1, 3, 4, 32, 96)]
    assert case.expected[0].min() == case.expected[0].max() == -1


def test_a_bundle_that_no_store_has_built_is_not_comparable(
    tiny_bundle: Path, evaluated: Path, wanc: Wanc, record: ReferenceRecord, tmp_path: Path
) -> None:
    """One that was copied, and changed."""
    del record
    new = planted.with_runtime(tiny_bundle, tmp_path / "new", "sampling", "guidance", "low", value=2.0)
    store = tiny_bundle.parents[1] / "store"
    asked = ("--recipe", evaluated, "--store", store)
    found = wanc("report", "bisect", new, "--baseline", tiny_bundle, *asked)
    assert (found.code, found.out) == (4, "")
    assert "the store does not know how this bundle was built" in found.err and "hint: build it again" in found.err


def test_what_the_store_has_lost_is_not_comparable(
    tiny_bundle: Path, evaluated: Path, wanc: Wanc, record: ReferenceRecord, tmp_path: Path
) -> None:
    del record
    output = tmp_path / "output"
    shutil.copytree(tiny_bundle.parents[1], output, ignore=shutil.ignore_patterns("tmp"))
    bundle = output / "bundles" / tiny_bundle.name
    for path in (output / "store" / "actions").glob("*.json"):
        if json.loads(path.read_bytes())["stage"] == "fuse":
            path.unlink()
    found = wanc("report", "bisect", bundle, "--baseline", bundle, "--recipe", evaluated)
    assert (found.code, found.out) == (4, "")
    assert "the store no longer has all that this bundle was built of" in found.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bisect"], "two builds are compared"),
        (["bisect", "{bundle}"], "two builds are compared"),
        (["bisect", "{bundle}", "{bundle}", "--baseline", "{bundle}"], "two builds are compared"),
        (["bisect", "{bundle}", "--baseline", "{bundle}", "--quick"], "--quick would have no effect with bisect"),
        (["bisect", "absent", "--baseline", "{bundle}"], "there is no such bundle"),
    ],
)
def test_what_is_asked_wrongly(arguments: list[str], message: str, tiny_bundle: Path, wanc: Wanc) -> None:
    found = wanc("report", *(text.format(bundle=tiny_bundle) for text in arguments))
    assert found.code != 0 and found.out == "" and message in found.err and "Traceback" not in found.err


def test_stages_are_called_what_they_are() -> None:
    assert (Export.name, Fuse.name, Quantize.name, Train.name) == STAGES
