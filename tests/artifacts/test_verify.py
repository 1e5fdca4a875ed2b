"""Every way in which a bundle can differ from its manifest is found, and named."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wanc.errors import EXIT_NO_INPUT, BundleError, VerificationError
from wanc.runtime import safe_read
from wanc.runtime.verify import Failure, ensure_verified, verify

from .builder import CONTENT, ROOT, encode, failing_paths, manifest_of, reason, write_bundle

WEIGHTS = "engines/denoiser/weights.safetensors"
KINDS = sorted(CONTENT)


def test_a_whole_bundle(bundle: Path) -> None:
    report = verify(bundle)
    assert report.ok
    assert report.id == ensure_verified(bundle).id
    assert report.manifest == ensure_verified(bundle)


def test_empty_files_and_deep_directories(tmp_path: Path) -> None:
    deep = "/".join("d" * 9 for _ in range(23)) + "/file"
    bundle = write_bundle(tmp_path / "b", {**CONTENT, "empty": b"", deep: b"x"})
    assert failing_paths(bundle) == []


def test_modes_and_times_prove_nothing(bundle: Path) -> None:
    for path in bundle.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            os.utime(path, (0, 2**32))
    assert failing_paths(bundle) == []


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 1.0])
def test_one_flipped_bit(bundle: Path, path: str, place: float) -> None:
    data = bytearray(CONTENT[path])
    offset = round(place * (len(data) - 1))
    data[offset] ^= 1 << (offset % 8)
    (bundle / path).write_bytes(data)
    assert failing_paths(bundle) == [path]


@pytest.mark.parametrize("path", KINDS)
@pytest.mark.parametrize("length", ["0", "1", "half", "all but one", "one more"])
def test_another_length(bundle: Path, path: str, length: str) -> None:
    data = CONTENT[path]
    cut = {
        "0": b"",
        "1": data[:1],
        "half": data[: len(data) // 2],
        "all but one": data[:-1],
        "one more": data + b"\0",
    }[length]
    (bundle / path).write_bytes(cut)
    assert failing_paths(bundle) == [path]
    assert reason(bundle, path) == f"has {len(cut)} bytes, not {len(data)}"


def test_a_file_of_another_size_is_not_hashed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / WEIGHTS).write_bytes(CONTENT[WEIGHTS] + b"\0")
    hashed: list[int] = []
    original = safe_read.sha256_of

    def spy(descriptor: int, on_bytes: Any = None) -> tuple[str, int]:
        hashed.append(os.fstat(descriptor).st_size)
        return original(descriptor, on_bytes)

    monkeypatch.setattr("wanc.runtime.verify_files.sha256_of", spy)
    assert [failure.path for failure in verify(bundle).failures] == [WEIGHTS]
    assert len(hashed) == len(CONTENT) - 1


def test_every_flipped_bit_of_the_manifest_is_found_or_gives_another_id(bundle: Path) -> None:
    """The manifest alone cannot know its own name changed; its id, which signatures are about, does."""
    genuine = verify(bundle).id
    data = (bundle / "manifest.json").read_bytes()
    for offset in range(0, len(data), 7):
        changed = bytearray(data)
        changed[offset] ^= 1 << (offset % 8)
        (bundle / "manifest.json").write_bytes(changed)
        assert verify(bundle).id != genuine


@pytest.mark.parametrize("length", [0, 1, 700, -1])
def test_a_truncated_manifest(bundle: Path, length: int) -> None:
    path = bundle / "manifest.json"
    path.write_bytes(path.read_bytes()[:length])
    assert failing_paths(bundle) == ["manifest.json"]


def test_missing_files(bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    shutil.rmtree(bundle / "tokenizer")
    assert failing_paths(bundle) == [WEIGHTS, "tokenizer/tokenizer.json"]
    assert reason(bundle, WEIGHTS) == "is missing"


@pytest.mark.parametrize("name", ["WANC", "manifest.json"])
def test_missing_marker_or_manifest(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert failing_paths(bundle) == [name]


@pytest.mark.parametrize("directory", ["", "engines/denoiser/", ".git/", ".git/hooks/", "tokenizer/.hidden/", "new/"])
@pytest.mark.parametrize("name", ["payload.so", ".payload", "-rf", "a b", "sitecustomize.py"])
def test_an_extra_file(bundle: Path, directory: str, name: str) -> None:
    path = bundle / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert f"{directory}{name}" in failing_paths(bundle)
    assert reason(bundle, f"{directory}{name}") == "is not in the manifest"


def test_names_that_are_no_text_are_printable(bundle: Path) -> None:
    (bundle / os.fsdecode(b"\xff\x1b[31m")).write_bytes(b"")
    (path,) = failing_paths(bundle)
    assert path == "\\udcff\\x1b[31m"
    json.dumps(path).encode()


def test_a_renamed_file(bundle: Path) -> None:
    (bundle / WEIGHTS).rename(bundle / "engines/denoiser/other.safetensors")
    assert failing_paths(bundle) == ["engines/denoiser/other.safetensors", WEIGHTS]


def test_swapped_files_of_one_size(bundle: Path) -> None:
    first, second = (bundle / f"engines/denoiser/step.s{number}.cpu.onnx" for number in (0, 1))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    assert failing_paths(bundle) == [str(path.relative_to(bundle)) for path in (first, second)]


@pytest.mark.parametrize("path", [WEIGHTS, "manifest.json", "WANC"])
def test_a_symbolic_link(bundle: Path, tmp_path: Path, path: str) -> None:
    (bundle / path).rename(tmp_path / "outside")
    (bundle / path).symlink_to(tmp_path / "outside")
    assert failing_paths(bundle) == [path]


def test_an_extra_symbolic_link(bundle: Path) -> None:
    (bundle / "extra").symlink_to("run.py")
    (bundle / "dangling").symlink_to("nowhere")
    assert failing_paths(bundle) == ["dangling", "extra"]


def test_a_linked_directory(bundle: Path, tmp_path: Path) -> None:
    (bundle / "engines").rename(tmp_path / "engines")
    (bundle / "engines").symlink_to(tmp_path / "engines")
    assert "engines" in failing_paths(bundle)
    assert reason(bundle, WEIGHTS) == "is missing"


@pytest.mark.parametrize("path", [WEIGHTS, "manifest.json"])
def test_a_hard_link(bundle: Path, tmp_path: Path, path: str) -> None:
    os.link(bundle / path, tmp_path / "outside")
    assert failing_paths(bundle) == [path]
    assert reason(bundle, path).startswith("is a hard link")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "kind"), [(_fifo, "is a FIFO"), (_socket, "is a socket"), (_directory, "is a directory")]
)
def test_something_else_in_place_of_a_file(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], kind: str
) -> None:
    monkeypatch.chdir(bundle)  # a socket's path must be short
    (bundle / "run.py").unlink()
    make(Path("run.py"))
    assert failing_paths(bundle) == ["run.py"]
    # Opening a socket fails before it can be looked at.
    assert reason(bundle, "run.py") in {kind, "cannot be read: No such device or address"}


@pytest.mark.parametrize("make", [_fifo, _socket, _directory])
def test_something_extra(bundle: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]) -> None:
    monkeypatch.chdir(bundle)
    make(Path("extra"))
    assert failing_paths(bundle) == ["extra"]


def test_empty_directories(bundle: Path) -> None:
    (bundle / "engines/empty/inner").mkdir(parents=True)
    assert failing_paths(bundle) == ["engines/empty", "engines/empty/inner"]


def test_directories_nested_without_end(bundle: Path) -> None:
    path = bundle
    for _ in range(200):
        path = path / "d"
    path.mkdir(parents=True)
    paths = failing_paths(bundle)
    assert len(paths) == 129
    assert reason(bundle, paths[-1]) == "is nested too deeply"


@pytest.mark.parametrize("twin", ["RUN.py", "Engines/denoiser", "engines/Denoiser", "Manifest.json", "ATTESTATIONS"])
def test_a_case_twin(bundle: Path, twin: str) -> None:
    (bundle / twin).parent.mkdir(parents=True, exist_ok=True)
    (bundle / twin).write_bytes(b"")
    found = {failure.path: failure.reason for failure in verify(bundle).failures}
    assert any("only in case" in text for text in found.values())
    assert twin.split("/")[0] in found or twin in found


def test_a_file_spelt_in_another_case(bundle: Path) -> None:
    (bundle / "run.py").rename(bundle / "Run.py")
    assert verify(bundle).failures == (
        Failure("Run.py", "differs from run.py only in case"),
        Failure("run.py", "is missing"),
    )


@pytest.mark.parametrize("line", [b"wanc-bundle 2\n", b"\n", b"wanc-bundle 1"])
def test_a_wrong_marker_that_the_manifest_lists(tmp_path: Path, line: bytes) -> None:
    bundle = write_bundle(tmp_path / "b", {**CONTENT, "WANC": line})
    assert failing_paths(bundle) == ([] if line == b"wanc-bundle 1" else ["WANC"])


def test_a_marker_that_is_not_listed(tmp_path: Path) -> None:
    content = {path: data for path, data in CONTENT.items() if path != "WANC"}
    bundle = write_bundle(tmp_path / "b", content)
    (bundle / "WANC").write_bytes(CONTENT["WANC"])
    assert failing_paths(bundle) == ["WANC"]


def test_all_failures_at_once(bundle: Path) -> None:
    (bundle / "run.py").write_bytes(b"")
    (bundle / WEIGHTS).unlink()
    for number in range(9):
        (bundle / f"extra{number}").write_bytes(b"")
    assert len(failing_paths(bundle)) == 11
    with pytest.raises(VerificationError, match=r"extra0 is not in the manifest; .*; and 6 more") as caught:
        ensure_verified(bundle)
    assert caught.value.where == str(bundle)


@pytest.mark.parametrize("name", ["absent", "WANC"])
def test_what_is_no_directory_cannot_be_verified(bundle: Path, name: str) -> None:
    with pytest.raises(BundleError) as caught:
        verify(bundle / name)
    assert caught.value.exit_code == EXIT_NO_INPUT
    assert not isinstance(caught.value, VerificationError)


def test_a_file_that_changes_while_it_is_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = safe_read.sha256_of

    def slow(descriptor: int, on_bytes: Any = None) -> tuple[str, int]:
        result = original(descriptor, on_bytes)
        os.utime(bundle / "run.py", (1, 1))
        return result

    monkeypatch.setattr("wanc.runtime.verify_files.sha256_of", slow)
    assert Failure("run.py", "changed while it was read") in verify(bundle).failures


def test_a_file_that_vanishes_after_the_survey(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = safe_read.sha256_of

    def slow(descriptor: int, on_bytes: Any = None) -> tuple[str, int]:
        (bundle / "tokenizer/tokenizer.json").unlink(missing_ok=True)
        return original(descriptor, on_bytes)

    monkeypatch.setattr("wanc.runtime.verify_files.sha256_of", slow)
    assert failing_paths(bundle) == ["tokenizer/tokenizer.json"]


def test_a_directory_swapped_for_a_link_after_the_survey(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swapped-in files have the right content: what counts is that the link is not followed."""
    original = safe_read.sha256_of

    def swap(descriptor: int, on_bytes: Any = None) -> tuple[str, int]:
        if not (bundle / "tokenizer").is_symlink():
            (bundle / "tokenizer").rename(tmp_path / "outside")
            (bundle / "tokenizer").symlink_to(tmp_path / "outside")
        return original(descriptor, on_bytes)

    monkeypatch.setattr("wanc.runtime.verify_files.sha256_of", swap)
    assert failing_paths(bundle)[-1].startswith("tokenizer")


