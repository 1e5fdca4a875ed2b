"""Pictures decoded in tiles: equal to diffusers' tiled decoding, without seams, in little memory and on little disk."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import ROOT
from wanc.compiler.pipeline import build
from wanc.compiler.program.program import ENGINE_REPORT
from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.runtime import decode as module
from wanc.runtime import scratch as scratch_module
from wanc.runtime.decode import STEADY, decode, decode_tiled, scratch_bytes
from wanc.runtime.errors import EXIT_IO, TargetError, UserError
from wanc.runtime.executor import Executor
from wanc.runtime.manifest import TILES, Manifest
from wanc.runtime.model import DECODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.tiling import Layout, Tiling
from wanc.runtime.value import Value
from wanc.runtime.video_facts import tile_fault

from ..conftest import Wanc
from .conftest import MakeVariant, RunPy

Array = NDArray[np.float32]
POINT = 8
SMALL = Tiling((32, 32), (24, 24))
SHORT = ("--frames", 5, "--steps", 1)


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def vae() -> Any:
    return AutoencoderKLWan.from_pretrained(ROOT / "models" / "tiny-wan" / "vae", torch_dtype=torch.float32).eval()


LOUDER = 3.0
"""How far what the decoder gives is amplified, so that much of it lies beyond white and black."""


def latents_of(height: int, width: int, frames: int) -> Array:
    noise = np.random.default_rng(height + width + frames).standard_normal((1, 16, frames, height // 8, width // 8))
    return noise.astype(np.float32)


@pytest.fixture
def louder(vae: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both decoders give `LOUDER` times what they give."""
    decoded = module.decoded
    monkeypatch.setattr(module, "decoded", lambda *rest: (LOUDER * frames for frames in decoded(*rest)))
    hook = vae.decoder.register_forward_hook(lambda part, given, frames: LOUDER * frames)
    yield
    hook.remove()


@torch.no_grad()
def expected(vae: Any, pipeline: Pipeline, latents: Array, tiling: Tiling | None) -> Array:
    """What diffusers decodes: float32 [1, 3, frames, height, width]."""
    model = pipeline.bundle.model
    mean, std = (np.array(entry, np.float32).reshape(1, -1, 1, 1, 1) for entry in (model.latent_mean, model.latent_std))
    vae.use_tiling = False
    if tiling is not None:
        vae.enable_tiling(*tiling.tile, *tiling.stride)
    return vae.decode(torch.from_numpy(latents * std + mean)).sample.numpy()


