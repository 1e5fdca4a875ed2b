"""A bundle in which a single bit, name or link is not as it was sealed is refused, before any of it is used.

`wanc verify` and `run.py` share the check. What run.py promises is that damage is found before an engine, a table or a
tokenizer is read; against somebody who rewrites run.py itself only a verifier from elsewhere helps: `wanc verify`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tokenizers

from wanc.runtime import safetensors, text
from wanc.runtime.verify import verify

from ..conftest import Wanc
from .conftest import RunPy

REFUSED = 1

# One of every kind. `engines/…/weights…` is raw numbers: no format of its own would notice.
KINDS = [
    "WANC",
    "__pycache__",
    "program.json",
    "recipe.lock.json",
    "engine_report.json",
    "requirements.txt",
    "run.py",
    "runtime/main.py",
    "runtime/verify.py",
    "runtime/solvers/unipc.py",
    "tokenizer/tokenizer.json",
    "golden/expected.safetensors",
    "golden/tolerances.json",
    "engines/denoiser_high/step.s0.cpu.onnx",
    "engines/denoiser_low/weights.s0.cpu.bin",
    "engines/text_encoder/embedding.safetensors",
    "engines/vae_decoder/steady.s0.cpu.onnx",
]


@dataclass(frozen=True)
class Refusal:
    """Asks both doors to refuse a bundle."""

    root: Path
    wanc: Wanc
    run_py: RunPy

    def __call__(self, path: str, reason: str = "", *, leftover: str = "") -> None:
        """Both refuse, name `path` and say `reason`; nothing is written, and the bundle stays as it was.

        `leftover` is what both say has to be removed.
        """
        remedy = f"removing what was left there mends the bundle: rm -r {self.root / leftover}" if leftover else ""
        verified = self.wanc("verify", self.root)
        assert (verified.code, verified.out) == (REFUSED, "")
        assert any(line.startswith(f"{path}: {reason}") for line in verified.err.splitlines()), verified.err
        hint = remedy or "do not run it"
        assert verified.err.endswith(f"error: {self.root} is not what its manifest says\nhint: {hint}\n")
        ran = self.run_py(self.root, "--prompt", "a", "-o", self.root.parent / "out.mp4")
        assert (ran.code, ran.out) == (REFUSED, "")
        assert ran.err.startswith(f"error: {self.root}: the bundle is not what its manifest says: ")
        assert f"{path} {reason}" in ran.err
        hint = remedy or "fetch or build the bundle again; do not run it"
        assert ran.err.endswith(f"\nhint: {hint}\n")
        assert not (self.root.parent / "out.mp4").exists()


@pytest.fixture(scope="module")
def copy(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for many small damages, each of which is mended again."""
    return Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("tamper") / "bundle"))


@pytest.fixture
def refused(copy: Path, wanc: Wanc, run_py: RunPy) -> Iterator[Refusal]:
    yield Refusal(copy, wanc, run_py)
    assert verify(copy).ok, "a test has not mended what it broke"


@contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    original = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(original)


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def test_the_kinds_are_all_kinds(tiny_bundle: Path) -> None:
    suffixes = {path.suffix for path in tiny_bundle.rglob("*") if path.is_file() and path.name != "manifest.json"}
    assert {Path(path).suffix for path in KINDS} == suffixes
    assert {Path(path).parts[0] for path in KINDS} | {"manifest.json"} == {path.name for path in tiny_bundle.iterdir()}


@pytest.mark.parametrize("path", KINDS)
def test_a_flipped_bit_is_found(refused: Refusal, path: str) -> None:
    file = refused.root / path
    data = file.read_bytes()
    middle = np.random.default_rng(len(data)).integers(len(data))
    for offset, bit in ((0, 0), (int(middle), 5), (len(data) - 1, 7)):
        with replaced(file, flipped(data, offset, bit)):
            refused(path, "has sha256:")