def test_progress_counts_bytes_up_to_the_total(bundle: Path) -> None:
    calls: list[tuple[int, int]] = []
    (bundle / "run.py").unlink()
    verify(bundle, lambda done, total: calls.append((done, total)))
    total = sum(map(len, CONTENT.values()))
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_verifying_writes_nothing(bundle: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [bundle, *bundle.rglob("*")]}
    verify(bundle)
    assert before == {path: path.stat().st_mtime_ns for path in [bundle, *bundle.rglob("*")]}


def test_a_bundle_for_another_version_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", schema="wanc.manifest/2.0")
    assert failing_paths(bundle) == ["manifest.json"]
    with pytest.raises(BundleError) as caught:
        ensure_verified(bundle)
    assert caught.value.hint == "this bundle was made for another version of wanc"


def test_the_reader_works_without_the_compiler(bundle: Path, tmp_path: Path) -> None:
    """As in a bundle: a copy of the folder under another name, and nothing of wanc to be found."""
    (tmp_path / "shipped").mkdir()
    for name in (
        "cores",
        "directory",
        "errors",
        "folder",
        "safe_read",
        "strict_json",
        "manifest",
        "verify",
        "verify_files",
    ):
        shutil.copy(ROOT / f"wanc/runtime/{name}.py", tmp_path / "shipped")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); sys.modules['wanc'] = None;"
        "from shipped.verify import ensure_verified; print(ensure_verified(Path(sys.argv[2])).id)"
    )
    command = [sys.executable, "-I", "-S", "-c", script, str(tmp_path), str(bundle)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == (verify(bundle).id, "")


def test_a_manifest_for_other_content(bundle: Path) -> None:
    changed = {**CONTENT, "run.py": b"import evil\n\n"}
    (bundle / "manifest.json").write_bytes(encode(manifest_of(changed)))
    assert failing_paths(bundle) == ["run.py"]
