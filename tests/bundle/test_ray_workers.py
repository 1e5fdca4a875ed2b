"""A bundle's devices as actors on a Ray cluster: the same latents, bit for bit, and a machine that is lost is told."""

from __future__ import annotations

import gc
import shutil
import socket
from collections.abc import Generator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from wanc.runtime.api import open as open_bundle
from wanc.runtime.errors import TargetError, UserError
from wanc.runtime.execute import run_selftest
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.segments import Segments
from wanc.runtime.voice import speaking

from ..compiler.test_ray_builds import ALONE, Nodes
from ..runtime.test_executor import KEY
from ..runtime.test_workers import file_on
from .conftest import MakeVariant
from .resealed import seal_again

PROMPT = "A red circle moves to the left."
FEW: dict[str, Any] = {"seed": 3, "steps": 2, "frames": 5}
SECONDS = 60.0


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Generator[Nodes]:
    """Two machines, each with room for both devices."""
    for name, value in ALONE.items():
        monkeypatch.setenv(name, value)
    cluster = Nodes(2)
    yield cluster
    gc.collect()  # pipelines are left before their cluster
    cluster.end()


@pytest.fixture(scope="module")
def on_two(variant: MakeVariant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-wan cut at every block, each on the other of two devices than the one before it."""
    root = tmp_path_factory.mktemp("ray") / "bundle"
    shutil.copytree(variant("cut", "partition.cut=blocks").root, root)

    def place(_: Path, manifest: Any) -> None:
        for entry in manifest["topology"]["engines"]:
            entry["device"] = f"cpu.{entry['segment'] % 2}"

    seal_again(root, place)
    return root


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_segments_as_actors(nodes: Nodes, on_two: Path, tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Latents are those of one device, and each of the two is on a machine of its own."""
    said: list[str] = []
    alone = open_bundle(tiny_bundle, threads=1).generate(PROMPT, **FEW)
    workers = f"ray:{nodes.address}"
    pipeline = open_bundle(on_two, threads=1, workers=workers, worker_timeout=SECONDS)
    with speaking(quiet=True, verbose=True, write=said.append):
        spread = pipeline.generate(PROMPT, **FEW)
    np.testing.assert_array_equal(spread.latents, alone.latents)
    np.testing.assert_array_equal(spread.frames, alone.frames)
    assert len({line.partition(" is on ")[2] for line in said if " is on node " in line}) == 2
    assert run_selftest(on_two, workers=workers).ok


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_machine_is_lost_in_the_middle_of_a_run(nodes: Nodes, on_two: Path, tiny_bundle: Path) -> None:
    alone = open_bundle(tiny_bundle, threads=1).generate(PROMPT, **FEW)
    pipeline = open_bundle(on_two, threads=1, workers=f"ray:{nodes.address}", worker_timeout=SECONDS)
    stepped, gone = Event(), Event()

    def lose() -> None:
        stepped.wait(SECONDS)
        nodes.lose()
        gone.set()

    thread = Thread(target=lose)
    thread.start()

    def on_progress(phase: str, done: float, total: float) -> None:
        if phase == "denoise" and done:
            stepped.set()
            gone.wait(SECONDS)

    with pytest.raises(TargetError, match=r"^cpu\.[01] was lost while it had segment \d+ of ") as caught:
        pipeline.generate(PROMPT, on_progress=on_progress, **FEW)
    thread.join()
    assert caught.value.hint == "run it again: the cluster puts the device on a machine that is there"
    np.testing.assert_array_equal(pipeline.generate(PROMPT, **FEW).latents, alone.latents)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cluster_has_another_bundle_there(nodes: Nodes, on_two: Path, tmp_path: Path) -> None:
    """An actor verifies what lies where it is; what was exchanged behind the driver's back is told."""
    root = tmp_path / "bundle"
    shutil.copytree(on_two, root)
    pipeline = open_bundle(root, threads=1, workers=f"ray:{nodes.address}", worker_timeout=SECONDS)
    root.rename(tmp_path / "before")
    shutil.copytree(on_two, root)
    seal_again(root, lambda _, manifest: manifest.update(created="2020-01-01T00:00:00Z"))
    with pytest.raises(UserError, match="another bundle lies there on node"):
        pipeline.generate(PROMPT, **FEW)


def two_devices(folder: PlainFolder, workers: str) -> Executor:
    files = (file_on("cpu.0", 0, "x", "h"), file_on("cpu.1", 1, "h", "y"))
    return Executor(folder, {KEY: Segments(files, ("x",), ("y",))}, threads=1, transport=workers)


def test_what_is_no_sealed_bundle_is_on_no_other_machine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers on a cluster take a sealed bundle and an installed wanc"):
        two_devices(PlainFolder(tmp_path), "ray:127.0.0.1:6379")


@pytest.mark.parametrize("workers", ["ray", "ray:", "ray:host", "ray:host:port", "rays:host:1"])
def test_an_address_that_is_none(tmp_path: Path, workers: str) -> None:
    with pytest.raises(UserError) as caught:
        two_devices(PlainFolder(tmp_path), workers)
    assert "ray:HOST:PORT" in str(caught.value.hint)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    folder = PlainFolder(tmp_path)
    folder.bundle_id = "sha256:0"
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match="there is no Ray cluster that can be joined") as caught:
            two_devices(folder, f"ray:{address}")
    assert caught.value.where == address