def test_a_flipped_bit_of_the_manifest_is_found_or_names_another_bundle(copy: Path) -> None:
    """A manifest says nothing of itself: its digest is the bundle's name, and the name is what one trusts."""
    file = copy / "manifest.json"
    data = file.read_bytes()
    identity = verify(copy).id
    random = np.random.default_rng(0)
    offsets = [0, len(data) - 1, data.index(b'"sha256:') + 20, *random.integers(len(data), size=40).tolist()]
    for offset in offsets:
        with replaced(file, flipped(data, offset, int(random.integers(8)))):
            report = verify(copy)
            assert not report.ok or report.id != identity, f"offset {offset}"


def test_a_changed_digest_in_the_manifest_is_found(refused: Refusal) -> None:
    file = refused.root / "manifest.json"
    document = json.loads(file.read_bytes())
    (entry,) = [entry for entry in document["files"] if entry["path"] == "tokenizer/tokenizer.json"]
    entry["sha256"] = "sha256:" + "0" * 64
    with replaced(file, json.dumps(document, sort_keys=True, separators=(",", ":")).encode()):
        refused("tokenizer/tokenizer.json", "has sha256:")


@pytest.mark.parametrize("path", ["engines/denoiser_low/weights.s0.cpu.bin", "run.py", "WANC"])
def test_truncation_and_growth_are_found(refused: Refusal, path: str) -> None:
    file = refused.root / path
    data = file.read_bytes()
    for wrong in (b"", data[:-1], data[: len(data) // 2], data + b"\n"):
        with replaced(file, wrong):
            refused(path, f"has {len(wrong)} bytes, not {len(data)}")


@pytest.mark.parametrize(
    ("path", "leftover"),
    [
        ("notes.txt", ""),
        (".hidden", ""),
        ("engines/denoiser_high/extra.onnx", ""),
        ("engines/denoiser_high/.step.s0.cpu.onnx.swp", "engines/denoiser_high/.step.s0.cpu.onnx.swp"),
        ("golden/__pycache__/main.cpython-311.pyc", "golden/__pycache__"),
        ("runtime/extra.py", ""),
        ("tokenizer/run.cpython-311.pyc", ""),
        ("tokenizer/TOKENIZER.JSON", ""),
        ("attestations/payload.so", ""),
        (".git/config", ".git"),
        ("empty-folder/", ""),
    ],
)
def test_an_extra_file_is_found(refused: Refusal, path: str, leftover: str) -> None:
    added = refused.root / path
    top = refused.root / next(part for part in _prefixes(path) if not (refused.root / part).exists())
    if path.endswith("/"):
        added.mkdir(parents=True)
    else:
        added.parent.mkdir(parents=True, exist_ok=True)
        added.write_bytes(b"x")
    try:
        refused(path.rstrip("/"), leftover=leftover)
    finally:
        shutil.rmtree(top) if top.is_dir() else top.unlink()


@pytest.mark.parametrize(
    ("path", "who"),
    [
        (".DS_Store", "macOS"),
        ("engines/vae_decoder/.DS_Store", "macOS"),
        ("golden/._inputs.safetensors", "macOS"),
        ("attestations/.DS_Store", "macOS"),
        ("Thumbs.db", "Windows"),
        ("tokenizer/desktop.ini", "Windows"),
        (".directory", "a Linux desktop"),
        ("run.py~", "an editor"),
        ("runtime/.main.py.swp", "an editor"),
        ("#run.py#", "an editor"),
        (".nfs000000000012ab3400000001", "the file system"),
        ("lost+found/", "the file system"),
        ("golden/__pycache__/main.cpython-311.pyc", "Python"),
        (".git/objects/ab/cd", "version control"),
        (".ipynb_checkpoints/run-checkpoint.py", "Jupyter"),
    ],
)
def test_what_desktops_and_editors_leave_is_told_apart_and_can_be_removed(
    copy: Path, wanc: Wanc, path: str, who: str
) -> None:
    added = copy / path
    added.mkdir(parents=True) if path.endswith("/") else added.parent.mkdir(parents=True, exist_ok=True)
    if not path.endswith("/"):
        added.write_bytes(b"x")
    finished = wanc("verify", copy)
    assert finished.code == REFUSED
    failures = {line.split(": ")[0]: line for line in finished.err.splitlines()[:-2]}
    top = next(prefix for prefix in _prefixes(path) if prefix in failures)
    assert failures[top] == f"{top}: is not in the manifest: {who} left it there"
    report = json.loads(wanc("verify", copy, "--json").out)
    assert {"path": top, "reason": f"is not in the manifest: {who} left it there"} in report["failures"]
    hint = finished.err.splitlines()[-1]
    command = hint.removeprefix("hint: removing what was left there mends the bundle: ")
    subprocess.run(["sh", "-c", command], check=True)
    if path.startswith("attestations/"):
        (copy / "attestations").rmdir()
    assert wanc("verify", copy).code == 0


def test_what_a_desktop_left_excuses_no_damage(refused: Refusal) -> None:
    (refused.root / ".DS_Store").write_bytes(b"x")
    try:
        with replaced(refused.root / "run.py", b"print()\n"):
            refused("run.py", "has 8 bytes")
            refused(".DS_Store", "is not in the manifest: macOS left it there")
    finally:
        (refused.root / ".DS_Store").unlink()


def _prefixes(path: str) -> list[str]:
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


@pytest.mark.parametrize("path", ["golden/inputs.safetensors", "program.json", "runtime/denoise.py"])
def test_a_missing_file_is_found(refused: Refusal, path: str, tmp_path: Path) -> None:
    kept = shutil.move(refused.root / path, tmp_path / "kept")
    try:
        refused(path, "is missing")
    finally:
        shutil.move(kept, refused.root / path)


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("engines/denoiser_high/weights.s0.cpu.bin", "engines/denoiser_high/weights.s1.cpu.bin"),
        ("golden/inputs.safetensors", "golden/Inputs.safetensors"),
    ],
)
def test_a_renamed_file_is_found_under_both_names(refused: Refusal, path: str, new: str) -> None:
    (refused.root / path).rename(refused.root / new)
    try:
        refused(path, "is missing")
        refused(new)
    finally:
        (refused.root / new).rename(refused.root / path)


