"""What goes wrong while engines come and go within a budget: typed errors, memory as before, the next request right.

On real engines, through what users call. `Engines` sees every one that is opened, and when it is gone.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import shutil
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wanc as package
from wanc.errors import RequestCancelled, UserError, VerificationError
from wanc.runtime import session
from wanc.runtime.backends.base import Backend
from wanc.runtime.engine_file import EngineMemory
from wanc.runtime.errors import EXIT_IO, TargetError
from wanc.runtime.events import POOL, RESIDENT, Recorder, recording
from wanc.runtime.manifest import Manifest
from wanc.runtime.memory import rss_bytes
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.residency import Residency
from wanc.runtime.service import Service

from .conftest import WITHIN, MakeVariant, Variant
from .test_budgets import least_of

RED, BLUE = "A red circle moves to the left.", "一个蓝色的正方形向上移动。"
SHORT: dict[str, Any] = {"frames": 5, "steps": 2, "seed": 7}
LEAST: dict[str, Any] = {"frames": 1, "steps": 1, "seed": 7}
LONG: dict[str, Any] = {"frames": 17, "steps": 2, "seed": 7}
LEFT_BYTES = 4 * 2**20
"""What heaps may keep however often engines come and go: about what two of them take."""


@pytest.fixture(scope="module", params=["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def bundle(request: pytest.FixtureRequest, within: Variant, variant: MakeVariant) -> Path:
    if request.param == "onnxruntime":
        return within.root
    settings = ("engine.kind=openvino", *WITHIN)
    return variant("openvino-within", *settings).root


def least(bundle: Path) -> str:
    """The budget in which only one engine of each kind finds room at a time."""
    return str(least_of(bundle, "64p"))


class Engines:
    """Those that are open, by their files' names below the bundle; `fail` is asked before one is handed out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = 0
        self.fail: Callable[[str], bool] = lambda _: False
        self._alive = weakref.WeakKeyDictionary[Backend, str]()
        open_backend = session.open_backend

        def watched(engine: str, path: Path, *rest: Any) -> Backend:
            backend = open_backend(engine, path, *rest)
            self.opened += 1
            name = str(Path(*path.parts[-3:]))
            if self.fail(name):
                raise MemoryError("std::bad_alloc")
            self._alive[backend] = name
            return backend

        monkeypatch.setattr(session, "open_backend", watched)

    @property
    def alive(self) -> Counter[str]:
        gc.collect()
        return Counter(self._alive.values())


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    return Engines(monkeypatch)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with recording() as recorder:
        yield recorder


def told(recorder: Recorder, kind: str) -> float:
    """The bytes of the budget that are accounted for at the moment."""
    return recorder.values[RESIDENT, (("budget", "device"), ("kind", kind))]


def assert_accounted(recorder: Recorder, engines: Engines, bundle: Path) -> None:
    """The budget knows of the engines that are there, and of no others; of values it has what the pool keeps."""
    files: Any = Manifest.read(bundle).topology["engines"]
    memory = {file["file"]: EngineMemory(**file["memory"]) for file in files}
    alive = engines.alive
    assert set(alive.values()) <= {1}
    assert told(recorder, "values") <= recorder.values[POOL, ()]
    # Those that were opened ahead, and have not been executed yet, count as while they were opened.
    assert sum(memory[name].opened for name in alive) <= told(recorder, "engines")
    assert told(recorder, "engines") <= sum(memory[name].opening for name in alive)


def frames(service: Service, **options: Any) -> np.ndarray[Any, Any]:
    return service.submit(RED, **options).result(300).frames


# An engine that is not opened


@pytest.mark.parametrize("graph", ["text_encoder/encode", "denoiser_low/step", "vae_decoder/steady"])
def test_a_load_that_fails_midway_fails_one_request(
    bundle: Path, engines: Engines, recorder: Recorder, tmp_path: Path, graph: str
) -> None:
    """Where it is opened ahead, and where it is opened for who needs it."""
    with package.open_service(bundle, threads=1, device_budget=least(bundle)) as service:
        expected = frames(service, **SHORT)
        engines.fail = lambda name: f"{graph}.s1." in name
        ticket = service.write(tmp_path / "out.mp4", BLUE, **SHORT)
        with pytest.raises(TargetError, match="cannot load this engine") as caught:
            ticket.result(300)
        assert str(bundle / f"engines/{graph}.s1.") in str(caught.value.where)
        service.wait()
        assert os.listdir(tmp_path) == []
        assert_accounted(recorder, engines, bundle)
        engines.fail = lambda _: False
        np.testing.assert_array_equal(frames(service, **SHORT), expected)


