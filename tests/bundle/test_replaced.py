"""A run is the bundle that was verified: not another one that came under its name, and no file that came later."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

import wanc
from wanc.artifacts.canonical import canonical
from wanc.artifacts.publish import exchange
from wanc.errors import VerificationError
from wanc.runtime.verify import ensure_verified, verify

from .conftest import MakeVariant

PROMPT = "A red circle moves to the left."
FEW: dict[str, Any] = {"frames": 5, "steps": 2}
OPTIONS = ["--prompt", PROMPT, "--frames", "5", "--steps", "2"]


def other_bundle(bundle: Path, copy: Path) -> Path:
    """A sound bundle of the same files which makes other videos: its experts have changed their weights."""
    shutil.copytree(bundle, copy)
    for high in sorted(copy.glob("engines/denoiser_high/*.bin")):
        exchange(high, Path(str(high).replace("denoiser_high", "denoiser_low")))
    manifest = json.loads((copy / "manifest.json").read_bytes())
    entries = {entry["path"]: entry for entry in manifest["files"]}
    for path, entry in entries.items():
        if path.startswith("engines/denoiser_high/") and path.endswith(".bin"):
            low = entries[path.replace("high", "low")]
            entry["sha256"], low["sha256"] = low["sha256"], entry["sha256"]
            entry["size"], low["size"] = low["size"], entry["size"]
    (copy / "manifest.json").write_bytes(canonical(manifest))
    assert verify(copy).ok
    return copy


@pytest.fixture(scope="module", params=["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest, variant: MakeVariant, tiny_bundle: Path) -> Path:
    return tiny_bundle if request.param == "onnxruntime" else variant("openvino", "engine.kind=openvino").root


@pytest.fixture(scope="module")
def pair(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two bundles of the same files, and different videos."""
    folder = tmp_path_factory.mktemp("pair")
    return Path(shutil.copytree(engine, folder / "a")), other_bundle(engine, folder / "b")


def by_link(first: Path, second: Path, folder: Path) -> tuple[Path, Callable[[], None]]:
    """How a deploy tool puts a bundle in place: `current` is made to lead elsewhere, in one step."""
    current = folder / "current"
    current.symlink_to(first)

    def turn() -> None:
        (folder / "next").symlink_to(second)
        os.replace(folder / "next", current)

    return current, turn


def by_exchange(first: Path, second: Path, folder: Path) -> tuple[Path, Callable[[], None]]:
    for source, name in ((first, "here"), (second, "there")):
        shutil.copytree(source, folder / name)
    return folder / "here", lambda: exchange(folder / "here", folder / "there") and None


def by_removal(first: Path, second: Path, folder: Path) -> tuple[Path, Callable[[], None]]:
    """The old one renamed away, and the new one copied into its place."""
    shutil.copytree(first, folder / "here")

    def turn() -> None:
        (folder / "here").rename(folder / "old")
        shutil.copytree(second, folder / "here")

    return folder / "here", turn


@pytest.mark.parametrize("replaced", [by_link, by_exchange, by_removal])
@pytest.mark.parametrize("phase", ["verify", "denoise", "decode"])
def test_a_bundle_that_is_replaced_meanwhile(
    pair: tuple[Path, Path],
    replaced: Callable[[Path, Path, Path], tuple[Path, Callable[[], None]]],
    phase: str,
    tmp_path: Path,
) -> None:
    """From then on, whatever is opened late is the verified one's: engines, weights, tables, tokenizer, embeddings."""
    first, second = pair
    path, turn = replaced(first, second, tmp_path)
    turned = Event()

    def turn_once(at: str, done: int, total: int) -> None:
        # Of the verification its end, of all else its beginning.
        if at == phase and not turned.is_set() and (done == total or phase != "verify"):
            turn()
            turned.set()

    result = wanc.open(path, threads=1, on_progress=turn_once).generate(PROMPT, **FEW, on_progress=turn_once)
    assert turned.is_set() and ensure_verified(path).id == ensure_verified(second).id
    assert result.tags["bundle"] == ensure_verified(first).id
    np.testing.assert_array_equal(result.frames, wanc.open(first, threads=1).generate(PROMPT, **FEW).frames)
    assert (result.frames != wanc.open(second, threads=1).generate(PROMPT, **FEW).frames).any()


