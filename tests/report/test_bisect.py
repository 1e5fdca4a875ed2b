"""`wanc report bisect`: a fault in a stage is found in that stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from wanc.report.bisect import ENGINE
from wanc.report.reference import ReferenceRecord

from . import planted
from .spoiled import COMPONENT, FACTOR, SpoiledCompile, SpoiledExport, SpoiledFuse, SpoiledQuantize

# The fault is one that a build compares away, unless it is told not to.
UNCHECKED = ["engine.check=off"]
INT8 = f"quantize={{scheme: int8, calibrate: {{prompts: {ROOT}/recipes/prompts/tiny-wan-calibrate.txt, clips: 2}}}}"
FAULTS: dict[str, tuple[Any, str, Any, list[str]]] = {
    "export": (pipeline, "Export", SpoiledExport, []),
    "fuse": (pipeline, "Fuse", SpoiledFuse, []),
    "quantize": (experts, "Quantize", SpoiledQuantize, [INT8]),
    "engine": (engine_stages, "Compile", SpoiledCompile, []),
}
Bisect = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def bisect(wanc: Wanc, evaluated: Path, record: ReferenceRecord) -> Bisect:
    """The exit code, and what is said as JSON."""
    del record  # the reference is in the store

    def run(new: Path, baseline: Path) -> tuple[int, dict[str, Any]]:
        found = wanc("report", "bisect", new, "--baseline", baseline, "--recipe", evaluated, "--json")
        return found.code, json.loads(found.out)

    return run


@pytest.mark.parametrize(
    "stage", ["engine", *(pytest.param(name, marks=pytest.mark.slow) for name in FAULTS if name != "engine")]
)
def test_a_fault_is_found_where_it_is(
    stage: str, tiny_recipe: Path, tiny_bundle: Path, bisect: Bisect, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, fault, overrides = FAULTS[stage]
    output = tiny_bundle.parents[1]
    baseline = tiny_bundle
    if overrides:
        (sound,) = load(tiny_recipe, [f"name=sound-{stage}", *UNCHECKED, *overrides])
        baseline = build(sound, output, progress=False).bundle
    (loaded,) = load(tiny_recipe, [f"name=spoiled-{stage}", *UNCHECKED, *overrides])
    with monkeypatch.context() as patched:
        patched.setattr(module, name, fault)
        new = build(loaded, output, progress=False).bundle
    code, found = bisect(new, baseline)
    first = found["first"]
    assert code == 1 and (first["component"], first["stage"]) == (COMPONENT, stage)
    assert first["difference"] == pytest.approx(FACTOR - 1, rel=0.01)
    assert stage == ENGINE or "spoiled" in first["told"]
    sound = [one for one in found["stages"] if one["component"] != COMPONENT]
    assert all(one["is_same"] or one["difference"] < found["noise"] for one in sound)


def test_a_build_beside_itself_has_changed_nothing(tiny_bundle: Path, bisect: Bisect) -> None:
    code, found = bisect(tiny_bundle, tiny_bundle)
    assert (code, found["first"]) == (0, None)
    stages = [(one["stage"], one["is_same"]) for one in found["stages"] if one["component"] == COMPONENT]
    assert stages == [("export", True), ("fuse", True), (ENGINE, False)]


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
