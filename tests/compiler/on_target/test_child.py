"""The child of a sealed bundle: real engines in place of graphs, a name, a report, and its parent untouched."""

from __future__ import annotations

import json
from pathlib import Path

from wanc.compiler.engines.tensorrt_rtx.header import header_fault
from wanc.compiler.on_target.child import ChildResult
from wanc.compiler.program.program import Program
from wanc.runtime.engine_file import to_build
from wanc.runtime.manifest import Manifest
from wanc.runtime.verify import verify

from .conftest import ADA, AMPERE, left_in, state_of

Family = tuple[ChildResult, ChildResult]
RTX = "1.7.1.116"


def test_it_is_a_bundle_of_its_own_that_names_its_parent(family: Family, asking: Path) -> None:
    for child, parent in zip(family, (asking, family[0].bundle), strict=True):
        assert verify(child.bundle).ok
        manifest, of = Manifest.read(child.bundle), Manifest.read(parent)
        assert child.id == manifest.id != of.id == child.parent
        assert manifest.parents == ({"role": "bundle", "digest": of.id}, *of.parents)
        assert (manifest.created, manifest.recipe_sha256, manifest.check) == (of.created, of.recipe_sha256, of.check)
    assert [child.bundle.name for child in family] == ["small-sm89", "small-sm89-sm80"]


def test_what_is_for_another_gpu_waits_for_it(family: Family) -> None:
    first, second = family
    assert [(child.engines, child.waiting) for child in family] == [(1, 1), (1, 0)]
    assert [to_build(Manifest.read(child.bundle).topology) for child in family] == [1, 0]
    left = {file.path for file in Manifest.read(first.bundle).files if file.path.startswith("engines/")}
    graph = "engines/model/main.s0.sm80.onnx"
    assert left == {
        "engines/model/main.s0.sm89.engine", graph, f"{graph}.settings.json", "engines/model/weights.s0.sm80.bin",
    }  # fmt: skip
    all_built = {file.path for file in Manifest.read(second.bundle).files if file.path.startswith("engines/")}
    assert all_built == {"engines/model/main.s0.sm89.engine", "engines/model/main.s0.sm80.engine"}


def test_its_engines_are_real_ones_for_their_targets(family: Family) -> None:
    bundle = family[1].bundle
    for gpu in (ADA, AMPERE):
        assert header_fault(bundle / f"engines/model/main.s0.{gpu.target}.engine", gpu.target, RTX) is None


def test_its_report_is_read_from_the_log(family: Family) -> None:
    report = json.loads((family[1].bundle / "engine_report.json").read_bytes())
    for entry in (report["components"]["model"]["main"], report["others"]["sm80"]["model"]["main"]):
        assert entry["kernels"] and "built" not in entry
        assert entry["fused"] == {"Attention": 1}
        assert set(entry["linears"].values()) == {"BFloat16 × BFloat16"} and len(entry["linears"]) == 4
        assert entry["weight_bytes"] > 0
        assert not entry["compared"] and entry["not_compared"], "nothing executes it here, and the report says why"
    assert report["built_on"] == {"sm80": AMPERE.name}


def test_what_stays_is_the_parent_s(family: Family, asking: Path) -> None:
    """Record, runtime, lock and requirements, byte for byte, in files of its own."""
    ours, theirs = ({file.path: file for file in Manifest.read(root).files} for root in (family[0].bundle, asking))
    made = {"program.json", "engine_report.json", "engines/model/main.s0.sm89.engine"}
    assert {path for path in ours if ours[path] != theirs.get(path)} == made
    for path in ours.keys() & theirs.keys():
        assert (family[0].bundle / path).stat().st_ino != (asking / path).stat().st_ino


def test_its_program_is_what_its_manifest_lists(family: Family) -> None:
    for child in family:
        manifest, program = Manifest.read(child.bundle), Program.read(child.bundle / "program.json")
        assert [file.as_json() for file in sorted(program.engines, key=lambda file: file.file)] == sorted(
            manifest.topology["engines"],  # type: ignore[arg-type]
            key=lambda entry: entry["file"],  # type: ignore[call-overload, index]
        )
        listed = {file.path for file in manifest.files}
        assert {weight.file for weight in program.components["model"].weights.values()} <= listed


def test_the_parent_and_all_around_it_are_as_they_were(asking: Path, family: Family) -> None:
    assert verify(asking).ok
    names = {Path(path).name for path in left_in(asking.parent)}
    assert not [name for name in names if name.startswith(".")]
    before = state_of(asking)
    assert {digest for digest, _ in before.values()} >= {
        file.sha256.removeprefix("sha256:") for file in Manifest.read(asking).files
    }
    bundles = family[0].bundle.parent
    assert sorted(path.name for path in bundles.iterdir()) == ["small-sm89", "small-sm89-sm80"]