def test_what_a_failed_load_leaves_is_seen(
    within: Variant, engines: Engines, recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: engines that were closed stay in memory, and the video's file stays under its first name."""
    kept: list[Any] = []
    close_last = Residency[Any]._close_last

    def keeping(residency: Residency[Any], *, sooner_than: float) -> bool:
        kept.extend(entry.session for entry in residency._entries.values())
        return close_last(residency, sooner_than=sooner_than)

    monkeypatch.setattr(Residency, "_close_last", keeping)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with package.open_service(within.root, threads=1, device_budget=least(within.root)) as service:
        engines.fail = lambda name: "vae_decoder/steady.s1." in name
        with pytest.raises(TargetError):
            service.write(tmp_path / "out.mp4", BLUE, **SHORT).result(300)
        service.wait()
        left = os.listdir(tmp_path)
        assert left and all(name.endswith(".part") for name in left)
        with pytest.raises(AssertionError):
            assert_accounted(recorder, engines, within.root)


def vanish(path: Path) -> None:
    path.unlink()


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("change", [vanish, shorten])
def test_a_file_that_is_no_longer_whole_when_it_is_needed_again(
    bundle: Path, engines: Engines, recorder: Recorder, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """An engine that was closed to make room; what runs on others is done."""
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    videos = tmp_path / "videos"
    videos.mkdir()
    with package.open_service(copy, threads=1, device_budget=least(copy)) as service:
        expected = frames(service, **SHORT)
        weights = min((copy / "engines/denoiser_low").glob("*.s2.cpu.bin"))
        assert not [name for name in engines.alive if "denoiser_low/" in name and ".s2." in name], "it was closed"
        change(weights)
        ticket = service.write(videos / "low.mp4", RED, **SHORT)
        high = service.write(videos / "high.mp4", RED, **LEAST)  # its only step is the high-noise expert's
        with pytest.raises(VerificationError, match="was changed since it was verified") as caught:
            ticket.result(300)
        assert caught.value.where == str(weights)
        assert high.result(300).frames == 1
        service.wait()
        assert os.listdir(videos) == ["high.mp4"]
        assert_accounted(recorder, engines, copy)
    weights.unlink(missing_ok=True)
    shutil.copy2(bundle / weights.relative_to(copy), weights)
    with package.open_service(copy, threads=1, device_budget=least(copy)) as service:
        np.testing.assert_array_equal(frames(service, **SHORT), expected)


# A disk that is full


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """`full_disk(bytes)`: files can be no longer than that from now on. What fails is the system call, in FFmpeg."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_a_disk_that_is_full_fails_the_video_that_has_no_room(
    bundle: Path, engines: Engines, recorder: Recorder, tmp_path: Path, full_disk: Callable[[int], None]
) -> None:
    with package.open_service(bundle, threads=1, device_budget=least(bundle)) as service:
        sizes = [
            service.write(tmp_path / f"{name}.mp4", RED, **options).result(300).video.stat().st_size
            for name, options in (("short", LEAST), ("long", LONG))
        ]
        for path in tmp_path.iterdir():
            path.unlink()
        full_disk(sum(sizes) // 2)
        tickets = {
            name: service.write(tmp_path / f"{name}.mp4", RED, **options)
            for name, options in (("long", LONG), ("short", LEAST))
        }
        with pytest.raises(UserError, match="the video cannot be written") as caught:
            tickets["long"].result(300)
        assert caught.value.exit_code == EXIT_IO
        assert tickets["short"].result(300).frames == 1
        service.wait()
    assert os.listdir(tmp_path) == ["short.mp4"]
    assert (tmp_path / "short.mp4").stat().st_size == sizes[0]
    assert_accounted(recorder, engines, bundle)


def test_a_run_on_a_full_disk_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    """`wanc run`, in a process of its own, whose files have room for the beginning of the video."""
    options = ("--prompt", RED, "--frames", "17", "--steps", "2", "--device-budget", least(bundle))
    finished = subprocess.run(
        [sys.executable, "-m", "wanc", "run", bundle, *options, "-o", tmp_path / "out.mp4"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == EXIT_IO, finished.stderr
    assert finished.stderr.startswith(f"error: {tmp_path / 'out.mp4'}: the video cannot be written\n")
    assert "Traceback" not in finished.stderr
    assert os.listdir(tmp_path) == []


# Many


def held_bytes() -> int:
    """What this process holds that it could not give back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return rss_bytes()


def growth(pipeline: Pipeline, loads: int) -> int:
    """Bytes that the process holds more after so many loads, and as many engines closed, than after the first ones."""

    def until(count: int) -> int:
        while pipeline.executor.residency.counters()["loads"] < count:
            pipeline.generate(RED, **LEAST)
        return held_bytes()

    warm = pipeline.executor.residency.counters()["loads"] + 100
    before = until(warm)
    return until(warm + loads) - before


@pytest.mark.parametrize(
    ("bundle", "loads"),
    [
        ("onnxruntime", 100),
        pytest.param("onnxruntime", 1000, marks=pytest.mark.slow),
        pytest.param("openvino", 100, marks=pytest.mark.slow),
        pytest.param("openvino", 1000, marks=pytest.mark.long),
    ],
    indirect=["bundle"],
)
def test_what_engines_leave_behind_when_they_are_closed(bundle: Path, loads: int) -> None:
    pipeline = package.open(bundle, threads=1, device_budget=least(bundle))
    grown = growth(pipeline, loads)
    print(f"{grown / 2**20:.1f} MiB after {loads} loads")
    assert grown < LEFT_BYTES
    assert pipeline.executor.residency.counters()["evictions"] >= loads


def test_an_engine_that_stays_when_it_is_closed_is_found(within: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all graphs the engines of one: the gate above turns red, whatever the process has freed meanwhile."""
    kept: list[Backend] = []
    open_backend = session.open_backend

    def keeping(engine: str, path: Path, *rest: Any) -> Backend:
        backend = open_backend(engine, path, *rest)
        if "denoiser_high/step." in str(path):
            kept.append(backend)
        return backend

    monkeypatch.setattr(session, "open_backend", keeping)
    grown = growth(package.open(within.root, threads=1, device_budget=least(within.root)), 100)
    assert len(kept) > 10
    assert grown > LEFT_BYTES


@pytest.mark.slow
def test_fifty_requests_within_the_least_budget(
    bundle: Path, engines: Engines, recorder: Recorder, tmp_path: Path
) -> None:
    """Ten of them are cancelled, wherever they are."""
    with package.open_service(bundle, threads=1, device_budget=least(bundle)) as service:
        expected = frames(service, **LEAST)

        def burst(count: int) -> Counter[str]:
            folder = tmp_path / str(count)
            folder.mkdir()
            tickets = [
                service.write(folder / f"{number:02}.mp4", RED if number % 2 else BLUE, tenant=str(number % 3), **LEAST)
                for number in range(count)
            ]
            for ticket in tickets[::5]:
                # One after the other: so they are in all stages.
                tickets[1].result(300)
                ticket.cancel()
            done: list[str] = []
            for number, ticket in enumerate(tickets):
                try:
                    done.append(ticket.result(300).video.name)
                except RequestCancelled:
                    assert number % 5 == 0
            service.wait()
            assert sorted(os.listdir(folder)) == done
            assert len({path.read_bytes() for path in folder.iterdir()}) == 2
            return Counter(ticket.outcome for ticket in tickets)

        burst(10)
        assert_accounted(recorder, engines, bundle)
        before = held_bytes()
        outcomes = burst(50)
        assert outcomes["done"] >= 40 and outcomes.keys() <= {"done", "cancelled"}
        assert outcomes["cancelled"] >= 8, "the first may be done before it is cancelled"
        assert_accounted(recorder, engines, bundle)
        assert held_bytes() - before < LEFT_BYTES
        np.testing.assert_array_equal(frames(service, **LEAST), expected)