class Seen:
    """What is given out, before it is rounded to pixels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: list[Array] = []
        rounded = module.to_pixels

        def noted(frames: Array, *rest: Any) -> Any:
            self.parts.append(frames.copy())
            return rounded(frames, *rest)

        monkeypatch.setattr(module, "to_pixels", noted)

    def video(self, layout: Layout | None = None) -> Array:
        """The parts put together as they come, of whole pictures or of tiles: float32 [1, 3, frames, height, width]."""
        if layout is None:
            return np.concatenate(self.parts, axis=2).clip(-1, 1)
        video, parts = np.full((1, 3, layout.frames, layout.height, layout.width), np.nan, np.float32), iter(self.parts)
        for tile in layout.tiles:
            first, (height, width) = 0, tile.shown
            while first < layout.frames:
                part = next(parts)
                rows, columns = slice(tile.rows.start, tile.rows.start + height), slice(tile.columns.start, None)
                video[:, :, first : first + part.shape[2], rows, columns][..., :width] = part
                first += part.shape[2]
        assert next(parts, None) is None
        return video.clip(-1, 1)


def in_tiles(pipeline: Pipeline, latents: Array, tiling: Tiling) -> NDArray[np.uint8]:
    graphs = pipeline.bundle.interfaces(DECODER)
    return np.concatenate(list(decode_tiled(latents, pipeline.bundle.model, tiling, pipeline.executor, graphs)))


def whole(pipeline: Pipeline, latents: Array) -> NDArray[np.uint8]:
    model, graphs = pipeline.bundle.model, pipeline.bundle.interfaces(DECODER)
    return np.concatenate(list(decode([latents], model.latent_mean, model.latent_std, pipeline.executor, graphs)))


def layout_of(latents: Array, tiling: Tiling) -> Layout:
    frames, height, width = latents.shape[2:]
    return Layout(tiling, height * POINT, width * POINT, 4 * frames - 3)


def pixels(video: Array) -> NDArray[np.float32]:
    return video[0].transpose(1, 2, 3, 0) * 127.5 + 127.5


@pytest.mark.parametrize("frames", [5, 17, 81])
def test_streaming_equals_decoding_the_whole_video(
    pipeline: Pipeline, vae: Any, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = latents_of(24, 32, (frames + 3) // 4)
    seen = Seen(monkeypatch)
    given_out = whole(pipeline, latents)
    reference = expected(vae, pipeline, latents, None)
    assert reference.shape[2] == frames
    np.testing.assert_allclose(seen.video(), reference, rtol=0, atol=1e-5)
    assert np.abs(given_out - pixels(reference)).max() <= 0.5 + 1e-2


TILINGS = {
    "several rows and columns, the last ones cut off": (40, 64, 2, SMALL),
    "more high than wide, unlike steps": (72, 48, 1, Tiling((48, 32), (40, 24))),
    "one row": (32, 64, 3, Tiling((32, 32), (32, 24))),
    "one column": (64, 32, 1, Tiling((40, 32), (32, 32))),
    "tiles at the end that lie within others": (56, 40, 2, Tiling((32, 40), (24, 32))),
    "overlaps of more than half": (32, 48, 2, Tiling((32, 32), (24, 8))),
}


ENOUGH = ("several rows and columns, the last ones cut off", "one row", "tiles at the end that lie within others")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in ENOUGH else [pytest.mark.slow]) for case in TILINGS]
)
def test_tiles_are_what_diffusers_makes_of_them(
    pipeline: Pipeline, vae: Any, louder: None, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width, frames, tiling = TILINGS[case]
    latents = latents_of(height, width, frames)
    seen = Seen(monkeypatch)
    given_out = in_tiles(pipeline, latents, tiling)
    reference = expected(vae, pipeline, latents, tiling)
    assert (np.abs(reference) == 1).mean() > 0.05, "what is cut off before it is blended would not show"
    assert np.abs(reference - expected(vae, pipeline, latents, None)).max() > 0.1, "tiles make no difference"
    np.testing.assert_allclose(seen.video(layout_of(latents, tiling)), reference, rtol=0, atol=1e-4)
    assert given_out.shape == (4 * frames - 3, height, width, 3)
    assert np.abs(given_out - pixels(reference)).max() <= 0.5 + 127.5e-4, "put together otherwise than decoded"


def no_blending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "blend", lambda before, tile, axis: None)


def the_other_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.blend
    monkeypatch.setattr(module, "blend", lambda before, tile, axis: right(np.flip(before, axis), tile, axis))


def one_pixel_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.blend
    monkeypatch.setattr(module, "blend", lambda before, tile, axis: right(np.roll(before, 1, axis), tile, axis))


def a_larger_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that end a pixel later than the overlap."""

    def blend(before: Array, tile: Array, axis: int) -> None:
        share = np.arange(before.shape[axis]).reshape(-1, *[1] * (tile.ndim - axis - 1)) / (before.shape[axis] + 1)
        first = tile[(*[slice(None)] * axis, slice(before.shape[axis]))]
        first[...] = before * (1 - share) + first * share

    monkeypatch.setattr(module, "blend", blend)


