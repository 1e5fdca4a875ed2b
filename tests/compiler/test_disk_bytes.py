"""What stages say that they will write, against what lay in the store at once while they did."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Stage, Tree
from wanc.recipe.load import load

MOST = 1.3
"""A build that fits into that much more is never refused."""
FEW = ("quantize.calibrate.clips=2", "quantize.calibrate.timestep_bins=2", "sampling.steps=6", "engine.check=off")


class Watched:
    """The most bytes that files below some folders had together: what is on disk grows until something is removed."""

    def __init__(self) -> None:
        self.folders: tuple[Path, ...] = ()
        self.most = 0

    def audit(self, event: str, _: object) -> None:
        if self.folders and event in ("os.remove", "shutil.rmtree"):
            self.look()

    def look(self) -> None:
        folders, self.folders = self.folders, ()
        files = [Path(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names]
        self.most = max(self.most, sum(path.lstat().st_size for path in files if path.exists()))
        self.folders = folders


WATCHED = Watched()
sys.addaudithook(WATCHED.audit)


@contextmanager
def watched(*folders: Path) -> Generator[None]:
    WATCHED.folders, WATCHED.most = folders, 0
    try:
        yield
        WATCHED.look()
    finally:
        WATCHED.folders = ()


@dataclass
class Measured(Runner):
    """Runs stages in this process; what each has said, and what it has written."""

    found: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def _run(self, stage: Stage, key: str, inputs: Mapping[str, Tree], out: Path) -> int:
        files: dict[str, Files] = {name: tree.locate() for name, tree in inputs.items()}
        said = stage.disk_bytes(files)
        folders = (out.parent, self.store.scratch(key)) if stage.resumes else (out.parent,)
        with watched(*folders):
            stage.run(files, out, progress=False)
        self.found[stage.label] = (said, WATCHED.most)
        return 0


def measured(tiny_bundle: Path, folder: Path, *overrides: str) -> dict[str, tuple[int, int]]:
    """Of all stages behind fuse, by label: what each said, and what it wrote."""
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-int8.yaml", overrides)
    store = Store.open(tiny_bundle.parents[1] / "store")
    with store.session():
        resolved = resolve(loaded, SourceDigests(store, paranoid=False), progress=False)
        before, runner = Runner(store, progress=False), Measured(Store.open(folder / "store"), progress=False)

        def run(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
            return (before if stage.name in ("export", "fuse") else runner).run(stage, inputs)

        BuildPlan.of(resolved).run(run)
    return runner.found


SAYING = ("texts", "calibrate", "quantize", "compile")


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(FEW, id="onnxruntime", marks=pytest.mark.slow),
        pytest.param(
            (*FEW, "quantize.keep.sensitivity={int8_share: 0.9}", "engine.kind=openvino"),
            id="openvino",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stages_write_what_they_say(tiny_bundle: Path, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    found = measured(tiny_bundle, tmp_path, *overrides)
    shares = {label: said / wrote for label, (said, wrote) in found.items() if label.startswith(SAYING)}
    assert len(shares) == 9
    assert {label: share for label, share in shares.items() if not 1 <= share <= MOST} == {}
    # What says little, or nothing, refuses no build.
    assert all(said < wrote for label, (said, wrote) in found.items() if not label.startswith(SAYING))


ENCODER = ("quantize.text_encoder=int8", "quantize.keep.sensitivity={int8_share: 0.9}", *FEW)


@pytest.mark.long
def test_a_quantised_text_encoder_writes_what_it_says(tiny_bundle: Path, tmp_path: Path) -> None:
    """Compiled it is so small that a tenth of it is padding, and said to be less."""
    found = measured(tiny_bundle, tmp_path, *ENCODER)
    shares = {label: found[label][0] / found[label][1] for label in ("quantize text_encoder", "texts")}
    assert {label: share for label, share in shares.items() if not 1 <= share <= MOST} == {}
    assert all(said < MOST * wrote for said, wrote in found.values())