def test_two_files_that_changed_places_are_found(refused: Refusal) -> None:
    """The experts have the same sizes and names: only the digests tell them apart."""
    high, low = (refused.root / f"engines/denoiser_{expert}/weights.s0.cpu.bin" for expert in ("high", "low"))
    assert high.stat().st_size == low.stat().st_size
    with replaced(high, low.read_bytes()):
        refused("engines/denoiser_high/weights.s0.cpu.bin", "has sha256:")


@pytest.mark.parametrize(
    ("link", "reason"),
    [(os.symlink, "cannot be read: Too many levels of symbolic links"), (os.link, "is a hard link")],
    ids=["symbolic", "hard"],
)
def test_a_link_is_refused_though_its_content_is_right(
    refused: Refusal, link: Callable[[Path, Path], None], reason: str, tmp_path: Path
) -> None:
    """Whoever holds the other name could change the content after it was checked."""
    path = "engines/denoiser_high/step.s0.cpu.onnx"
    shutil.move(refused.root / path, tmp_path / "elsewhere")
    link(tmp_path / "elsewhere", refused.root / path)
    try:
        refused(path, reason)
    finally:
        (refused.root / path).unlink()
        shutil.copy2(tmp_path / "elsewhere", refused.root / path)


def test_a_folder_behind_a_symbolic_link_is_refused(refused: Refusal, tmp_path: Path) -> None:
    shutil.move(refused.root / "tokenizer", tmp_path / "tokenizer")
    (refused.root / "tokenizer").symlink_to(tmp_path / "tokenizer")
    try:
        refused("tokenizer", "is not in the manifest")
    finally:
        (refused.root / "tokenizer").unlink()
        shutil.move(tmp_path / "tokenizer", refused.root / "tokenizer")