def cut_off_first(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._blended  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(module, "_blended", lambda frames, *rest: right(frames.clip(-1, 1), *rest))


def edges_kept_unblended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile's own edge, and not what the tiles above and beside it have made of that."""
    right, own = module._keep, list[Array]()  # pyright: ignore[reportPrivateUsage]
    blended = module._blended  # pyright: ignore[reportPrivateUsage]

    def remember(frames: Array, *rest: Any) -> Array:
        own[:] = [frames]
        return blended(frames, *rest)

    def keep(frames: Array, tile: Any, first: int, layout: Layout, scratch: Any, empty: Any) -> None:
        right(own[0], tile, first, layout, scratch, empty)
        height, width = tile.shown
        scratch.write(layout.picture(tile, first), module.to_pixels(frames[..., :height, :width]))

    monkeypatch.setattr(module, "_blended", remember)
    monkeypatch.setattr(module, "_keep", keep)


def a_first_frame_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile but the first begins with `steady`, on caches of nothing."""
    right, begun = module.Executor.run, dict[str, tuple[int, ...]]()

    def run(executor: Any, component: str, graph: str, inputs: Any) -> Any:
        if graph == "steady" or not begun:
            begun.update({} if begun else {name: value.shape for name, value in inputs.items() if name != "latent"})
            return right(executor, component, graph, inputs)
        scale = inputs["latent"].shape[3] / 4, inputs["latent"].shape[4] / 4
        empty = {
            name: np.zeros((*shape[:3], int(shape[3] * scale[0]), int(shape[4] * scale[1])), np.float32)
            for name, shape in begun.items()
        }
        outputs = right(executor, component, "steady", {"latent": inputs["latent"], **empty})
        return {**outputs, "frames": Value(outputs["frames"].numpy()[:, :, :1])}

    monkeypatch.setattr(module.Executor, "run", run)


FAULTS = [
    no_blending, the_other_way_round, one_pixel_aside, a_larger_overlap, cut_off_first, edges_kept_unblended,
    a_first_frame_like_the_others,
]  # fmt: skip


@pytest.mark.parametrize("plant", FAULTS)
def test_a_planted_fault_is_found(
    pipeline: Pipeline, vae: Any, louder: None, plant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents, tiling = latents_of(40, 64, 2), SMALL
    plant(monkeypatch)
    found = in_tiles(pipeline, latents, tiling)
    error = np.abs(found - pixels(expected(vae, pipeline, latents, tiling))).max()
    assert error > 0.5 + 127.5e-4, plant.__name__


def test_there_are_no_seams(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tiles meet, what tiles change does not change faster than elsewhere. Without blending it does."""
    latents, tiling = latents_of(96, 136, 1), Tiling((48, 48), (32, 32))
    exact = whole(pipeline, latents).astype(np.float32)

    def jump() -> float:
        """How much larger a step across the seams is than one beside them, down and across."""
        change = in_tiles(pipeline, latents, tiling) - exact
        found: list[float] = []
        for axis in (1, 2):
            steps = np.abs(np.diff(change, axis=axis)).mean(axis=tuple({0, 1, 2, 3} - {axis}))
            seams = np.arange(32, change.shape[axis], 32) - 1
            elsewhere = np.setdiff1d(np.arange(len(steps)), seams)
            found.append(float(steps[seams].mean() / steps[elsewhere].mean()))
        return max(found)

    assert jump() < 1.2
    no_blending(monkeypatch)
    assert jump() > 2


SIZES = st.integers(4, 40).map(lambda points: points * POINT)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Any tiles that a bundle may have."""
    height, width = draw(SIZES), draw(SIZES)

    def side(length: int) -> tuple[int, int]:
        tile = draw(st.sampled_from(range(32, length, POINT) or [length]))
        strides = [step for step in range(POINT, tile, POINT) if tile_fault(length, tile, step, POINT) is None]
        is_cut = tile < length and draw(st.booleans())
        return (tile, draw(st.sampled_from(strides))) if is_cut else (length, length)

    (high, down), (wide, across) = side(height), side(width)
    return Layout(Tiling((high, wide), (down, across)), height, width, draw(st.integers(1, 3)))


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_tiles_cover_the_picture_once_and_take_no_more_disk_than_it_has_in_float32(layout: Layout) -> None:
    assert layout.bytes <= 4 * 3 * layout.frames * layout.height * layout.width
    seen = np.zeros((layout.height, layout.width), int)
    used = np.zeros(layout.bytes, np.int8)
    for tile in layout.tiles:
        rows, columns = tile.rows, tile.columns
        seen[rows.start : rows.start + rows.shown, columns.start : columns.start + columns.shown] += 1
        for frame in range(layout.frames):
            used[layout.picture(tile, frame) :][: 3 * rows.shown * columns.shown] += 1
    assert (seen == 1).all() and used.max() == 1
    for row in {tile.rows for tile in layout.tiles}:
        edges = np.zeros(layout.bytes, np.int8)
        for tile in (tile for tile in layout.tiles if tile.rows == row):
            for frame in range(layout.frames):
                edges[layout.below(tile, frame) :][: 12 * row.behind * tile.columns.size] += 1
        for frame in range(layout.frames):
            side = max(tile.columns.behind for tile in layout.tiles)
            edges[layout.beside(frame) :][: 12 * row.size * side] += 1
        assert edges.max(initial=0) <= 1 and not (edges & used).any()


# Memory


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np
from wanc.runtime.decode import decode, decode_tiled
from wanc.runtime.memory import peak_rss_bytes
from wanc.runtime.executor import Executor
from wanc.runtime.manifest import TILES, Manifest
from wanc.runtime.model import DECODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.tiling import Tiling

pipeline = Pipeline.open(Path(sys.argv[1]), threads=1)
model, graphs, run = pipeline.bundle.model, pipeline.bundle.interfaces(DECODER), pipeline.executor
latents = np.random.default_rng(0).standard_normal((1, 16, 21, 6, 8)).astype(np.float32)
print(json.dumps([peak_rss_bytes() for _ in decode([latents], model.latent_mean, model.latent_std, run, graphs)]))
tiles = []
tiling = Tiling((32, 48), (24, 40))
for _ in decode_tiled(latents, model, tiling, run, graphs, lambda _: tiles.append(peak_rss_bytes())):
    pass
print(json.dumps([*tiles, peak_rss_bytes()]))
"""


def test_memory_does_not_grow_with_the_number_of_frames(tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", MEASURE, tiny_bundle]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, text=True)
    of_pictures, of_tiles = (json.loads(line) for line in done.stdout.splitlines())
    assert len(of_pictures) == 21 and len(of_tiles) == 4 * 21 + 1
    frame = 48 * 64 * 3 * 4
    assert of_pictures[-1] - of_pictures[4] < 64 * frame / 4, "64 more frames were decoded meanwhile"
    assert of_tiles[-1] - of_tiles[21 + 4] < 64 * frame / 4, "with all that is put together at the end"


@pytest.mark.parametrize(
    ("decoded", "thrifty"), [(whole, True), (whole, False), (partial(in_tiles, tiling=SMALL), False)]
)
def test_results_find_nothing_kept_where_memory_is_short(
    decoded: Callable[[Pipeline, Array], Any], thrifty: bool, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is taken whole before an execution begins, what is new only as the results come."""
    pipeline = Pipeline.open(tiny_bundle, threads=1)
    bundle, kept = pipeline.bundle, list[int]()
    executor = Executor(bundle.folder, bundle.engines, threads=1, thrifty={DECODER} if thrifty else ())
    monkeypatch.setattr(pipeline, "executor", executor)
    monkeypatch.setattr(executor, "run", run := Mock(wraps=executor.run))

    def look(*_: Any) -> Any:
        kept.append(executor.pool.counts().kept)
        return DEFAULT

    run.side_effect = look
    decoded(pipeline, latents_of(40, 56, 4))
    # The last execution of a tile leaves its caches to the first one of the next.
    steady = [size for call, size in zip(run.call_args_list, kept, strict=True) if call.args[1] == STEADY]
    assert len(steady) >= 3 and (max(steady) == 0) == (thrifty or decoded is not whole)


# Faults


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(scratch_module.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Nothing stays open. What other tests have left behind goes first, and not on the way."""
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_nothing_is_ever_seen_in_the_folder(pipeline: Pipeline, temporary: Path, descriptors: None) -> None:
    names: list[list[str]] = []
    graphs, model = pipeline.bundle.interfaces(DECODER), pipeline.bundle.model

    def look(_: int) -> None:
        names.append(os.listdir(temporary))

    latents = latents_of(40, 40, 2)
    chunks = decode_tiled(latents, model, SMALL, pipeline.executor, graphs, look)
    next(chunks)
    assert len(names) == 8 and not any(names)
    chunks.close()


@pytest.mark.parametrize("folder", ["missing", "a-file", "/proc"])
def test_a_folder_that_takes_no_file_is_told(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv(scratch_module.VARIABLE, str(tmp_path / folder))
    with pytest.raises(UserError, match="cannot be kept in the folder for temporary files") as caught:
        scratch_module.require_room(1000)
    assert caught.value.where == str(tmp_path / folder) and caught.value.exit_code == EXIT_IO
    assert "TMPDIR" in str(caught.value.hint)


@pytest.fixture
def small_files() -> Iterator[int]:
    """The kernel lets files grow to 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit := 2**16, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_is_told_before_the_first_tile(
    pipeline: Pipeline, temporary: Path, small_files: int, descriptors: None
) -> None:
    latents = latents_of(104, 104, 2)
    assert scratch_bytes(latents.shape, pipeline.bundle.model, SMALL) > small_files
    before = pipeline.executor.counters()
    with pytest.raises(UserError, match=r"[0-9,]+ bytes of decoded tiles") as caught:
        in_tiles(pipeline, latents, SMALL)
    assert caught.value.exit_code == EXIT_IO and caught.value.__cause__ is not None
    assert pipeline.executor.counters() == before and os.listdir(temporary) == []


def test_a_disk_that_fails_on_the_way_is_told(
    pipeline: Pipeline, temporary: Path, descriptors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    pwrite = os.pwrite

    def full(descriptor: int, data: Any, offset: int) -> int:
        written.append(offset)
        if len(written) > 7:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data[:1000], offset)  # as the kernel may: not all at once

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match="cannot be kept") as caught:
        in_tiles(pipeline, latents_of(40, 40, 2), SMALL)
    assert caught.value.exit_code == EXIT_IO and os.listdir(temporary) == []


def test_writes_in_pieces_are_one(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:7], offset))
    monkeypatch.setattr(os, "preadv", lambda descriptor, data, offset: preadv(descriptor, [data[0][:5]], offset))
    array = np.arange(60, dtype=np.float32).reshape(3, 20)
    scratch = scratch_module.Scratch(1000)
    scratch.write(100, array[:, ::-1])
    np.testing.assert_array_equal(scratch.read(100, (3, 20), np.float32), array[:, ::-1])
    assert scratch.read(0, (0, 4), np.float32).shape == (0, 4)
    with pytest.raises(UserError, match="cannot be kept"):
        scratch.read(990, (20,), np.uint8)
    scratch.close()


def test_an_engine_that_gives_another_size_is_told(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = module.decoded
    monkeypatch.setattr(module, "decoded", lambda *rest: (frames[..., :-8] for frames in decoded(*rest)))
    with pytest.raises(TargetError, match=r"frames of \[1, 32, 24\], and \[1, 32, 32\] was expected"):
        in_tiles(pipeline, latents_of(40, 40, 2), SMALL)


# Bundles


@pytest.fixture(scope="module")
def tiled(variant: MakeVariant) -> Path:
    return variant("in-tiles", "runtime.decode.tile={height: 32, width: 48}").root


OPTIONS = {"seed": 3, "frames": 5, "steps": 1}


def test_a_bundle_says_which_tiles_and_decodes_in_them(tiled: Path, temporary: Path, run_py: RunPy) -> None:
    manifest = Manifest.read(tiled)
    wanted = {"tile": [32, 48], "stride": [24, 40]}
    assert manifest.runtime["decode"] == {"64p": wanted, "96p-wide": wanted}
    assert manifest.requires == (TILES,)
    opened, told = Pipeline.open(tiled, threads=1), list[tuple[int, int]]()
    result = opened.generate("A red circle.", **OPTIONS, on_progress=lambda phase, *done: told.append(done) or None)
    tiling = Tiling((32, 48), (24, 40))
    np.testing.assert_array_equal(result.frames, in_tiles(opened, result.latents, tiling))
    assert (result.frames != whole(opened, result.latents)).any()
    assert told[-1] == (12, 12) and (7, 12) in told, "two latent frames of 3 x 2 tiles"
    video = temporary / "frames.npz"
    assert run_py(tiled, "--prompt", "A red circle.", *SHORT, "-o", video).code == 0
    assert os.listdir(temporary) == ["frames.npz"]


def test_what_tiles_need_is_found_out_before_the_work(tiled: Path, small_files: int, temporary: Path) -> None:
    opened = Pipeline.open(tiled, threads=1)
    with pytest.raises(UserError, match="cannot be kept in the folder for temporary files"):
        opened.generate("A red circle.", shape="96p-wide", frames=17)
    assert opened.executor.counters() == {}


def test_a_run_that_is_killed_leaves_nothing(tiled: Path, temporary: Path) -> None:
    """Killed as hard as can be while tiles are decoded."""
    script = f"""
import sys
from pathlib import Path
from wanc.runtime.api import open
open(Path({str(tiled)!r}), threads=1).generate(
    "A red circle.", seed=3, frames=81, steps=1, on_progress=lambda *told: print(*told, flush=True)
)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert any(line.startswith("decode 30 ") for line in process.stdout)
        assert os.listdir(temporary) == []
        process.kill()
        for _ in process.stdout:
            pass
    assert process.returncode == -signal.SIGKILL and os.listdir(temporary) == []


@pytest.mark.slow
def test_a_budget_chooses_the_tiles(tiny_recipe: Path, tiny_bundle: Path) -> None:
    """The same every time; where whole pictures fit there are none, and what nothing fits into is refused."""
    store = tiny_bundle.parents[1] / "store"
    output = tiny_bundle.parents[2] / "budgets"

    def built(name: str, budget: int) -> Manifest:
        (loaded,) = load(tiny_recipe, [f"name={name}", f"runtime.budgets.device={budget}"])
        return Manifest.read(build(loaded, output, store=store, progress=False).bundle)

    narrow, again, wide = built("narrow", 95 * 2**20), built("narrow", 95 * 2**20), built("wide", 2**30)
    assert narrow.id == again.id
    chosen: Any = narrow.runtime["decode"]
    assert chosen.keys() == {"64p", "96p-wide"} and narrow.requires == (TILES,)
    assert chosen["64p"]["tile"] < [64, 64]
    assert "decode" not in wide.runtime and wide.requires == ()
    assert Pipeline.open(output / "bundles" / "narrow", threads=1).generate("a", **OPTIONS).frames.shape[0] == 5
    with pytest.raises(RecipeError, match=r"decoding 96p-wide in tiles .* takes .* bytes, .* more than there are"):
        built("none", 2**20)


REFUSED = {
    "runtime.decode.tile={height: 20, width: 32}": "runtime.decode.tile: the tile is 20 pixels",
    "runtime.decode.tile={height: 32, width: 16}": "runtime.decode.tile: the tile is 16 pixels",
    "runtime.decode.tile={height: 32, width: 32, stride_width: 32}": "runtime.decode.tile: the stride is 32 pixels",
    "runtime.decode.tile={height: 32, width: 32, stride_height: 16}": "runtime.decode.tile: the stride is 16 pixels",
    "runtime.decode.tile={height: 0, width: 32}": "at least 1",
    "runtime.decode.tile={height: 32}": "width is missing",
    "runtime.decode.tile=none": "cannot be none",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_tiles_that_cannot_be_are_refused_with_the_recipe(tiny_recipe: Path, wanc: Wanc, setting: str) -> None:
    finished = wanc("recipe", "check", tiny_recipe, "--set", setting)
    assert finished.code == 2 and REFUSED[setting] in finished.err and "hint" in finished.err, finished.err


def test_engines_for_whole_pictures_alone_have_no_tiles(tiny_recipe: Path) -> None:
    gpu = ["engine.kind=tensorrt-rtx", "engine.targets=[sm89]", "precision.compute=bf16"]
    with pytest.raises(RecipeError, match="tensorrt-rtx is built for the sizes of whole pictures alone so far"):
        load(tiny_recipe, [*gpu, "runtime.decode.tile={height: 32, width: 32}"])


# Other engines and numbers

ALL_BUT_THE_VAE = "precision.islands=[residual, modulation, norm, rope, time]"


@pytest.mark.slow
def test_openvino_decodes_the_same_tiles(
    variant: MakeVariant, vae: Any, louder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Pipeline.open(variant("openvino-tiles", "engine.kind=openvino").root, threads=1)
    height, width, frames, tiling = TILINGS["several rows and columns, the last ones cut off"]
    latents, seen = latents_of(height, width, frames), Seen(monkeypatch)
    in_tiles(opened, latents, tiling)
    reference = expected(vae, opened, latents, tiling)
    np.testing.assert_allclose(seen.video(layout_of(latents, tiling)), reference, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_decoder_in_bfloat16_is_an_option(variant: MakeVariant, pipeline: Pipeline) -> None:
    """With norms in float32: far above what 8 bits of colour tell apart, and far below float32."""
    halves = variant("bf16-vae", "engine.kind=openvino", "precision.compute=bf16", ALL_BUT_THE_VAE).root
    report = json.loads((halves / ENGINE_REPORT).read_bytes())["components"]["vae_decoder"]
    assert {entry["precision"] for entry in report.values()} == {"half"}
    latents = latents_of(64, 96, 3)
    exact, rounded = (
        whole(entry, latents).astype(np.float64) / 127.5 - 1 for entry in (pipeline, Pipeline.open(halves))
    )
    sqnr_db = 10 * np.log10((exact**2).mean() / ((exact - rounded) ** 2).mean())
    assert 35 < sqnr_db < 60, sqnr_db
