"""A bundle that is no longer what was sealed: a build sets it aside and seals it again, and fsck names its faults."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Wanc
from wanc.artifacts import publish
from wanc.artifacts.fsck import check
from wanc.compiler.bundle import seal
from wanc.compiler.pipeline import BuildResult, build
from wanc.compiler.why import why
from wanc.recipe.load import load
from wanc.runtime.verify import verify

from .project import STAGES, Project, records_of


def flip(path: Path, offset: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip_digest(path: Path) -> None:
    """Still a manifest, and another one."""
    text = path.read_text()
    path.write_text(text.replace('"created":"1970', '"created":"1971'))


# name: (what is done to the bundle, what a build says of it)
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of the runtime": (lambda bundle: flip(bundle / "runtime/main.py"), "runtime/main.py has sha256:"),
    "a bit of the lock": (lambda bundle: flip(bundle / "recipe.lock.json"), "recipe.lock.json has sha256:"),
    "a truncated file": (lambda bundle: os.truncate(bundle / "run.py", 3), "run.py has 3 bytes, not "),
    "a missing file": (lambda bundle: (bundle / "run.py").unlink(), "run.py is missing"),
    "a file too many": (lambda bundle: (bundle / "notes").touch(), "notes is not in the manifest"),
    "a link": (
        lambda bundle: (
            (bundle / "run.py").rename(bundle.parents[1] / "run.py"),
            (bundle / "run.py").symlink_to("../../run.py"),
        ),
        "run.py cannot be read: Too many levels of symbolic links",
    ),
    "a bit of the manifest": (lambda bundle: flip(bundle / "manifest.json", 0), "not JSON"),
    "another manifest": (lambda bundle: flip_digest(bundle / "manifest.json"), "is not a bundle that was sealed here"),
    "no manifest": (lambda bundle: (bundle / "manifest.json").unlink(), "is missing"),
    "a bit of the marker": (lambda bundle: flip(bundle / "WANC", 0), "first line"),
    "no marker": (lambda bundle: (bundle / "WANC").unlink(), "is missing"),
}


def computed(result: BuildResult) -> list[str]:
    return [run.name for run in result.stages if not run.cached]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_build_heals_it(block: Project, output: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    damage, said = DAMAGES[name]
    bundle = output / "bundles/block"
    damage(bundle)
    faults = verify(bundle).failures
    checkup = check(output / "store")
    if name == "another manifest":
        (finding,) = checkup.findings
        assert finding.path == "../bundles/block/manifest.json", "it is sound in itself"
    else:
        assert [(finding.path, finding.reason) for finding in checkup.findings] == [
            (f"../bundles/block/{fault.path}", fault.reason) for fault in faults
        ]
    assert said in why(block.load(), output)[-1].as_text()
    result = build(block.load(), output, progress=False)
    assert (computed(result), result.id) == (["resolve", "seal"], block.id)
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {bundle}: ") and said in warning
    assert warning.endswith(": it is set aside and sealed again")
    assert verify(bundle).id == block.id
    assert [path.name.split(".")[0] for path in (output / "store/quarantine").iterdir()] == ["block"]
    assert [path.name for path in bundle.parent.iterdir()] == ["block"]
    assert check(output / "store").ok
    assert computed(build(block.load(), output, progress=False)) == ["resolve"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_is_aside_is_all_that_stood_there(
    block: Project, output: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """A file that somebody put into a bundle is not gone."""
    if not can_exchange:
        monkeypatch.setattr(publish, "exchange", lambda first, second: False)
    (output / "bundles/block/notes").write_text("mine")
    build(block.load(), output, progress=False)
    (aside,) = (output / "store/quarantine").iterdir()
    assert (aside / "notes").read_text() == "mine"
    assert (aside / "run.py").exists()


def test_another_version_is_replaced_with_a_line_for_each(
    block: Project, output: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (other,) = load(block.recipe, ["version=0.2.0"])
    for loaded in (other, block.load(), other):
        build(loaded, output, progress=False)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3 and all(" in place of sha256:" in line for line in lines)
    assert list((output / "store/quarantine").iterdir()) == []


def test_damaged_weights_that_lie_in_the_bundle_alone(
    block: Project, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The store knows them by their place: they are made again, and all of them, not only the first."""
    monkeypatch.setattr(seal, "ADOPT_BYTES", 0)
    output = folder / "output"
    build(block.load(), output, progress=False)
    bundle = output / "bundles/block"
    located = [json.loads(path.read_text()) for path in (output / "store/located").iterdir()]
    paths = [Path(note["path"]) for note in located]
    assert len(paths) > 3 and all(path.is_relative_to(bundle) for path in paths)
    engines = [path for path in paths if "engines" in path.parts or "golden" in path.parts]
    assert len(engines) > 2
    for path in engines:
        flip(path)
    result = build(block.load(), output, progress=False)
    assert result.id == block.id and verify(bundle).id == block.id
    assert set(computed(result)) <= {"resolve", "compile", "engine", "check", "seal"}
    assert "is damaged" in capfd.readouterr().err
    assert check(output / "store").ok
    assert {record.stage for record in records_of(output)} == set(STAGES)


def test_fsck_names_every_fault_of_a_bundle(wanc: Wanc, output: Path) -> None:
    bundle = output / "bundles/block"
    flip(bundle / "runtime/main.py")
    (bundle / "run.py").unlink()
    finished = wanc("store", "fsck", "-o", output)
    assert finished.code == 1
    lines = finished.out.splitlines()
    assert lines[0] == "../bundles/block/run.py: is missing"
    assert lines[1].startswith("../bundles/block/runtime/main.py: has sha256:")
    assert lines[2] == "2 damaged in bundles: do not run them, a build makes them again"
    assert " are sound, " in lines[3] and len(lines) == 4
    assert (bundle / "runtime/main.py").exists(), "it is left where it is"
    assert {record.stage for record in records_of(output)} == set(STAGES), "the store itself is sound"


def test_fsck_of_a_sound_bundle(wanc: Wanc, output: Path) -> None:
    finished = wanc("store", "fsck", "-o", output)
    assert (finished.code, finished.out.splitlines()[-1]) == (0, "1 bundle is sound")
    shutil.rmtree(output / "bundles/block")
    finished = wanc("store", "fsck", "-o", output)
    assert finished.code == 0 and "bundles" not in finished.out, "a bundle that was deleted is no fault"


def test_a_bundle_that_stands_is_not_opened_for_writing(block: Project, output: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (output / "bundles/block").rglob("*")}
    assert computed(build(block.load(), output, progress=False)) == ["resolve"]
    assert {path: path.stat().st_mtime_ns for path in (output / "bundles/block").rglob("*")} == before