def run(bundle: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, bundle / "run.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
def test_two_bundles_that_change_places_all_the_time(tiny_bundle: Path, tmp_path: Path) -> None:
    """Each run, in a process of its own, is one of them or the other, and says which."""
    first, second = (
        Path(shutil.copytree(tiny_bundle, tmp_path / "a")),
        other_bundle(tiny_bundle, tmp_path / "b"),
    )
    videos = {}
    for bundle in (first, second):
        assert run(bundle, *OPTIONS, "-o", tmp_path / "video.mp4").returncode == 0
        videos[ensure_verified(bundle).id] = (tmp_path / "video.mp4").read_bytes()
    ended = Event()

    def change_places() -> None:
        while not ended.wait(0.002):
            exchange(first, second)

    thread = Thread(target=change_places)
    thread.start()
    try:
        for number in range(6):
            video = tmp_path / f"{number}.mp4"
            finished = run(first, *OPTIONS, "-o", video)
            assert (finished.returncode, finished.stderr) == (0, "")
            assert video.read_bytes() in videos.values()
    finally:
        ended.set()
        thread.join()


def written_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(file.read(1)[:0] or b"\0")


def another_file(path: Path) -> None:
    shutil.copy2(path, path.with_name("new"))
    os.replace(path.with_name("new"), path)


def a_link(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


@pytest.mark.parametrize("change", [written_to, another_file, a_link, Path.unlink])
@pytest.mark.parametrize("name", ["engines/denoiser_low/step.s0.cpu.onnx", "engines/denoiser_low/weights.s0.cpu.bin"])
def test_a_file_that_was_touched_since(own_copy: Path, change: Callable[[Path], None], name: str) -> None:
    """After the verification, before it is opened: the file itself, or the weights that its library opens beside it."""
    pipeline = wanc.open(own_copy, threads=1)
    change(own_copy / name)
    with pytest.raises(VerificationError) as caught:
        pipeline.generate(PROMPT, **FEW)
    assert (caught.value.message, caught.value.where) == ("was changed since it was verified", str(own_copy / name))


EXECUTED = "executed"


@pytest.mark.parametrize("module", ["__init__", "directory", "errors", "main", "executor", "backends/onnxruntime"])
def test_code_that_was_not_sealed_is_not_executed(own_copy: Path, tmp_path: Path, module: str) -> None:
    path = own_copy / "runtime" / f"{module}.py"
    path.write_text(f"open({str(tmp_path / EXECUTED)!r}, 'w')\n{path.read_text()}")
    refused(own_copy, tmp_path, f"runtime/{module}.py")


def refused(bundle: Path, folder: Path, said: str) -> None:
    finished = run(bundle, "--selftest")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith(f"error: {bundle}: the bundle is not what its manifest says: ")
    assert said in finished.stderr and "Traceback" not in finished.stderr
    assert finished.stderr.endswith("hint: fetch or build the bundle again; do not run it\n")
    assert not (folder / EXECUTED).exists()


def as_a_link(own_copy: Path, evil: Path) -> str:
    (own_copy / "runtime/errors.py").unlink()
    (own_copy / "runtime/errors.py").symlink_to(evil)
    return "runtime/errors.py cannot be read: Too many levels of symbolic links"


def as_a_package(own_copy: Path, evil: Path) -> str:
    (own_copy / "runtime/errors").mkdir()
    shutil.copy2(evil, own_copy / "runtime/errors/__init__.py")
    return "runtime/errors is not in the manifest"


def as_a_module_beside_it(own_copy: Path, evil: Path) -> str:
    shutil.copy2(evil, own_copy / "runtime.py")
    shutil.copy2(evil, own_copy / "hashlib.py")
    return "hashlib.py is not in the manifest"


def as_bytecode(own_copy: Path, evil: Path) -> str:
    import py_compile

    (own_copy / "runtime/__pycache__").unlink()
    cached = own_copy / f"runtime/__pycache__/errors.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(evil), str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return "runtime/__pycache__"


def as_no_manifest(own_copy: Path, _: Path) -> str:
    (own_copy / "manifest.json").write_text('{"files": [3]}')
    return "manifest.json is none"


def without_a_module(own_copy: Path, _: Path) -> str:
    manifest = json.loads((own_copy / "manifest.json").read_bytes())
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != "runtime/errors.py"]
    (own_copy / "manifest.json").write_bytes(canonical(manifest))
    return "it lists no runtime/errors.py"


@pytest.mark.parametrize(
    "way", [as_a_link, as_a_package, as_a_module_beside_it, as_bytecode, as_no_manifest, without_a_module]
)
def test_code_that_comes_another_way_is_not_executed(
    own_copy: Path, tmp_path: Path, way: Callable[[Path, Path], str]
) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / EXECUTED)!r}, 'w')\n")
    refused(own_copy, tmp_path, way(own_copy, evil))
