"""One model in two layouts is one bundle, but for what says where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc import cli
from wanc.runtime.verify import verify

pytestmark = pytest.mark.slow  # two builds from nothing

LAYOUTS = ("diffusers", "original")
TINY = MODELS["tiny"].with_layers(1)
# Two resolutions where Wan's VAE has four, which take four times as long to export.
MODEL = replace(TINY, vae={**TINY.vae, "dim_mult": [1, 2], "temperal_downsample": [True]})
# The lock pins the files of the model by name and digest; nothing else in a bundle knows them.
LOCK = "recipe.lock.json"
RECIPE = """\
wanc: 1
name: tiny
model: {source: model}
shapes: [{name: small, height: 32, width: 48, frames: 5}]
sampling: {steps: 2, shift: 4.0, guidance: {high: 4.0, low: 3.0}}
"""


@dataclass(frozen=True)
class Built:
    root: Path
    id: str

    def files(self) -> dict[str, bytes]:
        """Every file of the bundle."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes() for path in self.root.rglob("*") if path.is_file()
        }

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.root / name).read_text())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Built]:
    """The bundles of both layouts, each with a store of its own, so that neither can lend the other its stages."""
    built: dict[str, Built] = {}
    for layout in LAYOUTS:
        folder = tmp_path_factory.mktemp(layout)
        make(MODEL, layout, folder / "model", seed=1)
        (folder / "recipe.yaml").write_text(RECIPE)
        with pytest.raises(SystemExit) as stop, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["wanc", "build", str(folder / "recipe.yaml"), "-o", str(folder / "out")])
            cli.main()
        assert not stop.value.code
        root = folder / "out" / "bundles" / "tiny"
        built[layout] = Built(root, verify(root).id)
    return built


def test_the_bundles_differ_in_the_lock_alone(bundles: Mapping[str, Built]) -> None:
    one, other = (bundles[layout].files() for layout in LAYOUTS)
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == {"manifest.json", LOCK}


def test_the_manifests_differ_in_the_locks_entry_and_in_the_parents_alone(bundles: Mapping[str, Built]) -> None:
    one, other = (bundles[layout].json("manifest.json") for layout in LAYOUTS)
    assert bundles["diffusers"].id != bundles["original"].id
    assert one.pop("parents") != other.pop("parents")
    locks = [
        [entry for entry in manifest["files"] if entry["path"] == LOCK and manifest["files"].remove(entry) is None]
        for manifest in (one, other)
    ]
    assert [len(entries) for entries in locks] == [1, 1] and locks[0] != locks[1]
    assert one == other


def test_the_locks_differ_in_the_inputs_alone(bundles: Mapping[str, Built]) -> None:
    one, other = (bundles[layout].json(LOCK) for layout in LAYOUTS)
    assert one.pop("inputs").keys().isdisjoint(other.pop("inputs"))
    assert one == other