# Nothing is used before it is verified


def test_nothing_is_parsed_before_everything_is_verified(
    copy: Path, run_py: RunPy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The damage is in a file that is read last: what comes before it in the manifest is sound, and still not used."""
    used: set[str] = set()

    def spied(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            used.add(name)
            return function(*arguments, **named)

        return call

    for name, owner in (("engine", onnxruntime.InferenceSession), ("tensors", safetensors.SafetensorsFile)):
        monkeypatch.setattr(owner, "__init__", spied(name, owner.__init__))
    from_str = spied("tokenizer", tokenizers.Tokenizer.from_str)
    monkeypatch.setattr(text, "tokenizers", SimpleNamespace(Tokenizer=SimpleNamespace(from_str=from_str)))
    video = tmp_path / "out.mp4"
    options = ("--prompt", "a", "--frames", "1", "--steps", "1", "-o", video)
    last = copy / "tokenizer" / "tokenizer.json"
    with replaced(last, flipped(last.read_bytes(), 3, 1)):
        assert run_py(copy, *options).code == REFUSED
        assert run_py(copy, "--selftest").code == REFUSED
    assert used == set()
    assert run_py(copy, *options).code == 0
    assert used == {"engine", "tensors", "tokenizer"}


def run_for_real(root: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "run.py", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_refused_for_real(root: Path, cwd: Path, path: str) -> None:
    finished = run_for_real(root, "--prompt", "a", "-o", cwd / "out.mp4", cwd=cwd)
    assert finished.returncode == REFUSED
    assert finished.stdout == ""
    first, last = finished.stderr.splitlines()
    assert first.startswith(f"error: {root}: the bundle is not what its manifest says: {path} ")
    assert last == "hint: fetch or build the bundle again; do not run it"
    assert os.listdir(cwd) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cwd").mkdir()
    return tmp_path / "cwd"


def test_a_corrupt_engine_never_reaches_onnxruntime(own_copy: Path, folder: Path) -> None:
    """Garbage of the right size: onnxruntime would say so in words of its own, or worse."""
    path = "engines/denoiser_high/step.s0.cpu.onnx"
    size = (own_copy / path).stat().st_size
    (own_copy / path).write_bytes(np.random.default_rng(0).bytes(size))
    assert_refused_for_real(own_copy, folder, path)


def test_a_planted_module_is_not_imported(own_copy: Path, folder: Path) -> None:
    """Modules that run.py and the runtime import, where Python looks first when it runs a script."""
    trace = folder.parent / "trace"
    code = f"open({str(trace)!r}, 'a').write(__name__)\n"
    for name in ("argparse", "json", "pathlib", "hashlib", "importlib", "numpy", "onnxruntime", "signal", "typing"):
        (own_copy / f"{name}.py").write_text(code)
    assert_refused_for_real(own_copy, folder, "argparse.py")
    assert not trace.exists()


def test_a_changed_comment_of_the_runtime_is_refused(own_copy: Path, folder: Path) -> None:
    path = own_copy / "runtime" / "denoise.py"
    path.write_text(path.read_text().replace("The denoising loop", "The denoising loup"))
    assert_refused_for_real(own_copy, folder, "runtime/denoise.py")


def test_a_bundle_without_its_manifest_is_none(own_copy: Path, folder: Path) -> None:
    (own_copy / "manifest.json").unlink()
    finished = run_for_real(own_copy, "--prompt", "a", "-o", folder / "out.mp4", cwd=folder)
    assert (finished.returncode, finished.stdout, finished.stderr) == (
        66,
        "",
        f"error: {own_copy}/manifest.json: is missing\nhint: is this the directory of a bundle?\n",
    )
