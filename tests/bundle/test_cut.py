"""tiny-wan cut at every block: as large as in one piece, and frame for frame the same video."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanc.artifacts.canonical import canonical
from wanc.compiler.pipeline import build
from wanc.errors import BundleError
from wanc.recipe.load import load
from wanc.runtime.api import open as open_bundle
from wanc.runtime.api import open_service
from wanc.runtime.events import recording
from wanc.runtime.execute import run_selftest
from wanc.runtime.manifest import SEGMENTS, Manifest
from wanc.runtime.verify import verify

from .conftest import MakeVariant, Variant
from .resealed import seal_again

PROMPT = "一个蓝色的正方形向上移动。"
AT_BLOCKS = "partition.cut=blocks"
INT8 = (
    "quantize.scheme=int8",
    "quantize.calibrate.clips=2",
    "quantize.calibrate.timestep_bins=2",
)


def size_of(bundle: Path) -> int:
    return sum(file.size for file in Manifest.read(bundle).files)


def frames_of(bundle: Path) -> np.ndarray[Any, Any]:
    return open_bundle(bundle, threads=1).generate(PROMPT, seed=3, steps=4).frames


def psnr_db(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.fixture(scope="module")
def cut(variant: MakeVariant) -> Variant:
    return variant("cut", AT_BLOCKS)


def test_every_block_is_a_segment(cut: Variant, tiny_bundle: Path) -> None:
    manifest = Manifest.read(cut.root)
    engines: Any = manifest.topology["engines"]
    files = Counter((entry["component"], entry["graph"]) for entry in engines)
    experts = {(f"denoiser_{expert}", graph): 5 for expert in ("high", "low") for graph in ("time", "request", "step")}
    assert {key: count for key, count in files.items() if key in experts} == experts
    assert files["text_encoder", "encode"] > 1 and files["vae_decoder", "steady"] > 1
    assert [entry["segment"] for entry in engines if entry["graph"] == "shape"] == [0, 0], "it is of no block"
    assert manifest.requires == (SEGMENTS,)
    assert Manifest.read(tiny_bundle).requires == ()
    assert verify(cut.root).ok


def test_it_is_hardly_larger(cut: Variant, tiny_bundle: Path) -> None:
    assert size_of(cut.root) <= 1.02 * size_of(tiny_bundle)


def test_its_frames_are_those_of_the_uncut_bundle(cut: Variant, tiny_bundle: Path) -> None:
    np.testing.assert_array_equal(frames_of(cut.root), frames_of(tiny_bundle))


def test_it_passes_its_self_test(cut: Variant) -> None:
    assert run_selftest(cut.root).ok


@pytest.fixture(scope="module")
def on_three(cut: Variant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, each block on another of three devices than the one before it."""
    root = tmp_path_factory.mktemp("placed") / "bundle"
    shutil.copytree(cut.root, root)

    def place(_: Path, manifest: Any) -> None:
        for entry in manifest["topology"]["engines"]:
            entry["device"] = f"cpu.{entry['segment'] % 3}"

    seal_again(root, place)
    return root


def test_its_frames_on_several_devices(on_three: Path, tiny_bundle: Path) -> None:
    np.testing.assert_array_equal(frames_of(on_three), frames_of(tiny_bundle))
    assert run_selftest(on_three).ok


def test_its_frames_on_devices_that_are_processes(on_three: Path, tiny_bundle: Path) -> None:
    pipeline = open_bundle(on_three, threads=1, workers="processes", worker_timeout=120)
    found = pipeline.generate(PROMPT, seed=3, steps=2, frames=5)
    expected = open_bundle(tiny_bundle, threads=1).generate(PROMPT, seed=3, steps=2, frames=5)
    np.testing.assert_array_equal(found.frames, expected.frames)


def test_many_videos_at_once_on_several_devices(on_three: Path, tiny_bundle: Path) -> None:
    """Each is what one device makes of it alone, and devices work on different ones meanwhile."""
    prompts = [PROMPT, "A red circle moves to the left.", "A green square moves right."]
    alone = open_bundle(tiny_bundle, threads=1)
    expected = [alone.generate(prompt, seed=3, steps=2, frames=5).frames for prompt in prompts]
    with recording() as recorder, open_service(on_three, threads=1) as service:
        tickets = [service.submit(prompt, seed=3, steps=2, frames=5) for prompt in prompts]
        for ticket, frames in zip(tickets, expected, strict=True):
            np.testing.assert_array_equal(ticket.result(120).frames, frames)
    steps = [span for span in recorder.spans if (span.phase, span.graph) == ("execute", "step") and span.track]
    assert {span.track.name for span in steps if span.track} == {"cpu.0", "cpu.1", "cpu.2"}
    assert len({span.request for span in steps}) == len(prompts)
    assert any(
        one.request != other.request and one.start < other.start < one.end for one in steps for other in steps
    ), "two videos were under way at one moment"


@pytest.mark.slow
def test_its_frames_in_openvino(variant: MakeVariant) -> None:
    """Its products are parted otherwise, so that sums come out in another order."""
    whole, cut = (
        variant(f"openvino-{name}", "engine.kind=openvino", *overrides)
        for name, overrides in (("whole", ()), ("cut", (AT_BLOCKS,)))
    )
    assert size_of(cut.root) <= 1.02 * size_of(whole.root)
    assert psnr_db(frames_of(cut.root), frames_of(whole.root)) >= 60
    assert run_selftest(cut.root).ok


@pytest.mark.slow
def test_its_frames_in_int8(tiny_bundle: Path) -> None:
    recipe = Path(__file__).parents[2] / "recipes/tiny-wan-int8.yaml"
    found: list[Path] = []
    for name, overrides in (("int8-whole", ()), ("int8-cut", (AT_BLOCKS,))):
        (loaded,) = load(recipe, [f"name={name}", *INT8, *overrides])
        found.append(build(loaded, tiny_bundle.parents[1], progress=False).bundle)
    whole, cut = found
    assert size_of(cut) <= 1.02 * size_of(whole)
    np.testing.assert_array_equal(frames_of(cut), frames_of(whole))
    assert run_selftest(cut).ok


def without_requires(manifest: dict[str, Any]) -> None:
    manifest["requires"] = []


def with_an_unknown_one(manifest: dict[str, Any]) -> None:
    manifest["requires"] = ["segments/2"]


def without_a_segment(manifest: dict[str, Any]) -> None:
    engines = manifest["topology"]["engines"]
    engines.remove(next(entry for entry in engines if entry["graph"] == "step" and entry["segment"] == 2))


def in_another_order(manifest: dict[str, Any]) -> None:
    for entry in manifest["topology"]["engines"]:
        if entry["graph"] == "step" and entry["segment"] in (1, 2):
            entry["segment"] = 3 - entry["segment"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_requires, "segments/1"),
        (with_an_unknown_one, "segments/2"),
        (without_a_segment, "segment 2 is missing"),
        (in_another_order, "which nothing before it gives"),
    ],
)
def test_what_is_not_said_or_not_known_is_refused(
    cut: Variant, change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    """Each in a manifest whose digests are right."""
    bundle = Path(shutil.copytree(cut.root, tmp_path / "bundle"))
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_bytes(canonical(manifest))
    with pytest.raises(BundleError, match=said):
        open_bundle(bundle)
